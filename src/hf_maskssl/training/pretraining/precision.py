"""How exactly a GPU multiplies float32 matrices."""

import torch
from transformers.utils import is_torch_tf32_available
from transformers.utils.import_utils import enable_tf32


def use_tf32(tf32: bool | None, device: torch.device) -> None:
    """Switches TensorFloat-32 on or off for the whole process; `training.tf32`, with the meaning it has in transformers.

    Args:
        tf32: True: on; False: off; None: as torch has it.
        device: of the run.

    Raises:
        ValueError: it is asked for where there is none.
    """
    is_available = device.type == "cuda" and is_torch_tf32_available()
    if tf32 and not is_available:
        raise ValueError(
            f"training.tf32: TensorFloat-32 needs an NVIDIA GPU of the Ampere generation or later, this run is on '{device}': "
            "leave it out, or set it to false."
        )
    if tf32 is not None and is_available:
        enable_tf32(tf32)
