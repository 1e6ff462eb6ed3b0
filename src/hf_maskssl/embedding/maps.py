"""Maps of features: two numbers for every row, drawn as points that a column colours."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex

from ..evaluation.features import draw_indices
from ..extras import missing_extra
from ..pictures.figures import CURVE_COLORS, new_figure, save_figure
from .feature_files import FeatureTable

Method = Literal["pca", "umap"]
MOST_POINTS = 50_000
MOST_CLASSES = 20  # colours that can be told apart; the rarest classes share one
OTHERS, MISSING = "others", "no value"
OTHERS_COLOR = "#b8b8b8"
SCALE = "viridis"


@dataclass(frozen=True)
class Coloring:
    """The colours of points.

    Attributes:
        title: Name of the column.
        colors: (n,) colour of each point, as #rrggbb.
        classes: Class -> its colour, the most frequent first; None where the column is a scale of numbers.
        low, high: Ends of the scale; None where there are classes.
    """

    title: str
    colors: list[str]
    classes: dict[str, str] | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class FeatureMap:
    """A map.

    Attributes:
        points: (n, 2) float32.
        axes: Names of the two axes.
        table: The rows of the points.
        rows: Number of rows that the points were drawn from.
    """

    points: np.ndarray
    axes: tuple[str, str]
    table: FeatureTable
    rows: int


def map_features(table: FeatureTable, method: Method = "pca", seed: int = 0, most: int = MOST_POINTS) -> FeatureMap:
    """Two numbers for every row; of more than `most` rows a draw.

    Args:
        table: Features.
        method: "pca": the two directions along which the features vary most; "umap": UMAP with its defaults, cosine.
        seed: Seed of the draw and of UMAP.
        most: Largest number of points.

    Raises:
        ValueError: Fewer than three rows.
        ImportError: A package is missing; the error says which extra brings it.
    """
    if len(table) < 3:
        raise ValueError(f"FEATURES {table.name}: a map needs at least 3 rows, got {len(table)}")
    chosen = table if len(table) <= most else table.select(draw_indices(len(table), most, seed))
    if method == "pca":
        points, axes = _pca(chosen.values)
    else:
        points, axes = _umap(chosen.values, seed), ("UMAP 1", "UMAP 2")
    return FeatureMap(points.astype(np.float32), axes, chosen, len(table))


def _pca(values: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    try:
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise missing_extra("--method pca", "train", error) from error
    if values.shape[1] < 2:
        return np.column_stack([values[:, 0], np.zeros(len(values))]), ("feature", "")
    model = PCA(n_components=2, random_state=0)
    points = model.fit_transform(np.asarray(values, dtype=np.float64))
    first, second = (f"PC {place} ({share:.0%})" for place, share in enumerate(model.explained_variance_ratio_, 1))
    return points, (first, second)


def _umap(values: np.ndarray, seed: int) -> np.ndarray:
    try:
        import umap
    except ImportError as error:
        raise missing_extra("--method umap", "map", error) from error
    # One job, which a seed asks for anyway, with a warning where nothing is said.
    model = umap.UMAP(n_neighbors=min(15, len(values) - 1), metric="cosine", random_state=seed, n_jobs=1)
    points: np.ndarray = model.fit_transform(values)
    return points


def coloring(table: FeatureTable, column: str | None) -> Coloring:
    """The colours of rows by a column: a colour for each class, or a scale where it holds many different numbers.

    Raises:
        ValueError: No such column.
    """
    if column is None:
        return Coloring("", [CURVE_COLORS[0]] * len(table))
    values = table.column(column, "--color")
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    are_numbers = len(numbers) == sum(value is not None for value in values) and numbers
    is_scale = are_numbers and (any(value != int(value) for value in numbers if math.isfinite(value)))
    if is_scale or (are_numbers and len(set(numbers)) > MOST_CLASSES):
        return _scale(column, values)
    words = [MISSING if value is None else str(value) for value in values]
    counts = Counter(words)
    named = [name for name, _ in counts.most_common(MOST_CLASSES if len(counts) <= MOST_CLASSES else MOST_CLASSES - 1)]
    scheme = "tab10" if len(named) <= 10 else "tab20"
    palette = (
        CURVE_COLORS
        if len(named) <= len(CURVE_COLORS)
        else [to_hex(colormaps[scheme](place)) for place in range(colormaps[scheme].N)]
    )
    classes = dict(zip(_in_order(named), palette, strict=False))
    if len(counts) > len(named):
        classes[f"{OTHERS} ({len(counts) - len(named)})"] = OTHERS_COLOR
    return Coloring(column, [classes.get(word, OTHERS_COLOR) for word in words], classes)


def _in_order(names: Sequence[str]) -> list[str]:
    """Numbers by size, words by the alphabet."""
    if all(name.lstrip("-").isdigit() for name in names):
        return sorted(names, key=int)
    return sorted(names)


def _scale(column: str, values: Sequence[object]) -> Coloring:
    numbers = np.array([np.nan if value is None else float(value) for value in values])  # type: ignore[arg-type]
    is_finite = np.isfinite(numbers)
    low, high = (float(end) for end in np.percentile(numbers[is_finite], [0, 100])) if is_finite.any() else (0.0, 1.0)
    norm, scale = Normalize(low, high), colormaps[SCALE]
    colors = [
        to_hex(scale(norm(number))) if finite else OTHERS_COLOR
        for number, finite in zip(numbers.tolist(), is_finite.tolist(), strict=True)
    ]
    return Coloring(column, colors, None, low, high)


def draw_map(found: FeatureMap, colors: Coloring, path: str | Path) -> Path:
    """Draw a map as PNG, PDF or SVG: points, and a legend of classes or a bar of numbers."""
    figure = new_figure(7.2 if colors.title else 5.6, 5.2)
    axes = figure.subplots()
    size = float(np.clip(14_000 / len(found.points), 1.5, 24))
    # Drawn in an order of chance: classes that come late in the data would else lie above all others.
    order = np.random.default_rng(0).permutation(len(found.points))
    axes.scatter(
        found.points[order, 0],
        found.points[order, 1],
        c=[colors.colors[row] for row in order],
        s=size,
        linewidths=0,
        alpha=0.8,
    )
    axes.set_xlabel(found.axes[0])
    axes.set_ylabel(found.axes[1])
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(_title(found), fontsize=10)
    if colors.classes is not None:
        handles = [axes.scatter([], [], color=color, s=26) for color in colors.classes.values()]
        names = [name if len(name) <= 24 else f"{name[:23]}…" for name in colors.classes]
        # Beside the points, as wide as it has to be.
        figure.legend(handles, names, title=colors.title, loc="outside right upper", fontsize=8, frameon=False)
    elif colors.low is not None:
        bar = ScalarMappable(Normalize(colors.low, colors.high), colormaps[SCALE])
        figure.colorbar(bar, ax=axes, label=colors.title)
    return save_figure(figure, path)


def _title(found: FeatureMap) -> str:
    count = f"{len(found.points):,} rows"
    return count if found.rows == len(found.points) else f"{count}, drawn from {found.rows:,}"
