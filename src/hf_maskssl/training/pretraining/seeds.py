"""Seeds of a training step: a model's draws are a function of them, so nothing has to be restored."""

import random

import numpy as np
import torch
from accelerate.utils import set_seed


def mix(*numbers: int) -> int:
    """One well-spread 32-bit seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_step(seed: int, device: torch.device) -> None:
    """Seed Python, NumPy and torch for a step on `device`, as Accelerate's `set_seed` does, but in microseconds.

    `torch.manual_seed` also seeds every kind of absent device, which takes longer than the step of a tiny model.

    Args:
        seed: Number below 2^32.
        device: Device of the model; all GPUs are seeded.
    """
    if device.type not in ("cpu", "cuda"):
        set_seed(seed)
        return
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


def seed_device(seed: int, device: torch.device) -> None:
    """Seed only the present GPU's random numbers: a step recorded as a CUDA graph draws from nothing else."""
    torch.cuda.manual_seed(seed)
