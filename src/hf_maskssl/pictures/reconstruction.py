"""Pictures of the input, its hidden part and the reconstruction, for every modality."""

import inspect
import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.tables.labels import IGNORED_LABEL
from ..methods.optional_fields import takes_channels_last, target_moments, word_tasks
from ..models.feature_extraction_series import SeriesFeatureExtractor
from ..models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from ..models.layers import patchify, unpatchify
from ..models.pretraining import pretraining_hooks
from ..models.table_values import Category
from .figures import INPUT_COLOR, PREDICTION_COLOR, grid_axes, new_figure, save_figure, style_small

RIGHT_COLOR, WRONG_COLOR = "#9fdcc4", "#f6b89a"
SHADE_COLOR = "#dbe4f2"
HIDDEN_PIXEL = (0.66, 0.72, 0.83)  # blue-grey: neither a grey level nor a colour of the heat map
LINE_SYMBOLS = {"\n": "↵", "\r": "↵", "\t": "→"}
BLANK = "␣"
MAX_CURVE_CHANNELS = 4
MAX_TOKENS_SHOWN = 120
TOKEN_LINE_WIDTH = 84
TEXT_FIGURE_WIDTH = 10.0


@dataclass
class Reconstruction:
    """One batch, its mask and its reconstruction, on the CPU, ready to be drawn.

    Attributes:
        values: (B, C, T) series or (B, C, H, W) image, standardisation undone; None for tokens alone. Missing values of a series
            are NaN.
        filled: `values` with the predictions in place of masked patches; visible patches are the input's own.
        is_hidden: (B, T) or (B, H, W) bool, True where a patch was masked.
        is_real: (B, T) or (B, H, W) bool, False on padding.
        ids: (B, N) int64 token ids, or None.
        predicted_ids: (B, N) int64, the likeliest id of every token.
        is_hidden_token: (B, N) bool.
        is_real_token: (B, N) bool.
    """

    values: np.ndarray | None = None
    filled: np.ndarray | None = None
    is_hidden: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    is_real: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    ids: np.ndarray | None = None
    predicted_ids: np.ndarray | None = None
    is_hidden_token: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    is_real_token: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))


def draw_reconstruction(
    model: PreTrainedModel,
    batch: Mapping[str, torch.Tensor],
    path: str | Path | None,
    processor: object = None,
    noise: torch.Tensor | None = None,
    max_samples: int = 8,
) -> Path | None:
    """Draw inputs, their masks and the reconstruction.

    Images and spectrograms: three rows of pictures. Series: curves with masked spans shaded. Tabular rows (one
    channel, patches of one): points with masked columns shaded. Tokens: three lines of text with masked tokens boxed
    and coloured by whether the likeliest token is right. Vision and language: pictures above, text below. Predictions
    are shown at masked places only.

    The model's weights, mode, buffers and the global random state stay as they were. The same weights, batch and draws
    give the same file, byte for byte.

    Args:
        model: A pre-training model whose output has `mask` with `patch_predictions` or `predictions`, and / or
            `token_logits` or `logits`.
        batch: Batch of its collator; only labels that mark masked words are read, other labels and row numbers are not.
        path: PNG, PDF or SVG file to write; its folder is made. None writes nothing: in a run of several processes the
            losses are gathered, so every process must call this, and one of them gives a path.
        processor: Processor of the batch, for units, feature names and words: a feature extractor, an image
            processor, a tokenizer, or for vision and language an object or mapping with `image_processor` and
            `tokenizer`. None draws standardised values and bare ids.
        noise: (B, N) masking draws; None takes draws from seed 0.
        max_samples: Largest number of samples to draw, the first ones.

    Returns:
        The path.

    Raises:
        ValueError: The model's output has no predictions, or the batch no samples.
    """
    picture = reconstruct(model, batch, processor, noise, max_samples)
    if path is None:
        return None
    if picture.values is None:
        figure = new_figure(TEXT_FIGURE_WIDTH, _text_height(picture, processor))
        _draw_tokens(figure, picture, processor)
    elif picture.values.ndim == 4 and picture.ids is not None:
        picture_height, text_height = _pictures_height(picture), _text_height(picture, processor)
        figure = new_figure(TEXT_FIGURE_WIDTH, picture_height + text_height)
        parts = figure.subfigures(2, 1, height_ratios=[picture_height, text_height])
        assert isinstance(parts, np.ndarray)  # two subfigures
        _draw_pictures(parts[0], picture, processor)
        _draw_tokens(parts[1], picture, processor)
    elif picture.values.ndim == 4:
        width, _ = _cell_size(picture)
        figure = new_figure(max(0.5 + width * len(picture.values), 3.4), _pictures_height(picture))
        _draw_pictures(figure, picture, processor)
    elif is_table(model, processor):
        figure = _draw_columns(picture, processor)
    else:
        figure = _draw_series(picture)
    return save_figure(figure, path)


def reconstruct(
    model: PreTrainedModel,
    batch: Mapping[str, torch.Tensor],
    processor: object = None,
    noise: torch.Tensor | None = None,
    max_samples: int = 8,
) -> Reconstruction:
    """Run the model on a batch's first samples and lay its predictions over the input; see `draw_reconstruction`."""
    if word_tasks(model.config):
        return _reconstruct_words(model, batch, max_samples)
    inputs = _model_inputs(model, batch, max_samples)
    if noise is not None:
        inputs["noise"] = noise[:max_samples].to(model.device)
    with undisturbed(model, seed=0):
        predictions, logits, is_masked = _predict(model, inputs)
    attention_mask = inputs.get("attention_mask")
    result = Reconstruction()
    num_patches = 0
    if predictions is not None:
        num_patches = predictions.shape[1]
        signal = channels_first(model, inputs["input_values"]) if "input_values" in inputs else inputs["pixel_values"]
        is_real_patch = attention_mask if logits is None else None
        _add_patches(result, model, signal, predictions, is_masked[:, :num_patches], is_real_patch, processor)
        if "observed_mask" in inputs and signal.dim() == 3:
            _leave_out_missing(result, channels_first(model, inputs["observed_mask"]))
    if logits is not None:
        ids = inputs["input_ids"].cpu()
        result.ids, result.predicted_ids = ids.numpy(), logits.argmax(-1).cpu().numpy()
        result.is_hidden_token = is_masked[:, num_patches:].numpy()
        real = torch.ones_like(ids) if attention_mask is None else attention_mask.cpu()
        result.is_real_token = real.bool().numpy()
    return result


def _reconstruct_words(model: PreTrainedModel, batch: Mapping[str, torch.Tensor], max_samples: int) -> Reconstruction:
    """The reconstruction of a model whose batches come masked, with the original ids as `labels` (-100: not masked)."""
    if "labels" not in batch:
        raise ValueError(f"nothing to draw: `labels` say which words are masked, but the batch holds {list(batch)}")
    inputs = _model_inputs(model, batch, max_samples)
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in inputs}
    with undisturbed(model, seed=0):
        outputs = model(**inputs)
    logits = outputs.get("prediction_logits", outputs.get("logits"))
    labels, given = batch["labels"][:max_samples].cpu(), inputs["input_ids"].cpu()
    is_masked = labels != IGNORED_LABEL
    is_real = inputs.get("attention_mask", torch.ones_like(given)).cpu().bool()
    return Reconstruction(
        ids=torch.where(is_masked, labels, given).numpy(),
        predicted_ids=logits.argmax(-1).cpu().numpy(),
        is_hidden_token=is_masked.numpy(),
        is_real_token=is_real.numpy(),
    )


@contextmanager
def undisturbed(model: PreTrainedModel, seed: int) -> Iterator[None]:
    """Put the model into evaluation mode, without gradients, with draws from `seed`; afterwards restore mode and random state."""
    was_training = model.training
    devices = range(torch.cuda.device_count()) if model.device.type == "cuda" else []
    try:
        model.eval()
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(seed)
            yield
    finally:
        model.train(was_training)


def _predict(
    model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor]:
    """Predictions (B, N, P) in the input's units, logits (B, N, V), and the mask (B, N) bool on the CPU."""
    reason = pretraining_hooks(model).reason_against_reconstruction()
    if reason is not None:
        raise ValueError(reason)
    # A method that predicts masked places only must predict all of them here.
    options = {"predict_all": True} if "predict_all" in inspect.signature(model.forward).parameters else {}
    outputs = model(**inputs, **options)
    predictions = outputs.get("patch_predictions", outputs.get("predictions"))
    logits = outputs.get("token_logits", outputs.get("logits"))
    if (predictions is None and logits is None) or outputs.get("mask") is None:
        raise ValueError(
            f"{type(model).__name__} gives no `mask` with predictions (`patch_predictions` or `predictions`) or logits "
            "(`token_logits` or `logits`): draw a pre-training model"
        )
    if predictions is not None:
        mean, std = target_moments(model.config)
        predictions = predictions * predictions.new_tensor(std) + predictions.new_tensor(mean)
    return predictions, logits, outputs["mask"].bool().cpu()


def channels_first(model: PreTrainedModel, values: torch.Tensor) -> torch.Tensor:
    """A batch of series as (B, C, T), whatever layout the model takes."""
    return values.transpose(1, 2) if takes_channels_last(model.config) else values


def fill_masked_patches(
    values: torch.Tensor, predictions: torch.Tensor, is_masked: torch.Tensor, patch_shape: tuple[int, ...]
) -> torch.Tensor:
    """The input with predictions in place of masked patches.

    Args:
        values: (B, C, T) or (B, C, H, W).
        predictions: (B, N, P), channel fastest.
        is_masked: (B, N) bool.
        patch_shape: (p,) or (h, w).

    Returns:
        Tensor of the shape of `values`.
    """
    patches = patchify(values, patch_shape)
    filled = torch.where(is_masked.unsqueeze(-1), predictions.to(patches), patches)
    return unpatchify(filled, patch_shape, _grid_shape(values, patch_shape), values.shape[1])


def spread_over_patches(flags: torch.Tensor, values: torch.Tensor, patch_shape: tuple[int, ...]) -> torch.Tensor:
    """One flag per patch, (B, N), as one per pixel or time step: (B, H, W) or (B, T)."""
    patches = flags.unsqueeze(-1).expand(-1, -1, math.prod(patch_shape)).contiguous()
    return unpatchify(patches, patch_shape, _grid_shape(values, patch_shape), 1)[:, 0]


def hide_pixels(pixels: np.ndarray, is_hidden: np.ndarray) -> np.ndarray:
    """An RGB picture (H, W, 3) in [0, 1] with the pixels where `is_hidden` (H, W) painted over."""
    return np.where(is_hidden[..., None], np.array(HIDDEN_PIXEL), pixels)


def _grid_shape(values: torch.Tensor, patch_shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size // patch for size, patch in zip(values.shape[2:], patch_shape, strict=True))


def _model_inputs(
    model: PreTrainedModel, batch: Mapping[str, torch.Tensor], max_samples: int
) -> dict[str, torch.Tensor]:
    """The first samples of the inputs that the model's forward takes, without labels, on the model's device."""
    accepted = set(inspect.signature(model.forward).parameters) - {"labels"}
    inputs = {
        name: value[:max_samples].to(model.device)
        for name, value in batch.items()
        if name in accepted and isinstance(value, torch.Tensor)
    }
    if max_samples < 1 or not inputs or any(len(value) == 0 for value in inputs.values()):
        shapes = {name: tuple(value.shape) for name, value in batch.items() if isinstance(value, torch.Tensor)}
        raise ValueError(f"nothing to draw: max_samples is {max_samples}, the batch holds {shapes}")
    return inputs


def _add_patches(
    result: Reconstruction,
    model: PreTrainedModel,
    signal: torch.Tensor,
    predictions: torch.Tensor,
    is_masked: torch.Tensor,
    is_real: torch.Tensor | None,
    processor: object,
) -> None:
    patch_shape = model.config.patch_shape
    signal = signal.float().cpu()
    filled = fill_masked_patches(signal, predictions.float().cpu(), is_masked, patch_shape)
    result.values = undo_standardization(signal.numpy(), processor)
    result.filled = undo_standardization(filled.numpy(), processor)
    result.is_hidden = spread_over_patches(is_masked, signal, patch_shape).numpy()
    real = torch.ones_like(is_masked) if is_real is None else is_real.bool().cpu()
    result.is_real = spread_over_patches(real, signal, patch_shape).numpy()


def _leave_out_missing(result: Reconstruction, observed: torch.Tensor) -> None:
    """Draw nothing where the data have nothing, (B, C, T)."""
    is_observed = observed.bool().cpu().numpy()
    assert result.values is not None and result.filled is not None
    result.values = np.where(is_observed, result.values, np.nan)
    result.filled = np.where(is_observed, result.filled, np.nan)


@runtime_checkable
class Standardizing(Protocol):
    """A processor of numbers, which may subtract a mean and divide by a standard deviation."""

    standardize: str
    scale: float
    mean: list[float] | None
    std: list[float] | None


@runtime_checkable
class Pair(Protocol):
    """A processor of images with a text."""

    image_processor: object
    tokenizer: object


def undo_standardization(values: np.ndarray, processor: object) -> np.ndarray:
    """Values in the data's own units, where the processor can restore them (with `standardize: sample` it cannot).

    Those of a table with categories stay standardised: incomes and classes have no common axis.
    """
    processor = image_part(processor)
    if not isinstance(processor, Standardizing) or _categories(processor) is not None:
        return values
    if processor.standardize == "dataset" and processor.mean is not None and processor.std is not None:
        shape = [1] * values.ndim
        shape[-1 if _is_by_feature(processor) else 1] = -1
        values = values * np.reshape(processor.std, shape) + np.reshape(processor.mean, shape)
    if isinstance(processor, SeriesFeatureExtractor) and processor.reads_cells:
        return processor.unscaled_values(values)
    if values.ndim == 3 and processor.standardize != "sample":
        values = values / processor.scale
    return values


def _is_by_feature(processor: object) -> bool:
    return isinstance(processor, SeriesFeatureExtractor) and processor.statistics_axis == "feature"


def is_table(model: PreTrainedModel, processor: object) -> bool:
    """Whether series are tabular rows: one channel, every value by itself, and no processor of time series."""
    is_single = model.config.num_channels == 1 and math.prod(model.config.patch_shape) == 1
    return is_single and (_is_by_feature(processor) or not isinstance(processor, SeriesFeatureExtractor))


def image_part(processor: object) -> object:
    """The processor of the images: `image_processor` of a pair (object or mapping), else the processor itself."""
    if isinstance(processor, Mapping):
        return processor.get("image_processor")
    return processor.image_processor if isinstance(processor, Pair) else processor


def _tokenizer_part(processor: object) -> PreTrainedTokenizerBase | None:
    if isinstance(processor, Mapping):
        processor = processor.get("tokenizer")
    found = processor.tokenizer if isinstance(processor, Pair) else processor
    return found if isinstance(found, PreTrainedTokenizerBase) else None


# Images


def _cell_size(picture: Reconstruction) -> tuple[float, float]:
    """Width and height in inches of one small picture."""
    assert picture.values is not None
    height, width = picture.values.shape[2:]
    cell_width = 1.35 * min(max(width / height, 1.0), 2.0)
    return cell_width, cell_width * min(height / width, 2.0)


def _pictures_height(picture: Reconstruction) -> float:
    return 0.35 + 3 * (_cell_size(picture)[1] + 0.08)


def _draw_pictures(figure: Figure | SubFigure, picture: Reconstruction, processor: object) -> None:
    """Three rows: input, masked input, reconstruction; one column per sample."""
    assert picture.values is not None and picture.filled is not None
    is_spectrogram = isinstance(processor, SpectrogramFeatureExtractor)
    count = len(picture.values)
    grid = figure.subplots(3, count, squeeze=False)
    for column in range(count):
        low, high = display_range(picture.values[column])
        shown = [to_rgb(values[column], low, high, is_spectrogram) for values in (picture.values, picture.filled)]
        masked = hide_pixels(shown[0], picture.is_hidden[column])
        for row, pixels in enumerate([shown[0], masked, shown[1]]):
            axes = grid[row][column]
            axes.imshow(pixels, origin="lower" if is_spectrogram else "upper", interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        if picture.ids is not None:  # the text below has the same numbers
            grid[0][column].set_title(f"{column + 1}", fontsize=9, weight="bold")
    for row, label in enumerate(["input", "masked", "reconstruction"]):
        grid[row][0].set_ylabel(label, fontsize=10)
    channels = picture.values.shape[1]
    if channels == 2 or channels > 3:
        note = "mean of 2 channels" if channels == 2 else f"first 3 of {channels} channels as red, green, blue"
        figure.suptitle(note, fontsize=9)
    elif is_spectrogram:
        figure.suptitle("log-mel spectrogram: time to the right, frequency upwards", fontsize=9)


def display_range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C, 1, 1) lowest and highest value to show: one range for an ordinary picture, else one for each channel."""
    if values.shape[0] <= 3:
        low, high = np.full((1, 1, 1), values.min()), np.full((1, 1, 1), values.max())
    else:
        low, high = (np.percentile(values, part, axis=(1, 2), keepdims=True) for part in (1, 99))
    return low, np.maximum(high, low + 1e-6)


def to_rgb(values: np.ndarray, low: np.ndarray, high: np.ndarray, as_heat: bool) -> np.ndarray:
    """(C, H, W) -> (H, W, 3) in [0, 1], on the input's scale, so that a reconstruction keeps its errors of level."""
    scaled = np.clip((values - low) / (high - low), 0.0, 1.0)
    if values.shape[0] >= 3:
        return np.moveaxis(scaled[:3], 0, -1)
    grey = scaled.mean(0)
    if as_heat:
        return colormaps["magma"](grey)[..., :3]
    return np.repeat(grey[..., None], 3, axis=-1)


# Series and tabular rows


def _draw_series(picture: Reconstruction) -> Figure:
    """One row per sample, one panel per channel (the first few): curves with masked spans shaded."""
    assert picture.values is not None and picture.filled is not None
    samples, channels, _ = picture.values.shape
    shown = min(channels, MAX_CURVE_CHANNELS)
    figure = new_figure(max(2.9 * shown, 7.5), 0.7 + 1.25 * samples)
    grid = figure.subplots(samples, shown, squeeze=False, sharex=True)
    for sample in range(samples):
        length = int(picture.is_real[sample].sum())
        is_hidden = picture.is_hidden[sample, :length]
        for channel in range(shown):
            axes = grid[sample][channel]
            values = picture.values[sample, channel, :length]
            shade_spans(axes, is_hidden)
            axes.plot(values, color=INPUT_COLOR, lw=1.1)
            _plot_hidden(axes, picture.filled[sample, channel, :length], is_hidden)
            axes.set_xlim(-0.5, picture.values.shape[-1] - 0.5)
            style_small(axes)
        grid[sample][0].set_ylabel(f"sample {sample + 1}", fontsize=8)
    for channel in range(shown):
        grid[0][channel].set_title(f"channel {channel + 1}", fontsize=9)
        grid[-1][channel].set_xlabel("time step", fontsize=8)
    if channels > shown:
        grid[0][-1].set_title(f"channel {shown} (of {channels})", fontsize=9)
    figure.align_ylabels(grid[:, 0])
    handles = [
        Line2D([], [], color=INPUT_COLOR, lw=1.4, label="input"),
        Line2D([], [], color=PREDICTION_COLOR, lw=1.6, label="reconstruction of masked steps"),
        Patch(color=SHADE_COLOR, label="masked"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return figure


def _plot_hidden(axes: Axes, filled: np.ndarray, is_hidden: np.ndarray) -> None:
    """The prediction on every masked span, drawn from the visible step before it to the one after it."""
    for start, end in _spans(is_hidden):
        first, last = max(start - 1, 0), min(end + 1, len(filled))
        axes.plot(range(first, last), filled[first:last], color=PREDICTION_COLOR, lw=1.4)


def _draw_columns(picture: Reconstruction, processor: object) -> Figure:
    """One panel per sample: features side by side, masked columns shaded."""
    assert picture.values is not None and picture.filled is not None
    samples, _, features = picture.values.shape
    given = processor.feature_names if isinstance(processor, SeriesFeatureExtractor) else None
    names = given or [str(number) for number in range(features)]
    categories = _categories(processor)
    columns = 1 if features > 16 or samples == 1 else 2
    rows = math.ceil(samples / columns)
    figure = new_figure(max(6.5, 0.32 * features) * columns, 0.9 + 1.55 * rows)
    for sample, axes in enumerate(grid_axes(figure, rows, columns, samples)):
        is_hidden, places = picture.is_hidden[sample], np.arange(features)
        truth, guess = picture.values[sample, 0], picture.filled[sample, 0]
        shade_spans(axes, is_hidden)
        if categories is not None:
            truth, guess = _draw_words(axes, truth, np.where(is_hidden, guess, np.nan), categories)
        axes.vlines(places[is_hidden], truth[is_hidden], guess[is_hidden], color=PREDICTION_COLOR, lw=1.0)
        axes.scatter(places, truth, s=18, color=INPUT_COLOR, zorder=3)
        axes.scatter(places[is_hidden], guess[is_hidden], s=26, marker="D", color=PREDICTION_COLOR, zorder=4)
        axes.set_xlim(-0.6, features - 0.4)
        axes.margins(y=0.15)  # whole markers, also the outermost
        is_last = sample >= samples - columns
        style_small(axes)
        axes.set_xticks(places, names if is_last else [""] * features, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_ylabel(f"sample {sample + 1}", fontsize=8)
    handles = [
        Line2D([], [], color=INPUT_COLOR, marker="o", ls="", ms=5, label="input"),
        Line2D([], [], color=PREDICTION_COLOR, marker="D", ls="", ms=5, label="reconstruction of masked columns"),
        Patch(color=SHADE_COLOR, label="masked"),
    ]
    figure.align_ylabels()
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return figure


def _categories(processor: object) -> Sequence[Sequence[Category] | None] | None:
    """The categories of a table's columns; None where it holds numbers alone."""
    return processor.categories if isinstance(processor, SeriesFeatureExtractor) else None


def _draw_words(
    axes: Axes, truth: np.ndarray, guess: np.ndarray, categories: Sequence[Sequence[Category] | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Write the words of categories beside their markers.

    Args:
        axes: Axes of a sample.
        truth: (T,) values, class numbers in columns of categories; NaN where nothing is.
        guess: (T,) predictions of masked columns, NaN elsewhere.
        categories: Categories of each column, None for numbers.

    Returns:
        Both with the heights of markers: those of classes are spread over -1 to 1.
    """
    heights = np.stack([truth, guess]).astype(np.float64)
    for place, known in enumerate(categories):
        if known is None:
            continue
        classes = heights[:, place].copy()
        heights[:, place] = 2 * classes / max(1, len(known) - 1) - 1
        for number, color in ((0, INPUT_COLOR), (1, PREDICTION_COLOR)):
            if np.isnan(classes[number]) or (number == 1 and classes[0] == classes[1]):
                continue
            word = str(known[min(int(classes[number]), len(known) - 1)])
            at, offset = (place, heights[number, place]), (5, -2)
            axes.annotate(word, at, offset, textcoords="offset points", fontsize=6, color=color, clip_on=False)
    return heights[0], heights[1]


def shade_spans(axes: Axes, is_hidden: np.ndarray) -> None:
    for start, end in _spans(is_hidden):
        axes.axvspan(start - 0.5, end - 0.5, color=SHADE_COLOR, lw=0)


def _spans(flags: np.ndarray) -> list[tuple[int, int]]:
    """[start, end) of every run of True in a 1-D array."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


# Tokens


@dataclass
class _TextLine:
    """Tokens that share a line: their places in the sequence, left edges and widths in characters."""

    sample: int
    places: list[int]
    edges: list[int]
    widths: list[int]


def _lay_out(picture: Reconstruction, processor: object) -> tuple[list[_TextLine], dict[int, str]]:
    """Cut every sample's tokens into lines; also the text of every id."""
    assert picture.ids is not None and picture.predicted_ids is not None
    real = picture.is_real_token
    words = _words(np.union1d(picture.ids[real], picture.predicted_ids[real]), processor)
    gap = 0 if all(len(word) == 1 for word in words.values()) else 1
    lines: list[_TextLine] = []
    for sample, (ids, guesses) in enumerate(zip(picture.ids, picture.predicted_ids, strict=True)):
        line = _TextLine(sample, [], [], [])
        lines.append(line)
        edge = 0
        for place in np.flatnonzero(real[sample])[:MAX_TOKENS_SHOWN]:
            guess = words[int(guesses[place])] if picture.is_hidden_token[sample, place] else ""
            width = max(len(words[int(ids[place])]), len(guess)) + gap
            if edge + width > TOKEN_LINE_WIDTH and line.places:
                line, edge = _TextLine(sample, [], [], []), 0
                lines.append(line)
            line.places.append(int(place))
            line.edges.append(edge)
            line.widths.append(width)
            edge += width
    return lines, words


def _words(ids: np.ndarray, processor: object) -> dict[int, str]:
    """Text of every id from the tokenizer, else the number."""
    tokenizer = _tokenizer_part(processor)
    if tokenizer is None:
        return {int(token): str(token) for token in ids}
    return {int(token): _word(int(token), tokenizer) for token in ids}


def _word(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """One token as text: a blank becomes visible, and a token that alone is no text, such as a byte above 127, a question
    mark. An id that the tokenizer lacks, as in a vocabulary that was rounded up, is its number."""
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    text = "".join(visible(character) for character in text) or str(tokenizer.convert_ids_to_tokens(token) or token)
    return BLANK if text == " " else text


def visible(character: str) -> str:
    """A visible sign for characters that have no shape of their own."""
    if character in LINE_SYMBOLS:
        return LINE_SYMBOLS[character]
    return "·" if unicodedata.category(character).startswith("C") else character


def _text_height(picture: Reconstruction, processor: object) -> float:
    lines, _ = _lay_out(picture, processor)
    return 0.75 + 0.62 * len(lines)


def _draw_tokens(figure: Figure | SubFigure, picture: Reconstruction, processor: object) -> None:
    """Per line three rows: input, masked (boxes), reconstruction (boxes green where right, orange where wrong)."""
    assert picture.ids is not None and picture.predicted_ids is not None
    lines, words = _lay_out(picture, processor)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-13, TOKEN_LINE_WIDTH)
    axes.set_ylim(4 * len(lines), -0.5)
    for number, line in enumerate(lines):
        top = 4 * number
        is_first = number == 0 or lines[number - 1].sample != line.sample
        if is_first:
            axes.text(-12.8, top + 0.5, f"{line.sample + 1}", va="center", fontsize=8, weight="bold")
        if is_first and number:
            axes.axhline(top - 0.5, color="#cccccc", lw=0.7)
        for row, label in enumerate(["input", "masked", "reconstruction"]):
            axes.text(-0.8, top + row + 0.5, label, ha="right", va="center", fontsize=7, color="#777777")
        for place, edge, width in zip(line.places, line.edges, line.widths, strict=True):
            truth, guess = int(picture.ids[line.sample, place]), int(picture.predicted_ids[line.sample, place])
            is_hidden = bool(picture.is_hidden_token[line.sample, place])
            verdict = RIGHT_COLOR if guess == truth else WRONG_COLOR
            rows: list[tuple[str, str | None]] = [(words[truth], None)] * 3
            if is_hidden:
                rows[1:] = [("", SHADE_COLOR), (words[guess], verdict)]
            for row, (text, color) in enumerate(rows):
                _put_token(axes, edge, top + row, width, text, color)
    handles = [
        Patch(color=SHADE_COLOR, label="masked"),
        Patch(color=RIGHT_COLOR, label="predicted right"),
        Patch(color=WRONG_COLOR, label="predicted wrong"),
    ]
    longest = int(picture.is_real_token.sum(1).max())
    title = f"first {MAX_TOKENS_SHOWN} of up to {longest} tokens" if longest > MAX_TOKENS_SHOWN else None
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=9, frameon=False, title=title)


def _put_token(axes: Axes, left: float, top: float, width: float, text: str, color: str | None) -> None:
    if color is not None:
        box = Rectangle((left + 0.05, top + 0.05), width - 0.1, 0.9, facecolor=color, edgecolor="#8a93a3", lw=0.4)
        axes.add_patch(box)
    axes.text(
        left + width / 2, top + 0.5, text, ha="center", va="center", fontsize=7.5, family="monospace", parse_math=False
    )
