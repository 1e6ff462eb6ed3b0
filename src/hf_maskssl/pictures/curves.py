"""Curves of a run: its losses, scores and weights of tasks over the steps."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..models.configuration_pos_minimax_bert import NEXT_SENTENCE
from .figures import CURVE_COLORS, grid_axes, new_figure, save_figure

SPLIT_COLORS = {"train": CURVE_COLORS[0], "validation": CURVE_COLORS[1]}
MAX_TASK_PANELS = 4
MAX_LEGEND_LINES = 8


def draw_curves(
    history: Sequence[Mapping[str, Any]], path: str | Path, groups: Mapping[str, Sequence[str]] | None = None
) -> Path:
    """Draw a run's numbers over its steps, one panel per group.

    Args:
        history: One mapping per logged step: `step` and any numbers; a key may be absent from some steps. Values other than
            numbers are left out.
        path: PNG, PDF or SVG file to write; its folder is made.
        groups: Panel title -> the keys drawn there. None gives every quantity a panel, with "train/loss" and
            "validation/loss" in one, the scores "probe/linear_accuracy" and "probe/knn_accuracy" in one, and all tasks'
            "train/weight/..." and "validation/weight/..." in one, as are the losses of more than four tasks. Counts of the
            tasks' terms are left out.

    Returns:
        The path.

    Raises:
        ValueError: No step, a row without `step`, or nothing to draw.
    """
    if not history or any("step" not in row for row in history):
        raise ValueError("history: expected at least one row, and `step` in every row")
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in history:
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool):
                curves.setdefault(name, []).append((row["step"], value))
    if groups is None:
        groups = _group_names(list(curves))
    panels = {title: [name for name in names if name in curves] for title, names in groups.items()}
    panels = {title: names for title, names in panels.items() if names}
    if not panels:
        raise ValueError(f"history holds no number to draw; groups: {dict(groups)}, numbers: {sorted(curves)}")
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(4.2 * columns, 3.0 * rows)
    for axes, (title, names) in zip(grid_axes(figure, rows, columns, len(panels)), panels.items(), strict=True):
        _draw_panel(axes, title, {name: curves[name] for name in names})
    return save_figure(figure, path)


def _draw_panel(axes: Axes, title: str, curves: Mapping[str, list[tuple[int, float]]]) -> None:
    labels, styles = _labels(list(curves)), _curve_styles(list(curves))
    for label, (color, style), points in zip(labels, styles, curves.values(), strict=True):
        steps, values = zip(*sorted(points), strict=True)
        marker = "o" if len(steps) <= 25 else ""
        axes.plot(steps, values, style, color=color, marker=marker, ms=3.5, lw=1.6, label=label)
    axes.set_title(title.replace("_", " "), fontsize=10)
    axes.set_xlabel("step", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > MAX_LEGEND_LINES:
        # One line for each quantity, beside the curves: dashes mark the split.
        quantities = [name.rpartition("/")[2] for name in curves]
        handles = dict(zip(reversed(quantities), reversed(axes.get_lines()), strict=True))
        names = list(dict.fromkeys(quantities))
        axes.legend(
            [handles[name] for name in names],
            [name.replace("_", " ") for name in names],
            fontsize=7,
            frameon=False,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
        )
        if any(style == "--" for _, style in styles):
            axes.set_title(f"{title.replace('_', ' ')} (dashed: validation)", fontsize=10)
    elif len(curves) > 1 or labels[0] not in title:
        axes.legend(fontsize=8, frameon=False)


def _group_names(names: list[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    tasks = {name.rpartition("/")[2] for name in names if "/weight/" in name}
    for name in names:
        prefix, _, last = name.rpartition("/")
        if prefix.endswith("/count"):  # counts of the tasks' terms serve averages, not readers
            continue
        is_word_task = last in tasks and last != NEXT_SENTENCE  # next sentence prediction has a loss of another scale
        if is_word_task and len(tasks) > MAX_TASK_PANELS and not prefix.endswith("/weight"):
            last = "task losses"
        if prefix.endswith("/weight"):  # tasks' weights compare with each other, not with losses
            last = "task weights" if last != NEXT_SENTENCE else f"weight of {NEXT_SENTENCE}"
        if prefix == "probe":  # linear_accuracy, knn_accuracy: the metric follows the probe
            last = "probe " + last.split("_", 1)[-1]
        groups.setdefault(last, []).append(name)
    return groups


def _curve_styles(names: Sequence[str]) -> list[tuple[str, str]]:
    """(colour, line style) of the curves of a panel.

    A split has its colour in every panel. Where a split has several curves, a quantity has one colour in all splits, and
    validation is dashed.
    """
    parts = [name.partition("/") for name in names]
    splits, quantities = [split for split, _, _ in parts], list(dict.fromkeys(last for _, _, last in parts))
    are_splits = set(splits) <= set(SPLIT_COLORS)
    if are_splits and len(set(splits)) == len(splits):
        return [(SPLIT_COLORS[split], "-") for split in splits]
    styles = []
    for split, _, quantity in parts:
        number = quantities.index(quantity)
        is_dashed = split == "validation" if are_splits else number >= len(CURVE_COLORS)
        styles.append((CURVE_COLORS[number % len(CURVE_COLORS)], "--" if is_dashed else "-"))
    return styles


def _labels(names: list[str]) -> list[str]:
    """The shortest ending of each key by which they differ: its last part, more parts, or all of it."""
    parts = [name.rpartition("/") for name in names]
    for choice in ([last for _, _, last in parts], [prefix for prefix, _, _ in parts]):
        if len(set(choice)) == len(names):
            return choice
    return names
