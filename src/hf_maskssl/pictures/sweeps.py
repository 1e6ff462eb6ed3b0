"""Plots of a sweep: a score over the values of one axis, bars for settings that are no numbers, scores over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from ..evaluation.statistics import Interval
from .figures import CURVE_COLORS, grouped_bars, new_figure, save_figure

# A larger ratio of the largest to the smallest value, all above 0, is drawn on a logarithmic axis.
LINEAR_RATIO = 20
MANY_LABELS = 4  # from this number on the labels of bars are tilted


@dataclass(frozen=True)
class Series:
    """The scores of one recipe, or of one column of a paper's table, at each setting; None where there is none."""

    name: str
    scores: Sequence[Interval | None]


@dataclass(frozen=True)
class Course:
    """Scores over the seconds of training."""

    name: str
    seconds: Sequence[float]
    scores: Sequence[Interval]


def draw_series(
    panels: Mapping[str, Sequence[Series]],
    labels: Sequence[str],
    path: str | Path,
    title: str,
    numbers: Sequence[float] | None = None,
    axis: str = "",
) -> Path:
    """Draw the settings of a sweep, a panel for each group of series.

    Args:
        panels: Title of a panel -> its series, whose scores are those of the settings, in order.
        labels: Words for each setting.
        path: PNG, PDF or SVG file to write.
        title: Title of the figure; may be empty.
        numbers: The settings as numbers, which makes lines; None makes bars.
        axis: Words under the axis of the settings.

    Returns:
        The path.
    """
    figure = new_figure(5.0 * len(panels), 3.6)
    if title:
        figure.suptitle(title, fontsize=11)
    for axes, (name, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        if numbers is None:
            grouped_bars(axes, labels, {one.name: one.scores for one in series})
            _start_near_scores(axes, series)
            if len(labels) >= MANY_LABELS:
                for label in axes.get_xticklabels():
                    label.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")
        else:
            _draw_lines(axes, series, numbers, labels)
        axes.set_xlabel(axis, fontsize=9)
        axes.set_title(name, fontsize=9, wrap=True)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25, axis="y" if numbers is None else "both")
        if len(series) > 1:  # bars leave no room for it
            beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if numbers is None else {}
            axes.legend(fontsize=8, frameon=False, **beside)
    return save_figure(figure, path)


def _draw_lines(axes: Axes, series: Sequence[Series], numbers: Sequence[float], labels: Sequence[str]) -> None:
    for number, one in enumerate(series):
        points = sorted(
            (place, score["mean"], score["half_width"] or 0.0)
            for place, score in zip(numbers, one.scores, strict=True)
            if score is not None and score["mean"] is not None
        )
        if points:
            places, means, errors = zip(*points, strict=True)
            color = CURVE_COLORS[number % len(CURVE_COLORS)]
            axes.errorbar(places, means, yerr=errors, fmt="-o", ms=4, lw=1.6, capsize=3, color=color, label=one.name)
    if min(numbers) > 0 and max(numbers) / min(numbers) > LINEAR_RATIO:
        axes.set_xscale("log")
    axes.set_xticks(numbers, labels, minor=False)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)


def _start_near_scores(axes: Axes, series: Sequence[Series]) -> None:
    """Let bars begin somewhat below the lowest score, where all lie far from 0; the axis shows where."""
    ends = [
        (score["mean"] - (score["half_width"] or 0.0), score["mean"] + (score["half_width"] or 0.0))
        for one in series
        for score in one.scores
        if score is not None and score["mean"] is not None
    ]
    if ends:
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        if low > 0.5 * high > 0:
            axes.set_ylim(bottom=max(0.0, low - 0.3 * (high - low) - 0.02 * high))


def draw_courses(courses: Sequence[Course], label: str, path: str | Path, title: str) -> Path:
    """Draw scores over the seconds of training, a line with its band of 95 % for each setting.

    Args:
        courses: The settings.
        label: Words for the scores.
        path: PNG, PDF or SVG file to write.
        title: Title of the figure; may be empty.

    Returns:
        The path.
    """
    figure = new_figure(6.5, 4.0)
    axes = figure.subplots()
    for number, course in enumerate(courses):
        color = CURVE_COLORS[number % len(CURVE_COLORS)]
        means = [score["mean"] or 0.0 for score in course.scores]
        widths = [score["half_width"] or 0.0 for score in course.scores]
        axes.plot(course.seconds, means, "-o", ms=3, lw=1.6, color=color, label=course.name)
        low, high = ([mean + sign * width for mean, width in zip(means, widths, strict=True)] for sign in (-1, 1))
        axes.fill_between(course.seconds, low, high, color=color, alpha=0.2, lw=0)
    axes.set_xlabel("seconds of training", fontsize=9)
    axes.set_ylabel(label, fontsize=9)
    axes.set_title(title, fontsize=10, wrap=True)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return save_figure(figure, path)
