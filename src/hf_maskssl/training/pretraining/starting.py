"""Where pre-training begins when not from random weights: from another model's, where a method knows how."""

import logging
from typing import Literal

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from ...models.pretraining import pretraining_hooks

logger = logging.getLogger(__name__)


def start_from(model: PreTrainedModel, name: str, positions: Literal["same", "drop"]) -> PreTrainedModel:
    """Give a new pre-training model the weights of another one, by its hook `warm_start`.

    Args:
        model: A model that knows how: a MultiMAE starts from a ViT or ViT-MAE, a PoS-BERT from a BERT.
        name: Hub name or folder of the other model.
        positions: Of a ViT: "same", its position embeddings must be the model's; "drop" begins without them.

    Returns:
        The model to train, which may be another object.

    Raises:
        ValueError: Another kind of model, sizes that differ, or nothing of that name.
    """
    read_start(name)
    try:
        started = pretraining_hooks(model).warm_start(name, positions)
    except OSError as error:
        raise _unreadable(name, error) from error
    except ValueError as error:
        raise ValueError(f"training.init_from={name!r}, training.init_positions={positions!r}: {error}") from error
    if started is None:
        raise ValueError(
            f"training.init_from={name!r} starts a MultiMAE from a ViT or a PoS-BERT from a BERT; {type(model).__name__} "
            "cannot: remove it."
        )
    logger.info("The model begins with the weights of %s; what that lacks is random.", name)
    return started


def read_start(name: str) -> PreTrainedConfig:
    """The configuration of the model to begin with.

    Raises:
        ValueError: There is none of that name, or none that can be read.
    """
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> ValueError:
    """The error in one line that names the field: what transformers says of a name that it cannot find fills several."""
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    return ValueError(
        f"training.init_from={name!r} is neither a folder nor a Hub name from which a model can be read: {reason}."
    )
