"""Starting pre-training from another model's weights, where a method supports it."""

import logging
from pathlib import Path
from typing import Literal

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from ...files import nearest_path
from ...models.pretraining import pretraining_hooks

logger = logging.getLogger(__name__)


def start_from(model: PreTrainedModel, name: str, positions: Literal["same", "drop"]) -> PreTrainedModel:
    """Give a new pre-training model the weights of another one, by its hook `warm_start`.

    Args:
        model: Model whose class has the hook: a MultiMAE starts from a ViT or ViT-MAE, a PoS-BERT from a BERT.
        name: Hub name or folder of the other model.
        positions: Position embeddings of a ViT: "same" needs them equal to the model's; "drop" begins without them.

    Returns:
        The model to train, which may be another object.

    Raises:
        ValueError: Another kind of model, sizes that differ, or a name under which there is none.
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
    """The configuration of the model to start from.

    Raises:
        ValueError: No readable model has that name.
    """
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> ValueError:
    """A one-line error that names the field; transformers' message fills several lines."""
    path = Path(name)
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    if not path.exists():
        # What transformers says of such a name ends in advice about the internet connection.
        reason = f"there is no such folder{nearest_path(path)}, and the Hub gives no model of that name"
    elif not (path / "config.json").is_file():
        reason = "it holds no config.json"
    return ValueError(
        f"training.init_from={name!r} is neither a folder nor a Hub name from which a model can be read: {reason}."
    )
