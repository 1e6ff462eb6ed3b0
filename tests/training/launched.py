"""Started by `accelerate launch` or by itself: the example script on each of the recipes given.

Masks depend on the sample alone, so that a run on two processes can be compared with one on one process.
"""

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType
from runs import draws_of_the_sample, queries_of_the_sample, tokens_of_the_sample

from hf_maskssl import MultiMAEForPretraining, SMAForMaskedModeling
from hf_maskssl.models.mask_sampling_metamae import MetaMAEMaskSampler
from hf_maskssl.training import Pretrainer
from hf_maskssl.training.pretraining import loop, saving

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "run_pretrain.py"


def keep_weights_of_each_process() -> None:
    """Beside the checkpoint, which is the main process's."""
    original = loop.finish

    def finish(self: Pretrainer) -> None:
        weights = self.accelerator.get_state_dict(self.model)
        torch.save(weights, self.output_dir / f"process-{self.accelerator.process_index}.pt")
        original(self)

    loop.finish = finish


def die_while_writing(step: int) -> None:
    """SIGKILL when the checkpoint of a step is complete but for its name."""
    original = saving.seal

    def seal(folder: Path, final: Path) -> None:
        if final.name == f"checkpoint-{step:08d}":
            os.kill(os.getpid(), signal.SIGKILL)
        original(folder, final)

    saving.seal = seal


def interrupt_the_second_process(step: int) -> None:
    """SIGTERM to one of the processes after a step of the run whose folder is called `interrupted`."""
    original = Pretrainer._step

    def interrupted(self: Pretrainer, batches: Any) -> None:
        original(self, batches)
        if self.output_dir.name == "interrupted" and self.accelerator.process_index == 1 and self.state.step == step:
            signal.raise_signal(signal.SIGTERM)

    Pretrainer._step = interrupted  # type: ignore[method-assign]


def keep_the_process_group() -> None:
    """For the next recipe: a second group would meet the addresses of the first in the launcher's store."""
    PartialState.destroy_process_group = lambda self, group=None: None  # type: ignore[method-assign]


def allow_fsdp_on_cpu() -> None:
    """Accelerate shards on accelerators only, by the name of the distributed type; torch itself shards on gloo as well."""
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def main() -> None:
    MetaMAEMaskSampler.draw = draws_of_the_sample  # type: ignore[method-assign]
    SMAForMaskedModeling._choose_queries = queries_of_the_sample  # type: ignore[method-assign]
    MultiMAEForPretraining._draw_visible = tokens_of_the_sample  # type: ignore[method-assign]
    keep_weights_of_each_process()
    keep_the_process_group()
    if "DIE_AT" in os.environ:
        die_while_writing(int(os.environ["DIE_AT"]))
    interrupt_the_second_process(step=3)
    for recipe in sys.argv[1:]:
        if os.environ.get("ACCELERATE_USE_FSDP") == "true":
            allow_fsdp_on_cpu()
        sys.argv = [str(EXAMPLE), recipe]
        runpy.run_path(str(EXAMPLE), run_name="__main__")
        AcceleratorState._reset_state()
        GradientState._reset_state()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
