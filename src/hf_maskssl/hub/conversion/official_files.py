"""Functions that converters of official checkpoints share: reading the authors' files and filling a model completely."""

import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ...data.processors import Processor

State = dict[str, torch.Tensor]
Names = Sequence[tuple[str, str]]  # parts of weights' names: theirs, ours


@dataclass
class Converted:
    """An official checkpoint as a model of this package.

    Attributes:
        model: Model with the authors' weights.
        assumed: Configuration fields that the file does not store, with the values taken.
        processor: Processor to save beside the model; None where the file implies none.
        notes: Sentences for the card, on what differs from the authors' code.
        origin: What the checkpoint is, for the card; None is one of the method's authors.
    """

    model: PreTrainedModel
    assumed: dict[str, Any]
    processor: Processor = None
    notes: list[str] = field(default_factory=list)
    origin: str | None = None


# Classes that a file may hold: themselves, or with the name under which the file has them.
Allowed = Sequence[type | tuple[type, str]]


def read_checkpoint(path: str | Path, classes: Allowed = ()) -> State:
    """Weights of a `torch.save`d checkpoint, read without running any code in it.

    Args:
        path: A file whose top level is a state dict, or a dict that holds one under "model", or as Lightning's files under
            "state_dict".
        classes: Classes that `read_file` allows.

    Returns:
        Name -> tensor, without the `module.` prefix of data-parallel runs.

    Raises:
        ValueError: The file is absent, damaged, or holds something other than tensors and plain containers.
    """
    return weights_in(read_file(path, classes), path)


def read_file(path: str | Path, classes: Allowed = ()) -> object:
    """The content of a `torch.save`d file, read without running any code in it.

    Args:
        path: Path of the file.
        classes: Classes that the file may hold besides tensors and plain containers; their state is set, nothing is called.

    Raises:
        ValueError: The file is absent, damaged, or holds something else.
    """
    if not Path(path).is_file():
        raise ValueError(f"checkpoint {path} is not a file: give the path of the authors' file.")
    try:
        with torch.serialization.safe_globals(list(classes)):
            return torch.load(path, map_location="cpu", weights_only=True)
    # A file that is no pickle at all may also fail as a KeyError, IndexError, ... inside the reader.
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError) as error:
        raise ValueError(
            f"checkpoint {path} cannot be read: expected a file written by torch.save that holds tensors and plain "
            f"containers only. Nothing else in it was run. {_reason(error)}"
        ) from error


def weights_in(content: object, path: str | Path) -> State:
    """The state dict at the top level of a file's content or under "model" or "state_dict".

    Raises:
        ValueError: There is none.
    """
    state = content
    if isinstance(content, dict):
        state = content.get("model", content.get("state_dict", content))
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(
            f"checkpoint {path} holds no state dict (name -> tensor) at its top level or under 'model' or 'state_dict'."
        )
    return {name.removeprefix("module."): value for name, value in state.items()}


def _reason(error: Exception) -> str:
    """The reader's objection, without torch's advice to read the file unsafely."""
    found = re.search(r"WeightsUnpickler error: (.*?)(?: Please use .*)?$", str(error), flags=re.MULTILINE)
    if found is not None:
        return f"The reader says: {found[1]}"
    lines = [line for line in str(error).splitlines() if line.strip() and "weights_only" not in line]
    return f"The reader says: {lines[0].strip()}" if lines else f"The reader gave up with a {type(error).__name__}."


def load_completely(model: PreTrainedModel, state: State) -> None:
    """Give a model all its weights.

    Raises:
        ValueError: A tensor is missing, left over or of another shape.
    """
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a tensor of another shape
        raise ValueError(f"the checkpoint does not fit the model: {error}") from error
    if missing or unexpected:
        raise ValueError(f"the checkpoint does not fit the model: missing {missing[:8]}, unexpected {unexpected[:8]}.")


def rename_weight(name: str, prefixes: Names, parts: Names) -> str:
    """A weight's name here: the first prefix that fits, and then every part, is replaced by the second of its pair."""
    for old, new in prefixes:
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    for old, new in parts:
        name = name.replace(old, new)
    return name
