"""Started by `accelerate launch` or by itself: the example script on each of the recipes given.

Masks depend on the sample alone, so that a run on two processes can be compared with one on one process.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType
from runs import draws_of_the_sample

from hf_maskssl import MetaMAEForPretraining
from hf_maskssl.training import Pretrainer, loop

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "run_pretrain.py"


def keep_weights_of_each_process() -> None:
    """Beside the checkpoint, which is the main process's."""
    original = Pretrainer._finish

    def finish(self: Pretrainer) -> None:
        weights = self.accelerator.get_state_dict(self.model)
        torch.save(weights, self.output_dir / f"process-{self.accelerator.process_index}.pt")
        original(self)

    Pretrainer._finish = finish  # type: ignore[method-assign]


def die_while_writing(step: int) -> None:
    """SIGKILL when the checkpoint of a step is complete but for its name."""
    original = loop.seal

    def seal(folder: Path, final: Path) -> None:
        if final.name == f"checkpoint-{step:08d}":
            os.kill(os.getpid(), signal.SIGKILL)
        original(folder, final)

    loop.seal = seal


def allow_fsdp_on_cpu() -> None:
    """Accelerate shards on accelerators only, by the name of the distributed type; torch itself shards on gloo as well."""
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def main() -> None:
    MetaMAEForPretraining._draw = draws_of_the_sample  # type: ignore[method-assign]
    keep_weights_of_each_process()
    if "DIE_AT" in os.environ:
        die_while_writing(int(os.environ["DIE_AT"]))
    for recipe in sys.argv[1:]:
        if os.environ.get("ACCELERATE_USE_FSDP") == "true":
            allow_fsdp_on_cpu()
        sys.argv = [str(EXAMPLE), recipe]
        runpy.run_path(str(EXAMPLE), run_name="__main__")
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


if __name__ == "__main__":
    main()
