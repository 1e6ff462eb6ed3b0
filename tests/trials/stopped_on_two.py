"""Started by `accelerate launch`: fine-tuning of a recipe, with SIGTERM to the second process alone in its fifth step."""

import os
import signal
import sys
from typing import Any

from accelerate.state import PartialState
from transformers import Trainer

from hf_maskssl.commands import run

original = Trainer.training_step
steps = [0]


def training_step(self: Trainer, *words: Any, **options: Any) -> Any:
    steps[0] += 1
    if steps[0] == 5 and "STOP" in os.environ and PartialState().process_index == 1:
        signal.raise_signal(signal.SIGTERM)
    return original(self, *words, **options)


if __name__ == "__main__":
    Trainer.training_step = training_step
    assert len(sys.argv) == 2
    run("finetune")
