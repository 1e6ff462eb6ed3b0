"""The inputs that an export is traced with, those it is checked with, and which of their sizes are free."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ...data.processors import Processor
from ...files import did_you_mean
from ...methods import Method
from ...methods.optional_fields import takes_channels_last
from ...models.feature_extraction_series import SeriesFeatureExtractor
from ..load_checkpoint import arguments_of

Tensors = dict[str, torch.Tensor]  # by name; "inputs.rgb" is the entry "rgb" of the argument `inputs`
# Axis of a tensor -> its name, where its size is free.
FreeAxes = dict[str, dict[int, str]]

BATCH, LENGTH, CHOICES = "batch", "length", "choices"
TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
NUM_CHOICES = 3
MASK = "observed_mask"
OBSERVED_SHARE = 0.75  # share observed of the values that an export is traced and checked with
LARGEST_BATCH = 2**20


@dataclass(frozen=True)
class Length:
    """The lengths that a model takes.

    Attributes:
        high: Largest length, which the model is traced with.
        step: Number that divides every length: the steps of a patch.
    """

    high: int
    step: int = 1

    @property
    def other(self) -> int:
        """A length to check with, about half of the largest."""
        return max(1, (self.high // self.step + 1) // 2) * self.step


@dataclass(frozen=True)
class ExportInputs:
    """Inputs of an export.

    Attributes:
        example: Tensors that the model is traced with; every batch has two rows.
        axes: Axes whose size is free.
        length: Lengths where they are free, otherwise None.
    """

    example: Tensors
    axes: FreeAxes
    length: Length | None

    def dynamic_shapes(self) -> dict[str, Any]:
        """What `torch.export` takes: the argument's name -> its free axes (Any: nested as the arguments are)."""
        dims: dict[str, Any] = {
            BATCH: torch.export.Dim(BATCH, min=1, max=LARGEST_BATCH),
            CHOICES: torch.export.Dim(CHOICES, min=1, max=LARGEST_BATCH),
        }
        if self.length is not None:
            parts = torch.export.Dim(LENGTH, min=1, max=self.length.high // self.length.step)
            dims[LENGTH] = parts if self.length.step == 1 else self.length.step * parts
        shapes = {name: {axis: dims[kind] for axis, kind in axes.items()} for name, axes in self.axes.items()}
        return arguments_of(shapes)  # type: ignore[arg-type]  # the same names, of shapes

    def checks(self) -> list[Tensors]:
        """Inputs of other sizes: three rows, of another length where that is free, and one row, with a choice less where it has
        choices."""
        more = {name: torch.cat([value, _varied(name, value)]) for name, value in self.example.items()}
        if self.length is not None:
            more = shortened(more, self.axes, self.length.other)
        one = {name: value[:1] for name, value in self.example.items()}
        return [more, shortened(one, self.axes, NUM_CHOICES - 1, CHOICES)]

    def with_observed_mask(self, config: PreTrainedConfig) -> "ExportInputs":
        """The same inputs, each continuous one with its mask, 1 = observed, which has holes and leaves a token of each row.

        Args:
            config: Configuration of the model.

        Raises:
            ValueError: The model reads no values that may be missing.
        """
        masks = {
            MASK + name[name.find(".") :] if "." in name else MASK: name  # "observed_mask.depth" of "inputs.depth"
            for name in self.example
            if _may_miss(name, config)
        }
        if not masks:
            raise ValueError(
                "--observed_mask is for series, tables, spectrograms and pictures; this model reads "
                f"{', '.join(self.example)}: leave it out."
            )
        draws = torch.Generator().manual_seed(0)
        example = dict(self.example)
        for mask, name in masks.items():
            example[mask] = torch.rand(self.example[name].shape, generator=draws) < OBSERVED_SHARE
        axes = self.axes | {mask: self.axes[name] for mask, name in masks.items()}
        return replace(self, example=example, axes=axes)


def export_inputs(
    model: PreTrainedModel,
    method: Method,
    head: str,
    processor: Processor,
    names: Sequence[str] | None = None,
    fixed_length: bool = False,
) -> ExportInputs:
    """The inputs of a model's export.

    Args:
        model: Model, which says by its own checks which lengths it takes.
        method: Record of its method, whose example is taken.
        head: Name of its head.
        processor: Processor of the checkpoint; rows of a table keep their length.
        names: Names of the modalities to read, None for those of the head or all; for models of several alone.
        fixed_length: Whether to keep the length of the example.

    Raises:
        ValueError: Modalities that the model does not have, or that this head cannot do with.
    """
    example = choose_inputs(method.example_inputs(model.config), model.config, head, names)
    if head == "multiple_choice":
        example = {name: value.unsqueeze(1).repeat(1, NUM_CHOICES, 1) for name, value in example.items()}
    axes = {name: {0: BATCH} | ({1: CHOICES} if head == "multiple_choice" else {}) for name in example}
    length = None if fixed_length or _is_table(processor) else free_length(model.config, example)
    if length is None:
        return ExportInputs(example, axes, None)
    with_length = {name: axes[name] | _length_axis(name, example[name], model.config) for name in example}
    if not accepts(model, shortened(example, with_length, length.other)):
        return ExportInputs(example, axes, None)
    return ExportInputs(example, with_length, length)


def choose_inputs(example: Tensors, config: PreTrainedConfig, head: str, names: Sequence[str] | None) -> Tensors:
    """The example with the modalities `names` alone, in the example's order.

    Raises:
        ValueError: The model has one input, or lacks a modality.
    """
    known = [name.removeprefix("inputs.") for name in example if name.startswith("inputs.")]
    if not known:
        if names is not None:
            raise ValueError(
                f"--inputs chooses among the modalities of a model that has several; {config.model_type} has one input: "
                "leave it out."
            )
        return example
    chosen: Sequence[str] = names or known
    if names is None and head != "encoder":
        chosen = config.to_dict().get("head_modalities") or known
    for name in chosen:
        if name not in known:
            raise ValueError(f"--inputs: the model has no input {name!r}{did_you_mean(name, known)}; it has {known}.")
    return {f"inputs.{name}": example[f"inputs.{name}"] for name in known if name in chosen}


def free_length(config: PreTrainedConfig, example: Tensors) -> Length | None:
    """The lengths that a configuration allows; None where there is no length, or only one."""
    if "input_ids" in example:
        high, step = example["input_ids"].shape[-1], 1
    elif "input_values" in example:
        high, step = config.signal_shape[0], config.patch_shape[0] if config.has_patches else 1
    else:
        return None
    return Length(high, step) if high // step > 2 else None


def shortened(inputs: Tensors, axes: FreeAxes, length: int, free: str = LENGTH) -> Tensors:
    """Inputs cut to a length, or to a size of the axis `free`, as far as they have it."""
    found = {}
    for name, value in inputs.items():
        axis = next((axis for axis, kind in axes[name].items() if kind == free), None)
        found[name] = value if axis is None else value.narrow(axis, 0, length).contiguous()
    return found


def accepts(model: Callable[..., object], inputs: Tensors) -> bool:
    """Whether a model's own checks let inputs through."""
    try:
        with torch.inference_mode():
            model(**arguments_of(inputs))
    except ValueError:
        return False
    return True


def _length_axis(name: str, value: torch.Tensor, config: PreTrainedConfig) -> dict[int, str]:
    if name in TOKEN_INPUTS:
        return {value.ndim - 1: LENGTH}
    if name == "input_values":
        return {1 if takes_channels_last(config) else 2: LENGTH}
    return {}


def _may_miss(name: str, config: PreTrainedConfig) -> bool:
    """Whether values of an input may be missing: numbers may, ids and classes have an id for it."""
    if name.startswith("inputs."):
        return config.modalities[name.removeprefix("inputs.")]["kind"] == "continuous"
    return name in ("input_values", "pixel_values")


def _varied(name: str, value: torch.Tensor) -> torch.Tensor:
    """A third row, whose values are those of the first two in turn; a mask, whose ones lead, is that of the last row."""
    if name == "attention_mask":
        return value[-1:]
    first, second = value[0].flatten(), value[1].flatten()
    is_first = torch.arange(len(first), device=value.device) % 2 == 0
    return torch.where(is_first, first, second).reshape(value[:1].shape)


def _is_table(processor: Processor) -> bool:
    """Whether the inputs are rows of a table, whose columns have their places."""
    return isinstance(processor, SeriesFeatureExtractor) and processor.statistics_axis == "feature"
