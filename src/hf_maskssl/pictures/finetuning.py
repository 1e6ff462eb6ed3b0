"""Pictures of a fine-tuned model: what it confuses, how far its values are off, how it learnt, and maps of single rows.

They are drawn from plain arrays, such as the predictions that fine-tuning stores beside its scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ..evaluation.metrics import LOWER_IS_BETTER, known_depth
from ..evaluation.outliers import Outliers
from .figures import CURVE_COLORS, INPUT_COLOR, PREDICTION_COLOR, new_figure, save_figure
from .modalities import NO_CLASS_COLOR, class_color

MAX_CLASSES = 30  # a confusion matrix has at most so many: the most confused ones, and the rest as one
MAX_CLASSES_WITH_NUMBERS = 12
MAX_NAME = 22  # characters of a class name
# Colour and dashes of curves for comparison.
OTHER_STYLES = {"other": ("#b9b9b9", "-"), "baseline": (INPUT_COLOR, ":")}
UNKNOWN_COLOR = (0.82, 0.82, 0.82)
MAX_RANGES = 1000  # rows beyond which the range over the runs is not drawn
MAP_SIZE = 1.45  # inches
DEPTH_COLORS, VALUE_COLORS = "magma", "viridis"  # colour scales of maps
TONES = ("red", "green", "blue")  # colours of the channels of maps of several values
MAX_LEGEND_CLASSES = 24


@dataclass(frozen=True)
class Curve:
    """Scores of one run after each validation.

    Attributes:
        label: Name in the legend; runs that share it form a group with one line.
        points: One mapping a validation: "epoch", the metric, and perhaps "loss".
        chosen_epoch: Epoch whose model is kept, marked by a ring; None marks nothing.
        kind: "run" has a colour of its own; "baseline" is dotted and "other" is grey, both behind the runs.
    """

    label: str
    points: Sequence[Mapping[str, Any]]
    chosen_epoch: float | None = None
    kind: Literal["run", "baseline", "other"] = "run"


@dataclass(frozen=True)
class MapSample:
    """A row of a dense task.

    Attributes:
        title: Name of the row, "row 12".
        inputs: Input name -> picture (H, W, 3) in [0, 1].
        true: (H, W) classes or depth, or (C, H, W) values.
        said: The same, predicted.
        others: Name -> the same, predicted by another run.
    """

    title: str
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    true: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    said: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    others: Mapping[str, np.ndarray] = field(default_factory=dict)


def draw_confusion(
    counts: np.ndarray, class_names: Sequence[str], path: str | Path, title: str = "", num_runs: int = 1
) -> Path:
    """Draw a confusion matrix: of each true class (a row), the share that was predicted as each class (a column).

    Classes that are neither true nor predicted anywhere are left out. Of more than 30 classes, the 29 with the most errors
    are drawn and all others together as one.

    Args:
        counts: (L, L) int, [true, predicted], of all runs together.
        class_names: L names.
        path: PNG, PDF or SVG file to write; its folder is made.
        title: Title of the picture.
        num_runs: Runs that were counted; the number of rows beside a class is that of one run.

    Returns:
        The path.

    Raises:
        ValueError: All counts are 0, or their number differs from that of the names.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape != (len(class_names), len(class_names)) or counts.sum() == 0:
        raise ValueError(
            f"counts: expected a matrix of {len(class_names)} x {len(class_names)} (class_names), not all 0, got shape "
            f"{counts.shape} with the sum {counts.sum()}"
        )
    counts, names = merge_classes(counts, class_names, MAX_CLASSES)
    size, totals = len(names), counts.sum(axis=1)
    shares = np.where(totals[:, None] > 0, counts / np.maximum(totals[:, None], 1), np.nan)
    cell = 0.5 if size <= MAX_CLASSES_WITH_NUMBERS else 0.27
    labels = [_short(name) for name in names]
    margin = 0.085 * max(len(label) for label in labels)
    figure = new_figure(max(cell * size + margin + 1.9, 4.2), max(cell * size + min(margin, 1.6) + 0.9, 3.0))
    axes = figure.subplots()
    colors = colormaps["Blues"].with_extremes(bad="#eeeeee")
    image = axes.imshow(np.ma.masked_invalid(100 * shares), cmap=colors, vmin=0, vmax=100)
    size_of_text = 8 if size <= MAX_CLASSES_WITH_NUMBERS else 7
    is_long = max(len(label) for label in labels) > 2
    axes.set_xticks(range(size), labels, rotation=90 if is_long else 0, fontsize=size_of_text)
    rows = [f"{label} ({total / num_runs:,.0f})" for label, total in zip(labels, totals, strict=True)]
    axes.set_yticks(range(size), rows, fontsize=size_of_text)
    axes.set_xlabel("predicted class", fontsize=9)
    axes.set_ylabel("true class (how many)", fontsize=9)
    axes.set_title(title, fontsize=10)
    if size <= MAX_CLASSES_WITH_NUMBERS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            share = 100 * shares[row, column]
            color = "white" if share > 55 else "black"
            text = "<1" if share < 0.5 else f"{share:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02)
    bar.set_label("of the true class (%)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return save_figure(figure, path)


def merge_classes(counts: np.ndarray, names: Sequence[str], limit: int) -> tuple[np.ndarray, list[str]]:
    """A confusion matrix of at most `limit` classes.

    Args:
        counts: (L, L) int, [true, predicted].
        names: L names.
        limit: Largest number of classes.

    Returns:
        (K, K) counts with the same sum, and K names in their former order; the last stands for all merged classes.
    """
    occurs = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    counts, names = counts[np.ix_(occurs, occurs)], [names[place] for place in occurs.tolist()]
    if len(names) <= limit:
        return counts, names
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    kept = np.sort(np.argsort(-errors, kind="stable")[: limit - 1])
    group = np.full(len(names), len(kept))
    group[kept] = np.arange(len(kept))
    merged = np.zeros((limit, limit), dtype=counts.dtype)
    np.add.at(merged, (group[:, None], group[None, :]), counts)
    return merged, [*(names[place] for place in kept), f"{len(names) - len(kept)} other classes"]


def draw_agreement(
    true: np.ndarray,
    said: np.ndarray,
    path: str | Path,
    title: str = "",
    label: str = "value",
    outliers: Outliers | None = None,
    rows: np.ndarray | None = None,
) -> Path:
    """Draw predicted against true values: a point a row, the mean over the runs, on the line where it is right.

    Args:
        true: (n,) floats.
        said: (runs, n) floats; the range over the runs is a thin line.
        path: PNG, PDF or SVG file to write; its folder is made.
        title: Title of the picture.
        label: Name of the values.
        outliers: Outliers among the rows, in another colour; those in `shown` get their row numbers.
        rows: (n,) int, row numbers of the outliers' labels; None counts from 0.

    Returns:
        The path.

    Raises:
        ValueError: Shapes that do not fit, or no row.
    """
    true, said = np.asarray(true, dtype=np.float64), np.asarray(said, dtype=np.float64)
    if true.ndim != 1 or said.ndim != 2 or said.shape[1:] != true.shape or 0 in said.shape:
        raise ValueError(f"expected true values (n,) and predictions (runs, n), got {true.shape} and {said.shape}")
    mean = said.mean(axis=0)
    figure = new_figure(5.2, 5.4)
    axes = figure.subplots()
    low, high = min(true.min(), said.min()), max(true.max(), said.max())
    margin = 0.04 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.plot(limits, limits, color="#777777", lw=1.0, ls="--", zorder=1)
    if len(said) > 1 and len(true) <= MAX_RANGES:
        axes.vlines(true, said.min(axis=0), said.max(axis=0), color=CURVE_COLORS[5], lw=0.8, zorder=2)
    alpha = float(np.clip(300 / len(true), 0.15, 0.8))
    axes.scatter(true, mean, s=14, color=CURVE_COLORS[0], alpha=alpha, lw=0, zorder=3)
    handles = [
        Line2D([], [], color="#777777", ls="--", lw=1.0, label="predicted = true"),
        Line2D([], [], color=CURVE_COLORS[0], marker="o", ls="", ms=4, label="a row"),
    ]
    if len(said) > 1:
        handles[1].set_label(f"a row, mean of {len(said)} runs")
        if len(true) <= MAX_RANGES:
            handles.append(Line2D([], [], color=CURVE_COLORS[5], lw=1.0, label="range of the runs"))
    if outliers is not None and outliers.count:
        _mark_outliers(axes, true, mean, outliers, np.arange(len(true)) if rows is None else rows)
        handles.append(Line2D([], [], color=PREDICTION_COLOR, marker="o", ls="", ms=5, label="outlier, row number"))
    axes.set_xlabel(f"true {label}", fontsize=9)
    axes.set_ylabel(f"predicted {label}", fontsize=9)
    axes.set_title(title, fontsize=10)
    _style(axes)
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return save_figure(figure, path)


def _mark_outliers(axes: Axes, true: np.ndarray, said: np.ndarray, outliers: Outliers, rows: np.ndarray) -> None:
    """Colour the outliers (n,) of true and predicted values, and write the row numbers of those that are shown."""
    axes.scatter(true[outliers.places], said[outliers.places], s=22, color=PREDICTION_COLOR, zorder=4)
    low, high = axes.get_xlim()
    for place in outliers.shown:
        is_right = true[place] > low + 0.8 * (high - low)  # no room to the right
        axes.annotate(
            str(rows[place]),
            (true[place], said[place]),
            xytext=(-4 if is_right else 4, 3),
            ha="right" if is_right else "left",
            textcoords="offset points",
            fontsize=7,
        )


def draw_validation(curves: Sequence[Curve], metric: str, path: str | Path, title: str = "") -> Path:
    """Draw validation scores, and where they are stored validation losses, over the epochs of several runs.

    Args:
        curves: Runs, at least one with a point.
        metric: Name of the metric in the first panel; in percent unless it is an error.
        path: PNG, PDF or SVG file to write; its folder is made.
        title: Title of the picture.

    Returns:
        The path.

    Raises:
        ValueError: No point.
    """
    curves = [curve for curve in curves if curve.points]
    if not curves:
        raise ValueError("curves: expected at least one run with a validation, got none")
    has_loss = any("loss" in point for curve in curves for point in curve.points)
    figure = new_figure(8.4 if has_loss else 5.2, 3.7)
    panels = figure.subplots(1, 1 + has_loss, squeeze=False)[0]
    names = [metric, "loss"] if has_loss else [metric]
    handles: dict[str, Line2D] = {}
    for axes, name in zip(panels, names, strict=True):
        is_score = name == metric and metric not in LOWER_IS_BETTER
        number_of_run = 0
        for curve in sorted(curves, key=lambda curve: curve.kind == "run"):
            points = [point for point in curve.points if name in point]
            epochs = [point["epoch"] for point in points]
            values = [100 * point[name] if is_score else point[name] for point in points]
            if curve.kind == "run":
                color, style = _run_style(number_of_run)
                number_of_run += 1
            else:
                color, style = OTHER_STYLES[curve.kind]
            marker, width = ("o" if len(points) <= 25 else ""), (1.5 if curve.kind == "run" else 1.0)
            (line,) = axes.plot(
                epochs, values, ls=style, color=color, lw=width, marker=marker, ms=3, label=curve.label
            )
            handles.setdefault(curve.label, line)
            for epoch, value in zip(epochs, values, strict=True):
                if epoch == curve.chosen_epoch:
                    axes.plot(epoch, value, "o", ms=8, mfc="none", mec=color, mew=1.5)
        axes.set_title(f"validation {name.replace('_', ' ')}{' (%)' if is_score else ''}", fontsize=10)
        axes.set_xlabel("epoch", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _style(axes)
    labels_of_runs = [curve.label for curve in curves if curve.kind == "run"]
    lines = sorted(handles.values(), key=lambda line: line.get_label() not in labels_of_runs)
    if any(curve.chosen_epoch is not None for curve in curves):
        lines.append(
            Line2D([], [], color=INPUT_COLOR, marker="o", ls="", ms=7, mfc="none", label="epoch that is kept")
        )
    figure.suptitle(title, fontsize=10)
    figure.legend(handles=lines, loc="outside lower center", ncols=min(5, len(lines)), fontsize=8, frameon=False)
    return save_figure(figure, path)


def draw_class_maps(
    samples: Sequence[MapSample],
    class_names: Sequence[str],
    path: str | Path,
    title: str = "",
    ignore_index: int = 255,
) -> Path:
    """Draw rows of a segmentation: inputs, true classes and predicted ones, with a legend of the classes that occur.

    Args:
        samples: Rows, at least one, whose `true` and `said` are classes (H, W).
        class_names: Names in the order of the classes' numbers.
        path: PNG, PDF or SVG file to write; its folder is made.
        title: Title of the picture.
        ignore_index: Class of unlabelled pixels, which are white.

    Returns:
        The path.

    Raises:
        ValueError: No sample.
    """
    _require_samples(samples)
    drawn = np.zeros(len(class_names), dtype=np.int64)
    for sample in samples:
        for classes in (sample.true, sample.said, *sample.others.values()):
            known = classes[(classes != ignore_index) & (classes >= 0) & (classes < len(class_names))]
            drawn += np.bincount(known.reshape(-1).astype(np.int64), minlength=len(class_names))
    most = np.argsort(-drawn, kind="stable")[:MAX_LEGEND_CLASSES]
    handles = [
        Patch(facecolor=tuple(class_color(int(number))), edgecolor="#888888", label=_short(class_names[int(number)]))
        for number in np.sort(most[drawn[most] > 0])
    ]
    if any((sample.true == ignore_index).any() for sample in samples):
        handles.append(Patch(facecolor=NO_CLASS_COLOR, edgecolor="#888888", label="no class"))
    omitted = int((drawn > 0).sum()) - int((drawn[most] > 0).sum())
    if omitted:
        handles.append(Patch(facecolor="none", edgecolor="none", label=f"and {omitted} more"))
    painted = [
        [_paint_classes(classes, ignore_index) for classes in (sample.true, sample.said, *sample.others.values())]
        for sample in samples
    ]
    figure, _ = _draw_grid(samples, painted, title, legend_lines=-(-len(handles) // 5))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return save_figure(figure, path)


def draw_depth_maps(samples: Sequence[MapSample], path: str | Path, title: str = "", label: str = "depth") -> Path:
    """Draw rows of a depth estimation: inputs, true and predicted depth, all on one colour scale.

    The scale is that of the true depth of all samples; predictions beyond it have the colours of its ends.

    Args:
        samples: Rows, at least one with a known depth; `true` and `said` are depths (H, W), and `true` is 0, negative
            or NaN where the depth is not known, which is grey.
        path: PNG, PDF or SVG file to write; its folder is made.
        title: Title of the picture.
        label: Name of the colour scale.

    Returns:
        The path.

    Raises:
        ValueError: No sample, or no pixel with a known depth.
    """
    _require_samples(samples)
    known = np.concatenate([sample.true[known_depth(sample.true)] for sample in samples])
    if not known.size:
        raise ValueError("samples: expected some pixel whose depth is known (above 0), got none")
    scale = Normalize(float(known.min()), float(known.max()), clip=True)
    colors = colormaps[DEPTH_COLORS]
    painted = []
    for sample in samples:
        is_known = known_depth(sample.true)
        true = colors(scale(np.where(is_known, sample.true, known.min())))[..., :3]
        painted.append(
            [
                np.where(is_known[..., None], true, np.array(UNKNOWN_COLOR)),
                *(colors(scale(depth))[..., :3] for depth in (sample.said, *sample.others.values())),
            ]
        )
    figure, grid = _draw_grid(samples, painted, title, legend_lines=2)
    _add_scale(figure, grid, scale, DEPTH_COLORS, label)
    if any(not known_depth(sample.true).all() for sample in samples):
        handles = [Patch(facecolor=UNKNOWN_COLOR, edgecolor="#888888", label="depth not known")]
        figure.legend(handles=handles, loc="outside lower right", fontsize=8, frameon=False)
    return save_figure(figure, path)


def draw_value_maps(samples: Sequence[MapSample], path: str | Path, title: str = "", label: str = "values") -> Path:
    """Draw rows of a dense regression: inputs, true and predicted values, all on one scale, that of the true values.

    One channel is drawn by a colour scale, two or three as red, green and blue; of more the first three are shown.

    Args:
        samples: Rows, at least one with a known value; `true` and `said` are values (C, H, W), and `true` is NaN where the value
            is not known, which is grey.
        path: PNG, PDF or SVG file to write; its folder is made.
        title: Title of the picture.
        label: Name of the colour scale.

    Returns:
        The path.

    Raises:
        ValueError: No sample, or no known value.
    """
    _require_samples(samples)
    known = np.concatenate([sample.true[np.isfinite(sample.true)] for sample in samples])
    if not known.size:
        raise ValueError("samples: expected some value that is known (not NaN), got none")
    scale = Normalize(float(known.min()), float(known.max()), clip=True)
    painted = []
    for sample in samples:
        is_known = np.isfinite(sample.true).all(axis=0)[..., None]
        true = np.where(is_known, _paint_values(sample.true, scale), np.array(UNKNOWN_COLOR))
        painted.append([true, *(_paint_values(values, scale) for values in (sample.said, *sample.others.values()))])
    figure, grid = _draw_grid(samples, painted, title, legend_lines=2)
    handles: list[Patch] = []
    channels = len(samples[0].true)
    if channels == 1:
        _add_scale(figure, grid, scale, VALUE_COLORS, label)
    else:
        ends = f"{label}: {known.min():.3g} is dark, {known.max():.3g} is bright"
        tones = [Patch(facecolor=tone, edgecolor="#888888", label=f"channel {i}") for i, tone in enumerate(TONES)]
        handles += [Patch(facecolor="none", edgecolor="none", label=ends), *tones[:channels]]
    if any(not np.isfinite(sample.true).all() for sample in samples):
        handles.append(Patch(facecolor=UNKNOWN_COLOR, edgecolor="#888888", label="not known"))
    if channels > 1:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    elif handles:
        figure.legend(handles=handles, loc="outside lower right", fontsize=8, frameon=False)
    return save_figure(figure, path)


def _paint_values(values: np.ndarray, scale: Normalize) -> np.ndarray:
    """(C, H, W) values -> (H, W, 3) colours; what is not known has any."""
    shares = np.asarray(scale(np.nan_to_num(values, nan=float(scale.vmin or 0.0))))
    if len(shares) == 1:
        return colormaps[VALUE_COLORS](shares[0])[..., :3]
    padding = max(0, len(TONES) - len(shares))
    return np.moveaxis(np.pad(shares[: len(TONES)], ((0, padding), (0, 0), (0, 0))), 0, -1)


def _add_scale(figure: Figure, grid: np.ndarray, scale: Normalize, colors: str, label: str) -> None:
    """A colour scale below all panels."""
    mapping = ScalarMappable(scale, colormaps[colors])
    bar = figure.colorbar(mapping, ax=grid, location="bottom", fraction=0.03, pad=0.01, shrink=0.8, extend="both")
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _draw_grid(
    samples: Sequence[MapSample], painted: Sequence[Sequence[np.ndarray]], title: str, legend_lines: int
) -> tuple[Figure, np.ndarray]:
    """A grid with a row for each sample and columns for inputs, truth and prediction."""
    columns = [*samples[0].inputs, "true", "predicted", *samples[0].others]
    height, width = painted[0][0].shape[:2]
    cell_width = MAP_SIZE * min(max(width / height, 1.0), 2.0)
    cell_height = cell_width * min(height / width, 2.0)
    figure = new_figure(
        max(0.35 + cell_width * len(columns), 4.6),
        0.55 + (cell_height + 0.04) * len(samples) + 0.2 * legend_lines,
    )
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    grid = figure.subplots(len(samples), len(columns), squeeze=False)
    for row, (sample, maps) in enumerate(zip(samples, painted, strict=True)):
        for column, pixels in enumerate([*sample.inputs.values(), *maps]):
            axes = grid[row, column]
            axes.imshow(pixels, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color="#cccccc", linewidth=0.5)
            if row == 0:
                axes.set_title(columns[column], fontsize=9)
        grid[row, 0].set_ylabel(sample.title, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure, grid


def _paint_classes(classes: np.ndarray, ignore_index: int) -> np.ndarray:
    pixels = np.empty((*classes.shape, 3))
    for number in np.unique(classes):
        pixels[classes == number] = NO_CLASS_COLOR if number == ignore_index else class_color(int(number))
    return pixels


def _require_samples(samples: Sequence[MapSample]) -> None:
    if not samples:
        raise ValueError("samples: expected at least one row to draw, got none")


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def _run_style(number: int) -> tuple[str, str]:
    """Colour and dashes of the curve of a run."""
    round_of_colors, place = divmod(number, len(CURVE_COLORS))
    return CURVE_COLORS[place], ("-", "--", "-.")[round_of_colors % 3]


def _style(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
