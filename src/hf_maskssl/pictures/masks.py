"""Pictures of masks that a model chooses: over images, over characters, over series and over a table's columns.

Every view of a sample comes from the same weights; only the draws differ (SMA, Xie et al. 2024, Figure 2).
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Patch, Rectangle
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from .figures import INPUT_COLOR, new_figure, save_figure, style_small
from .reconstruction import (
    HIDDEN_PIXEL,
    MAX_CURVE_CHANNELS,
    channels_first,
    display_range,
    hide_pixels,
    shade_spans,
    to_rgb,
    undisturbed,
    undo_standardization,
    visible,
)

LINE_CELLS = 100
MARGIN_CELLS = 9
CELL_INCHES = 0.082
LINE_INCHES = 0.19
FONT = FontProperties(family="monospace", size=9.0)
MAX_TOKENS = 720
UNREADABLE = "\ufffd"
LONGEST_CHARACTER = 4  # bytes in UTF-8


@runtime_checkable
class ShowsMasks(Protocol):
    """A pre-training model that chooses its masks and can show them."""

    def sample_mask(self, **inputs: torch.Tensor) -> torch.Tensor:
        """(B, N) bool, True = masked."""


def sample_masks(
    model: PreTrainedModel, inputs: Mapping[str, torch.Tensor | None], seeds: Sequence[int]
) -> np.ndarray:
    """Masks of one batch from several draws.

    The model's weights and mode and the global random state stay as they were.

    Args:
        model: A pre-training model with `sample_mask`.
        inputs: Inputs of `sample_mask`, by name; None is left out.
        seeds: One per view.

    Returns:
        (views, B, N) bool, True = masked.

    Raises:
        ValueError: No seed, or a model that cannot show its masks.
    """
    if not isinstance(model, ShowsMasks):
        raise ValueError(
            f"{type(model).__name__} has no `sample_mask`: open the checkpoint of an SMA or MetaMAE for pre-training"
        )
    if not len(seeds):
        raise ValueError("seeds: expected at least one, the number of views")
    moved = {name: value.to(model.device) for name, value in inputs.items() if value is not None}
    views = []
    for seed in seeds:
        with undisturbed(model, seed):
            views.append(model.sample_mask(**moved).cpu().numpy())
    return np.stack(views)


def _over_values(model: PreTrainedModel, masks: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Masks of tokens (views, B, N) as masks of the values (views, B, *sizes) that they are cut from."""
    if masks.shape[2] == math.prod(sizes):  # every value is a token
        return masks.reshape(*masks.shape[:2], *sizes)
    patch_shape = model.config.patch_shape
    grid = [size // patch for size, patch in zip(sizes, patch_shape, strict=True)]
    masks = masks.reshape(*masks.shape[:2], *grid)
    for axis, patch in enumerate(patch_shape, start=2):
        masks = masks.repeat(patch, axis=axis)
    return masks


# ---- images -------------------------------------------------------------------------------------------------------


def draw_image_masks(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    path: str | Path,
    num_views: int = 2,
    seeds: Sequence[int] | None = None,
    processor: object = None,
    observed_mask: torch.Tensor | None = None,
) -> Path:
    """Draw each image beside masks of it, masked pixels painted over.

    Args:
        model: A pre-training model with `sample_mask` whose tokens are pixels or patches.
        pixel_values: (B, C, H, W), one row of pictures per image.
        path: PNG, PDF or SVG file to write; its folder is made.
        num_views: Masks per image.
        seeds: Seeds of the draws; None takes 0, 1, ... (and then `num_views` is their number).
        processor: Processor of the images, to undo its standardisation.
        observed_mask: Mask of the shape of the input, 1 = observed; None where nothing is missing.

    Returns:
        The path.

    Raises:
        ValueError: A model without `sample_mask`, or no view.
    """
    seeds = range(num_views) if seeds is None else seeds
    count, _, height, width = pixel_values.shape
    masks = sample_masks(model, {"pixel_values": pixel_values, "observed_mask": observed_mask}, seeds)
    masks = _over_values(model, masks, (height, width))
    values = undo_standardization(pixel_values.float().cpu().numpy(), processor)
    is_spectrogram = isinstance(processor, SpectrogramFeatureExtractor)
    cell_width = 1.9 * min(max(width / height, 1.0), 2.0)
    cell_height = cell_width * min(height / width, 2.0)
    figure = new_figure((1 + len(seeds)) * cell_width, 0.25 + count * (cell_height + 0.05))
    grid = figure.subplots(count, 1 + len(seeds), squeeze=False)
    for row in range(count):
        pixels = to_rgb(values[row], *display_range(values[row]), is_spectrogram)
        shown = [pixels, *(hide_pixels(pixels, mask[row]) for mask in masks)]
        for column, picture in enumerate(shown):
            axes = grid[row][column]
            axes.imshow(picture, origin="lower" if is_spectrogram else "upper", interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title("input" if column == 0 else f"mask {column}", fontsize=9)
    return save_figure(figure, path)


# ---- series -------------------------------------------------------------------------------------------------------


def draw_series_masks(
    model: PreTrainedModel,
    input_values: torch.Tensor,
    path: str | Path,
    num_views: int = 2,
    seeds: Sequence[int] | None = None,
    processor: object = None,
    observed_mask: torch.Tensor | None = None,
) -> Path:
    """Draw each series once per mask, masked time steps shaded.

    Args:
        model: A pre-training model with `sample_mask` whose tokens are time steps or runs of them.
        input_values: Inputs in the form that the model takes, one row of panels per series.
        path, num_views, seeds, processor, observed_mask: Arguments of `draw_image_masks`.

    Returns:
        The path.

    Raises:
        ValueError: A model without `sample_mask`, or no view.
    """
    seeds = range(num_views) if seeds is None else seeds
    masks = sample_masks(model, {"input_values": input_values, "observed_mask": observed_mask}, seeds)
    values = undo_standardization(channels_first(model, input_values).float().cpu().numpy(), processor)
    if observed_mask is not None:  # gaps in the curves
        values = np.where(channels_first(model, observed_mask).bool().cpu().numpy(), values, np.nan)
    count, channels, length = values.shape
    masks = _over_values(model, masks, (length,))
    figure = new_figure(4.2 * len(seeds), 0.4 + 1.25 * count)
    grid = figure.subplots(count, len(seeds), squeeze=False, sharex=True, sharey="row")
    for row in range(count):
        for column, mask in enumerate(masks):
            axes = grid[row][column]
            shade_spans(axes, mask[row])
            for channel in range(min(channels, MAX_CURVE_CHANNELS)):
                axes.plot(values[row, channel], color=INPUT_COLOR, lw=1.0, alpha=1 / (1 + 0.5 * channel))
            axes.set_xlim(-0.5, length - 0.5)
            style_small(axes)
            if row == 0:
                axes.set_title(f"mask {column + 1}", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("time step", fontsize=8)
    return save_figure(figure, path)


# ---- text ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A character, or a token that is none, and the places of its tokens in the sequence."""

    text: str
    places: tuple[int, ...]

    @property
    def width(self) -> int:
        """Number of the grid's columns that it takes."""
        return sum(_columns(character) for character in self.text)

    def glyphs(self) -> list[str]:
        """Characters, each with the accents that follow it."""
        found: list[str] = []
        for character in self.text:
            if _columns(character) == 0 and found:
                found[-1] += character
            else:
                found.append(character)
        return found


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def text_cells(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase | None) -> list[Cell]:
    """Cut a sequence into the pieces that a reader sees as one.

    Tokens that only together make a character, such as the bytes of one, share a cell; a token of several characters
    takes a cell as wide as its text. Special tokens are spelt out, and tokens that never become text are marked so.

    Args:
        ids: Token ids without padding.
        tokenizer: Tokenizer of the ids; None writes the ids themselves.
    """
    if tokenizer is None:
        return [Cell(f"{int(token)} ", (place,)) for place, token in enumerate(ids)]
    tokens = [int(token) for token in ids]
    special = set(tokenizer.all_special_ids)
    cells: list[Cell] = []
    place = 0
    while place < len(tokens):
        if tokens[place] in special:
            cells.append(Cell(str(tokenizer.convert_ids_to_tokens(tokens[place])), (place,)))
            place += 1
            continue
        for end in range(place + 1, min(place + LONGEST_CHARACTER, len(tokens)) + 1):
            text = tokenizer.decode(tokens[place:end], clean_up_tokenization_spaces=False)
            if text and UNREADABLE not in text:
                break
        else:
            end, text = place + 1, UNREADABLE
        text, places = "".join(visible(character) for character in text), tuple(range(place, end))
        if cells and all(unicodedata.combining(character) for character in text):  # accents of the last character
            text, places = unicodedata.normalize("NFC", cells[-1].text + text), cells[-1].places + places
            cells.pop()
        cells.append(Cell(text, places))
        place = end
    return cells


def draw_text_masks(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    tokenizer: PreTrainedTokenizerBase | None,
    path: str | Path,
    num_views: int = 2,
    attention_mask: torch.Tensor | None = None,
    seeds: Sequence[int] | None = None,
) -> Path:
    """Draw texts, molecules or proteins on a grid of characters, the masked ones shaded, once per mask.

    In a character of several bytes only the masked bytes' part is shaded.

    Args:
        model: A pre-training model with `sample_mask` whose tokens are ids.
        input_ids: (B, N).
        tokenizer: Tokenizer that made the ids, or None.
        path: PNG, PDF or SVG file to write; its folder is made.
        num_views: Masks per text.
        attention_mask: (B, N), 1 = real; padding is not drawn.
        seeds: Seeds of the draws, one per view, as in `draw_image_masks`.

    Returns:
        The path.

    Raises:
        ValueError: A model without `sample_mask`, or no view.
    """
    seeds = range(num_views) if seeds is None else seeds
    given = {"input_ids": input_ids, "attention_mask": attention_mask}
    masks = sample_masks(model, given, seeds)
    is_real = np.ones(input_ids.shape, bool) if attention_mask is None else attention_mask.cpu().numpy().astype(bool)
    # Blocks of lines: one per sample and view.
    texts = []
    for sample, ids in enumerate(input_ids.cpu().numpy()):
        cells = text_cells(ids[is_real[sample]][:MAX_TOKENS], tokenizer)
        texts.append((_lines(cells), masks[:, sample, is_real[sample]]))
    figure = _draw_grid(texts)
    longest = int(is_real.sum(1).max())
    title = f"the first {MAX_TOKENS} of up to {longest} tokens" if longest > MAX_TOKENS else None
    handles = [Patch(color=HIDDEN_PIXEL, label="masked")]
    figure.legend(handles=handles, loc="outside upper left", fontsize=8, frameon=False, title=title)
    return save_figure(figure, path)


def _draw_grid(texts: Sequence[tuple[list[list[Cell]], np.ndarray]]) -> Figure:
    """Every text, as lines of cells, once for each of its masks (views, N)."""
    total = sum(len(views) * (len(lines) + 0.2) + 0.8 for lines, views in texts)
    width = max(40, *(sum(cell.width for cell in line) for lines, _ in texts for line in lines))
    figure = new_figure((MARGIN_CELLS + width + 1) * CELL_INCHES, 0.4 + LINE_INCHES * total)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-MARGIN_CELLS, width + 1)
    axes.set_ylim(total, 0)
    top = 0.4
    for number, (lines, views) in enumerate(texts):
        axes.text(-MARGIN_CELLS + 0.2, top + 0.5, str(number + 1), va="center", fontsize=8, weight="bold")
        for view, mask in enumerate(views):
            axes.text(-0.8, top + 0.5, f"mask {view + 1}", ha="right", va="center", fontsize=7, color="#777777")
            for line in lines:
                _draw_line(axes, line, mask, top)
                top += 1
            top += 0.2
        top += 0.8
    return figure


def _lines(cells: Sequence[Cell]) -> list[list[Cell]]:
    lines: list[list[Cell]] = [[]]
    room = LINE_CELLS
    for cell in cells:
        if cell.width > room and lines[-1]:
            lines.append([])
            room = LINE_CELLS
        lines[-1].append(cell)
        room -= cell.width
    return lines


def _draw_line(axes: Axes, line: Sequence[Cell], mask: np.ndarray, top: float) -> None:
    left = 0
    for cell in line:
        part = cell.width / len(cell.places)
        for number, place in enumerate(cell.places):
            if mask[place]:
                axes.add_patch(
                    Rectangle((left + number * part, top + 0.04), part, 0.92, facecolor=HIDDEN_PIXEL, edgecolor="none")
                )
        for glyph in cell.glyphs():
            _put_glyph(axes, left, top, glyph)
            left += _columns(glyph[0])


def _put_glyph(axes: Axes, left: float, top: float, glyph: str) -> None:
    """Centre a character on its cell; one that the font lacks is written as its number."""
    middle = left + _columns(glyph[0]) / 2
    if glyph.isspace():
        return
    if all(_has_glyph(character) for character in glyph):
        axes.text(middle, top + 0.5, glyph, ha="center", va="center", fontproperties=FONT, parse_math=False)
        return
    digits = f"{ord(glyph[0]):04X}"
    for half, place in ((digits[:-2], 0.28), (digits[-2:], 0.72)):
        axes.text(middle, top + place, half, ha="center", va="center", fontsize=3.8, family="monospace")


@cache
def _has_glyph(character: str) -> bool:
    return get_font(findfont(FONT)).get_char_index(ord(character)) != 0


# ---- tables -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ColumnMasks:
    """The frequencies with which a model masks a table's columns.

    Attributes:
        frequency: (N,) share of all masks that hide the column.
        together: (N, N), share of all masks that hide both columns; the diagonal is `frequency`.
    """

    frequency: np.ndarray
    together: np.ndarray

    @property
    def correlation(self) -> np.ndarray:
        """(N, N) correlation of one column's mask with another's; NaN for columns that are always or never masked."""
        both_by_chance = np.outer(self.frequency, self.frequency)
        deviation = np.sqrt(self.frequency * (1 - self.frequency))
        deviation[deviation == 0] = np.nan
        return (self.together - both_by_chance) / np.outer(deviation, deviation)


def count_column_masks(
    model: PreTrainedModel, rows: torch.Tensor, num_draws: int = 100, observed_mask: torch.Tensor | None = None
) -> ColumnMasks:
    """Count over `num_draws` masks of every row.

    Args:
        model: A pre-training model with `sample_mask` whose tokens are columns.
        rows: (B, N, 1) or (B, 1, N), as the model takes them.
        num_draws: Masks per row, from seeds 0, 1, ...
        observed_mask: Mask of the shape of `rows`, 1 = observed; None where nothing is missing. What is missing is not masked.

    Raises:
        ValueError: A model without `sample_mask`, or no draw.
    """
    masks = sample_masks(model, {"input_values": rows, "observed_mask": observed_mask}, range(num_draws))
    num_columns = channels_first(model, rows).shape[2]
    masks = _over_values(model, masks, (num_columns,)).reshape(-1, num_columns).astype(np.float64)
    return ColumnMasks(masks.mean(0), masks.T @ masks / len(masks))


def draw_column_masks(
    model: PreTrainedModel,
    rows: torch.Tensor,
    column_names: Sequence[str] | None,
    path: str | Path,
    num_draws: int = 100,
    observed_mask: torch.Tensor | None = None,
) -> Path:
    """Draw how often each column of a table is masked, and with which others.

    Args:
        model: A pre-training model with `sample_mask` whose tokens are columns.
        rows: (B, N, 1) or (B, 1, N), as the model takes them; some hundred rows make a steady picture.
        column_names: Names of the N columns; None numbers them.
        path: PNG, PDF or SVG file to write; its folder is made.
        num_draws: Masks per row.
        observed_mask: Mask of the shape of `rows`, 1 = observed; None where nothing is missing.

    Returns:
        The path.

    Raises:
        ValueError: A model without `sample_mask`, no draw, or another number of names than columns.
    """
    num_columns = channels_first(model, rows).shape[2]
    names = [str(number) for number in range(num_columns)] if column_names is None else list(column_names)
    if len(names) != num_columns:
        raise ValueError(f"column_names: expected {num_columns} names, got {len(names)}")
    counts = count_column_masks(model, rows, num_draws, observed_mask)
    side = max(3.2, 0.19 * num_columns)
    figure = new_figure(2.4 + 0.09 * max(map(len, names)) * 2 + side + 0.9, side + 1.1)
    bars, matrix = figure.subplots(1, 2, width_ratios=[2.0, side])
    _draw_frequency(bars, counts.frequency, names)
    _draw_together(figure, matrix, counts, names)
    figure.suptitle(f"{num_draws} masks of each of {len(rows)} rows", fontsize=9)
    return save_figure(figure, path)


def _draw_frequency(axes: Axes, frequency: np.ndarray, names: Sequence[str]) -> None:
    places = np.arange(len(names))
    axes.barh(places, frequency, color=HIDDEN_PIXEL, height=0.8)
    # The share that masking at random would give every column.
    axes.axvline(frequency.mean(), color=INPUT_COLOR, lw=1.0, ls="--")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(places, names, fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("share of masks that hide it\n(dashed: mean)", fontsize=8)
    axes.set_title("how often", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_together(figure: Figure, axes: Axes, counts: ColumnMasks, names: Sequence[str]) -> None:
    """Correlations, because raw shares of two columns masked together mostly show how often each is masked."""
    shown = counts.correlation
    np.fill_diagonal(shown, np.nan)
    known = np.abs(shown[np.isfinite(shown)])
    limit = max(0.2, float(known.max()) if known.size else 0.0)
    axes.set_facecolor("#e4e4e4")
    image = axes.imshow(shown, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="equal", interpolation="nearest")
    places = np.arange(len(names))
    axes.set_xticks(places, names, fontsize=7, rotation=90)
    axes.set_yticks(places, names, fontsize=7)
    axes.set_xlabel("grey: itself, or always or never masked", fontsize=8)
    axes.set_title("with which others", fontsize=9)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("correlation of their masks (below 0: rather one or the other)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
