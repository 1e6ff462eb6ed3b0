"""Colours, figures, panels and files that all pictures share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..evaluation.statistics import Interval
from ..files import write_whole

# Okabe and Ito's palette, which colour-blind readers can distinguish too.
CURVE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8AD1C", "#8A8A8A")
INPUT_COLOR, PREDICTION_COLOR = "#3d3d3d", "#D55E00"
DPI = 130


def new_figure(width: float, height: float) -> Figure:
    """A figure outside matplotlib's global state, so that threads and notebooks are not disturbed."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def grid_axes(figure: Figure, rows: int, columns: int, count: int) -> list[Axes]:
    """`count` axes of a grid; the rest of the grid stays empty."""
    grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes in grid[count:]:
        axes.set_axis_off()
    return grid[:count]


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a PNG, PDF or SVG file whole; its folder is made."""
    path = Path(path)
    # Without the library's version and the date in its metadata the same picture is the same file.
    empty = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    ending = path.suffix.lower()
    write_whole(path, lambda aside: figure.savefig(aside, format=ending[1:], metadata=empty.get(ending)))
    return path


def style_small(axes: Axes) -> None:
    """Reduce ticks and frame to fit a small panel."""
    axes.tick_params(labelsize=7)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.spines[["top", "right"]].set_visible(False)


def grouped_bars(axes: Axes, labels: Sequence[str], bars: Mapping[str, Sequence[Interval | None]]) -> None:
    """Draw a group of bars for each label, one bar for each title, with intervals; a missing cell leaves a gap."""
    width = 0.8 / len(bars)
    for number, (title, cells) in enumerate(bars.items()):
        places = [place + (number - (len(bars) - 1) / 2) * width for place in range(len(labels))]
        means = [float("nan") if cell is None or cell["mean"] is None else cell["mean"] for cell in cells]
        errors = [float("nan") if cell is None else cell["half_width"] or float("nan") for cell in cells]
        axes.bar(places, means, width, yerr=errors, label=title, capsize=2)
    axes.set_xticks(range(len(labels)), labels)
    axes.spines[["top", "right"]].set_visible(False)
