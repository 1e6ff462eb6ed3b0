"""Pictures of MultiMAE: its masked inputs and its predictions (Bachmann et al. 2022, Figures 1, 3, 4)."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.patches import Patch
from transformers import PreTrainedConfig

from ..annotation.pseudo_labels import REPORT_FILE
from ..data.arguments import DataArguments, expand_variables
from ..models.configuration_multimae import Modality
from ..models.image_processing_multimae import MultiMAEImageProcessor
from ..models.layers import patchify, unpatchify
from ..models.modeling_multimae import MultiMAEForPretraining
from .figures import new_figure, save_figure
from .reconstruction import (
    display_range,
    hide_pixels,
    image_part,
    spread_over_patches,
    to_rgb,
    undisturbed,
)

CELL_SIZE = 1.25  # inches
BLOCKS_PER_ROW = 3
GAP = 0.14  # between the blocks of two samples, in cells
FRAME_COLOR = "#D55E00"
NO_CLASS_COLOR = (1.0, 1.0, 1.0)
GOLDEN_RATIO = 0.6180339887
MAX_CLASSES_NAMED = 16
VARIANCE_EPSILON = 1e-6  # as in the loss on standardised patches
ClassNames = Mapping[str, Sequence[str]]


@dataclass
class Cell:
    """A small picture (H, W, 3) in [0, 1], or a word where there is none; `framed` marks a modality given to the model."""

    pixels: np.ndarray | None = None
    note: str = ""
    framed: bool = False


@dataclass
class Samples:
    """Samples to draw: `inputs` name -> (B, ...) and `presence` name -> (B,) bool, both on the model's device."""

    inputs: dict[str, torch.Tensor]
    presence: dict[str, torch.Tensor]

    @property
    def count(self) -> int:
        return len(next(iter(self.inputs.values())))

    def has(self, name: str, sample: int) -> bool:
        return name in self.inputs and (name not in self.presence or bool(self.presence[name][sample]))


def draw_modalities(
    model: MultiMAEForPretraining,
    batch: Mapping[str, Any],
    path: str | Path | None,
    processor: object = None,
    masks: Mapping[str, torch.Tensor] | None = None,
    num_samples: int = 6,
    class_names: ClassNames | None = None,
) -> Path | None:
    """Draw the grid of the paper's Figure 1: each sample's masked inputs, predictions and targets, a row for each modality.

    Visible patches are laid over the predictions, as no loss is computed there. Values of one channel are drawn as heat, a
    prediction on its target's scale; standardised patches get their target's mean and standard deviation back.

    The model's weights, mode and the global random state stay as they were; the same weights, batch and masks give the
    same file.

    Args:
        model: A `MultiMAEForPretraining`.
        batch: `inputs` (or `pixel_values`) and perhaps `presence`; anything else is left aside.
        path: PNG, PDF or SVG file to write; its folder is made. None writes nothing: in a run of several processes the
            losses are gathered, so every process must call this, and one of them gives a path.
        processor: The `MultiMAEImageProcessor` that prepared the batch; None leaves values standardised.
        masks: `task_masks` of the model, for at least the samples drawn; None draws them from seed 0.
        num_samples: Largest number of samples to draw, the first ones.
        class_names: Modality -> names of its classes, for the legend.

    Returns:
        The path.

    Raises:
        ValueError: No sample, or a batch that the model refuses.
    """
    samples = _first_samples(model, batch, num_samples)
    given = None
    if masks is not None:
        given = {name: mask[: samples.count].to(model.device) for name, mask in masks.items()}
    with undisturbed(model, seed=0):
        outputs = model(inputs=samples.inputs, presence=samples.presence or None, task_masks=given, predict_all=True)
    if path is None:
        return None
    painter = Painter(model.config, samples, processor, class_names)
    hidden = {name: mask.bool().cpu() for name, mask in outputs.masks.items()}
    predictions = {name: values.float().cpu() for name, values in outputs.predictions.items()}
    blocks = [
        [
            [
                painter.masked(name, sample, hidden.get(modality.source)),
                painter.prediction(name, sample, predictions.get(name), hidden.get(modality.source)),
                painter.target(name, sample),
            ]
            for name, modality in painter.table.items()
        ]
        for sample in range(samples.count)
    ]
    return _draw_blocks(painter, blocks, ["masked input", "prediction", "target"], painter.titles(), path)


def draw_single_inputs(
    model: MultiMAEForPretraining,
    batch: Mapping[str, Any],
    path: str | Path,
    processor: object = None,
    num_samples: int = 6,
    class_names: ClassNames | None = None,
) -> Path:
    """Draw the predictions from one whole modality at a time (Figure 3): a row for each, with a frame around the given one.

    Args and errors are those of `draw_modalities`.

    Returns:
        The path.
    """
    samples = _first_samples(model, batch, num_samples)
    painter = Painter(model.config, samples, processor, class_names)
    columns = [name for name, modality in painter.table.items() if modality.source == name]
    targets = [name for name in columns if painter.table[name].is_output]
    sources = [name for name in columns if painter.table[name].is_input and name in samples.inputs]
    blocks = [[[painter.target(name, sample) for name in columns]] for sample in range(samples.count)]
    for source in sources:
        rows = [sample for sample in range(samples.count) if samples.has(source, sample)]
        with undisturbed(model, seed=0):
            found = model.predict({source: samples.inputs[source][rows]}, targets=targets) if rows else {}
        for sample, block in enumerate(blocks):
            cells = []
            for name in columns:
                if name == source:
                    cell = painter.target(name, sample)
                    cell.framed = cell.pixels is not None
                elif sample not in rows:
                    cell = Cell()
                else:
                    values = found[name][[rows.index(sample)]].float().cpu() if name in found else None
                    cell = painter.prediction(name, sample, values, None, row=0)
                cells.append(cell)
            block.append(cells)
    return _draw_blocks(painter, blocks, columns, ["target", *(f"from {name}" for name in sources)], path)


def draw_repainted(
    model: MultiMAEForPretraining,
    batch: Mapping[str, Any],
    path: str | Path,
    processor: object = None,
    num_samples: int = 4,
    whole: str = "depth",
    partial: str = "rgb",
    num_patches: int = 2,
    class_names: ClassNames | None = None,
) -> Path:
    """Draw a modality predicted from a few of its patches and the whole of another (Figure 4): rgb from depth and hints.

    Three rows a sample: the patches as they are, and with another hue of the most colourful one (its channels exchanged
    in a circle, which turns the hue by 120 and 240 degrees).

    Args:
        model, batch, path, processor, num_samples, class_names: Arguments of `draw_modalities`.
        whole: Name of the input modality that the model sees whole.
        partial: Name of a continuous modality of three channels, input and output; the model sees its most colourful
            patch and others drawn from seed 0.
        num_patches: Number of patches of `partial` that the model sees.

    Returns:
        The path.

    Raises:
        ValueError: No such modalities, another number of channels, more patches than there are, or a sample without them.
    """
    samples = _first_samples(model, batch, num_samples)
    painter = Painter(model.config, samples, processor, class_names)
    _check_repainted(painter, whole, partial, num_patches)
    modality = painter.table[partial]
    pixels = samples.inputs[partial]
    patches = patchify(pixels.float(), modality.patch_shape)  # (B, N, P), channel fastest
    colors = patches.unflatten(-1, (-1, 3)).mean(2)
    best = (colors.amax(-1) - colors.amin(-1)).argmax(1)
    order = torch.rand(patches.shape[:2], generator=torch.Generator().manual_seed(0)).to(best.device)
    order = order.scatter(1, best[:, None], -1.0)
    visible = torch.zeros_like(order, dtype=torch.bool)
    visible = visible.scatter(1, order.argsort(1)[:, :num_patches], True)
    is_best = torch.zeros_like(visible).scatter(1, best[:, None], True)
    blocks: list[list[list[Cell]]] = [[] for _ in range(samples.count)]
    for turn in range(3):
        edited = painter.turn_hue(partial, pixels, is_best, turn)
        with undisturbed(model, seed=0):
            given = {whole: samples.inputs[whole], partial: edited}
            found = model.predict(given, visible={whole: True, partial: visible}, targets=[partial])[partial]
        shown = Painter(model.config, Samples({**samples.inputs, partial: edited}, {}), processor, class_names)
        for sample, block in enumerate(blocks):
            block.append(
                [
                    painter.target(whole, sample),
                    shown.masked(partial, sample, ~visible.cpu()),
                    shown.prediction(partial, sample, found.float().cpu(), ~visible.cpu()),
                    painter.target(partial, sample),
                ]
            )
    titles = [f"{whole}, whole", f"{num_patches} of {partial}", "prediction", "target"]
    return _draw_blocks(painter, blocks, titles, ["as it is", "hue + 120°", "hue + 240°"], path)


def class_color(number: int) -> np.ndarray:
    """The fixed colour (3,) of a class: hues a golden section apart, so that neighbours differ."""
    saturation, value = ((0.75, 0.95), (0.95, 0.65), (0.5, 0.85))[number % 3]
    return hsv_to_rgb(((number * GOLDEN_RATIO + 0.1) % 1.0, saturation, value))


def known_class_names(args: DataArguments) -> dict[str, list[str]]:
    """Modality -> names of its classes, where the data has them: those of the scenes or of pseudo labels."""
    by_column = _class_names_of_columns(args)
    named = args.input_column if isinstance(args.input_column, dict) else {}
    columns = {column: column for column in by_column} | named
    return {modality: by_column[column] for modality, column in columns.items() if column in by_column}


def _class_names_of_columns(args: DataArguments) -> dict[str, list[str]]:
    if args.builtin is not None:
        return {column: list(names) for column, names in args.builtin.class_names.items()}
    report = None if args.data_dir is None else Path(expand_variables(args.data_dir, "data.data_dir")) / REPORT_FILE
    places = [] if report is None else [report.parent / args.train_split / REPORT_FILE, report]
    for place in places:
        if place.is_file():
            return json.loads(place.read_text(encoding="utf-8"))["classes"]
    return {}


class Painter:
    """A painter that turns values of a modality into cells, with one scale for input, prediction and target.

    Args:
        config: Configuration of the model.
        samples: Samples to draw.
        processor: Processor that restores units; None keeps values as they are.
        class_names: Modality -> names.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        samples: Samples,
        processor: object = None,
        class_names: ClassNames | None = None,
    ) -> None:
        self.table = in_order(config.modality_table())
        self.ignore_index = config.semantic_loss_ignore_index
        self.samples = samples
        self.values = {name: values.cpu() for name, values in samples.inputs.items()}
        images = image_part(processor)
        self.pictures = images.pictures() if isinstance(images, MultiMAEImageProcessor) else {}
        self.class_names = dict(class_names or {})
        # Number of drawn pixels of every (modality, class).
        self.drawn: Counter[tuple[str, int]] = Counter()

    def titles(self) -> list[str]:
        """A label for every modality's row."""
        return [
            name if modality.source == name else f"{modality.source}, from\n{name}"
            for name, modality in self.table.items()
        ]

    def target(self, name: str, sample: int) -> Cell:
        """The unmasked modality."""
        source = self.table[name].source
        if not self.samples.has(source, sample):
            return Cell(note="absent")
        return Cell(self._paint(source, self.values[source][sample], sample))

    def masked(self, name: str, sample: int, hidden: torch.Tensor | None) -> Cell:
        """The modality with the patches that the encoder does not see painted over; `hidden` (B, N) bool, None hides all."""
        modality = self.table[name]
        if modality.source != name or not modality.is_input:
            return Cell(note="" if modality.source != name else "not an input")
        if not self.samples.has(name, sample):
            return Cell(note="absent")
        return Cell(
            hide_pixels(self._paint(name, self.values[name][sample], sample), self._spread(name, sample, hidden))
        )

    def prediction(
        self,
        name: str,
        sample: int,
        predicted: torch.Tensor | None,
        hidden: torch.Tensor | None,
        row: int | None = None,
    ) -> Cell:
        """The model's prediction, with visible patches laid over.

        Args:
            name: Name of an output.
            sample: Number of the sample.
            predicted: (B, C or classes, h, w); None where the model does not predict it.
            hidden: (B, N) bool; None hides all patches.
            row: Row of `predicted`, where it differs from the sample's number.
        """
        if predicted is None:
            return Cell(note="not predicted")
        modality = self.table[name]
        source = modality.source
        values = predicted[sample if row is None else row]
        values = values.argmax(0) if modality.is_categorical else values
        if not self.samples.has(source, sample):
            return Cell(self._paint(source, values, None))
        target = self.values[source][sample]
        if modality.loss == "standardized_mse":
            values = restore_patches(values[None], target[None], modality.patch_shape)[0]
        is_hidden = torch.from_numpy(self._spread(name, sample, hidden))
        return Cell(self._paint(source, torch.where(is_hidden, values.to(target.dtype), target), sample))

    def turn_hue(self, name: str, pixels: torch.Tensor, chosen: torch.Tensor, turns: int) -> torch.Tensor:
        """Standardised pixels (B, 3, H, W) with the channels of the chosen patches (B, N) bool moved round in a circle."""
        mean, std = (part.to(pixels) for part in self._statistics(name, 3))
        turned = ((pixels * std + mean).roll(turns, 1) - mean) / std
        is_chosen = spread_over_patches(chosen, pixels, self.table[name].patch_shape)[:, None]
        return torch.where(is_chosen, turned, pixels)

    def _statistics(self, name: str, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation (C, 1, 1) that the processor took out."""
        picture = self.pictures.get(name)
        if picture is None or picture.standardize != "dataset":
            return torch.zeros(channels, 1, 1), torch.ones(channels, 1, 1)
        return torch.tensor(picture.mean).view(-1, 1, 1), torch.tensor(picture.std).view(-1, 1, 1)

    def _paint(self, name: str, values: torch.Tensor, sample: int | None) -> np.ndarray:
        """(C, h, w) or class ids (h, w) -> (h, w, 3), on the scale of the sample's own picture where there is a sample."""
        if self.table[name].is_categorical:
            return self._paint_classes(name, values.numpy())
        mean, std = self._statistics(name, len(values))
        picture = self.pictures.get(name)
        if picture is not None and picture.standardize == "dataset" and math.isclose(picture.scale * 255, 1):
            low, high = np.zeros((1, 1, 1)), np.ones((1, 1, 1))  # bytes have a fixed black and white
        else:
            reference = values if sample is None else self.values[name][sample]
            low, high = display_range((reference.float() * std + mean).numpy())
        return to_rgb((values.float() * std + mean).numpy(), low, high, as_heat=True)

    def _paint_classes(self, name: str, ids: np.ndarray) -> np.ndarray:
        pixels = np.empty((*ids.shape, 3))
        for number, count in zip(*np.unique(ids, return_counts=True), strict=True):
            self.drawn[name, int(number)] += int(count)
            pixels[ids == number] = NO_CLASS_COLOR if number == self.ignore_index else class_color(int(number))
        return pixels

    def _spread(self, name: str, sample: int, hidden: torch.Tensor | None) -> np.ndarray:
        """(h, w) bool, True = hidden pixel."""
        modality = self.table[name]
        values = self.values[modality.source][[sample]]
        values = values[:, None] if modality.is_categorical else values
        if hidden is None:
            return np.ones(values.shape[2:], dtype=bool)
        return spread_over_patches(hidden[[sample]], values, modality.patch_shape)[0].numpy()

    def legend(self) -> list[Patch]:
        """The classes drawn most, in the order of their numbers."""
        most = sorted(key for key, _ in self.drawn.most_common(MAX_CLASSES_NAMED))
        several = len({name for name, _ in self.drawn}) > 1
        handles = []
        for name, number in most:
            names = self.class_names.get(name, ())
            label = names[number] if 0 <= number < len(names) else f"class {number}"
            red, green, blue = class_color(number)
            if number == self.ignore_index:
                label, (red, green, blue) = "no class", NO_CLASS_COLOR
            label = f"{name}: {label}" if several else label
            handles.append(Patch(facecolor=(red, green, blue), edgecolor="#888888", label=label))
        return handles


def in_order(table: Mapping[str, Modality]) -> dict[str, Modality]:
    """Modalities in reading order: rgb first, further outputs behind the modality whose pixels they predict."""
    places = {name: place for place, name in enumerate(table)}
    names = sorted(
        table, key=lambda name: (table[name].source != "rgb", places[table[name].source], table[name].source != name)
    )
    return {name: table[name] for name in names}


def restore_patches(values: torch.Tensor, target: torch.Tensor, patch_shape: tuple[int, int]) -> torch.Tensor:
    """Predictions of standardised patches with the mean and standard deviation of the target's patches.

    Args:
        values: (B, C, H, W), standardised per patch, over pixels and channels together.
        target: (B, C, H, W).
        patch_shape: (h, w).

    Returns:
        Tensor of the same shape.
    """
    patches, truth = patchify(values, patch_shape), patchify(target.to(values), patch_shape)
    deviation = (truth.var(-1, keepdim=True) + VARIANCE_EPSILON).sqrt()
    grid = (values.shape[2] // patch_shape[0], values.shape[3] // patch_shape[1])
    return unpatchify(patches * deviation + truth.mean(-1, keepdim=True), patch_shape, grid, values.shape[1])


def _first_samples(model: Any, batch: Mapping[str, Any], num_samples: int) -> Samples:
    inputs = batch.get("inputs", {"rgb": batch["pixel_values"]} if "pixel_values" in batch else {})
    if num_samples < 1 or not inputs or any(len(values) == 0 for values in inputs.values()):
        shapes = {name: tuple(values.shape) for name, values in inputs.items()}
        raise ValueError(f"nothing to draw: num_samples is {num_samples}, the batch's inputs are {shapes}")
    presence = batch.get("presence") or {}
    return Samples(
        {name: values[:num_samples].to(model.device) for name, values in inputs.items()},
        {name: flags[:num_samples].to(model.device) for name, flags in presence.items()},
    )


def _check_repainted(painter: Painter, whole: str, partial: str, num_patches: int) -> None:
    for argument, name in (("whole", whole), ("partial", partial)):
        known = [name for name, modality in painter.table.items() if modality.is_input and name in painter.values]
        if name not in known:
            raise ValueError(f"{argument}: expected one of the inputs that the batch holds, {known}, got '{name}'")
        if not all(painter.samples.has(name, sample) for sample in range(painter.samples.count)):
            raise ValueError(f"{argument}: a sample lacks '{name}'")
    modality = painter.table[partial]
    if modality.is_categorical or modality.num_channels != 3 or not modality.is_output or whole == partial:
        raise ValueError(
            f"partial: expected an output of three channels other than `whole`, got '{partial}': {modality}"
        )
    height, width = painter.values[partial].shape[2:]
    rows, columns = modality.grid((height, width))
    if not 0 < num_patches < rows * columns:
        raise ValueError(f"num_patches: expected 1 to {rows * columns - 1}, got {num_patches}")


def _draw_blocks(
    painter: Painter,
    blocks: Sequence[Sequence[Sequence[Cell]]],
    column_titles: Sequence[str],
    row_titles: Sequence[str],
    path: str | Path,
) -> Path:
    """Blocks of rows and columns, one for each sample, side by side and in several bands."""
    height, width = next(iter(painter.values.values())).shape[-2:]
    cell_width = CELL_SIZE * min(max(width / height, 1.0), 2.0)
    cell_height = cell_width * min(height / width, 2.0)
    across, down = min(BLOCKS_PER_ROW, len(blocks)), math.ceil(len(blocks) / BLOCKS_PER_ROW)
    num_rows, num_columns = len(row_titles), len(column_titles)
    handles = painter.legend()
    legend_columns = max(1, min(8, int(across * num_columns * cell_width / 1.3)))
    legend_height = 0.1 + 0.17 * math.ceil(len(handles) / legend_columns) if handles else 0.0
    figure = new_figure(
        0.35 + (across * (num_columns + GAP) - GAP) * (cell_width + 0.04),
        0.2 + legend_height + (down * (num_rows + GAP) - GAP) * (cell_height + 0.04),
    )
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    # An empty column or row of cells between two blocks.
    grid = figure.subplots(
        down * (num_rows + 1) - 1,
        across * (num_columns + 1) - 1,
        squeeze=False,
        width_ratios=([1.0] * num_columns + [GAP]) * (across - 1) + [1.0] * num_columns,
        height_ratios=([1.0] * num_rows + [GAP]) * (down - 1) + [1.0] * num_rows,
    )
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[], box_aspect=cell_height / cell_width)
        axes.spines[:].set_visible(False)
    for number, block in enumerate(blocks):
        top, left = number // BLOCKS_PER_ROW * (num_rows + 1), number % BLOCKS_PER_ROW * (num_columns + 1)
        for row, cells in enumerate(block):
            for column, cell in enumerate(cells):
                _draw_cell(grid[top + row, left + column], cell)
        for column, title in enumerate(column_titles if top == 0 else ()):
            grid[top, left + column].set_title(title, fontsize=8)
        for row, title in enumerate(row_titles if left == 0 else ()):
            grid[top + row, left].set_ylabel(title, fontsize=8)
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=legend_columns,
            fontsize=7,
            frameon=False,
            handlelength=1.2,
        )
    return save_figure(figure, path)


def _draw_cell(axes: Axes, cell: Cell) -> None:
    if cell.pixels is not None:
        axes.imshow(cell.pixels, interpolation="nearest", aspect="auto")
    if cell.note:
        axes.text(0.5, 0.5, cell.note, ha="center", va="center", fontsize=7, color="#777777", transform=axes.transAxes)
    if cell.framed:
        axes.spines[:].set(visible=True, color=FRAME_COLOR, linewidth=2.0)
