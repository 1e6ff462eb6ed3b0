"""Nearest rows of features: exact, or by FAISS where it is installed; as a table and, for pictures, as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from ..checks import AT_LEAST_1
from ..data.tables.pictures import read_image
from ..evaluation.reports import markdown_table, significant
from ..files import write_whole
from ..models.image_processing_array import upright
from ..pictures.figures import grid_axes, new_figure, save_figure
from .feature_files import FeatureTable

Measure = Literal["cosine", "euclidean"]
Search = Literal["auto", "exact", "faiss"]
TABLE_ENDINGS = (".parquet", ".csv", ".md")
BLOCK_NUMBERS = 2**24  # similarities held at once
MANY_ROWS = 200_000  # beyond which "auto" takes FAISS, if it is installed
MOST_DRAWN = 12  # queries, and hits of each, in a picture
HIT = "hit"


@dataclass(frozen=True)
class Neighbors:
    """The hits of some queries.

    Attributes:
        indices: (q, k) int64, numbers of rows among those searched; nearest first.
        similarities: (q, k) float32: cosines, or distances, which rise.
        measure: What they are.
    """

    indices: np.ndarray
    similarities: np.ndarray
    measure: Measure


def nearest_rows(
    queries: np.ndarray,
    rows: np.ndarray,
    k: int,
    measure: Measure = "cosine",
    own: np.ndarray | None = None,
    search: Search = "auto",
    device: str = "cpu",
) -> Neighbors:
    """The k rows that are nearest to each query; of equally near ones the first.

    Args:
        queries: (q, D) float32.
        rows: (n, D) float32.
        k: Number of neighbours of each query.
        measure: "cosine" or "euclidean".
        own: (q,) number of the row that each query is itself, which is no hit; -1 for queries that are none.
        search: "exact", by torch; "faiss", its flat index, exact as well and faster over many rows; "auto": FAISS for many
            rows where it is installed.
        device: Device of the exact search.

    Raises:
        ValueError: Other widths, or more neighbours than there are rows.
        ImportError: FAISS was asked for and is not installed.
    """
    others = len(rows) - (0 if own is None or (own < 0).all() else 1)
    if k not in AT_LEAST_1 or k > others:
        raise ValueError(f"-k: expected 1 to {others}, the number of rows to search, got {k}")
    if queries.shape[1] != rows.shape[1]:
        raise ValueError(
            f"--queries: expected {rows.shape[1]} numbers a row, as FEATURES has, got {queries.shape[1]}: embed both by one model"
        )
    wanted = k if own is None else k + 1
    if search == "faiss" or (search == "auto" and len(rows) > MANY_ROWS and _has_faiss()):
        found, values = _by_faiss(queries, rows, wanted, measure)
    else:
        found, values = _exactly(queries, rows, wanted, measure, device)
    if own is not None:
        found, values = _without_own(found, values, own, k)
    return Neighbors(found, values, measure)


def _exactly(
    queries: np.ndarray, rows: np.ndarray, k: int, measure: Measure, device: str
) -> tuple[np.ndarray, np.ndarray]:
    table = torch.tensor(rows, device=device)
    if measure == "cosine":
        table = F.normalize(table, dim=1)
    block = max(1, BLOCK_NUMBERS // max(1, len(rows)))
    found, values = [], []
    for start in range(0, len(queries), block):
        part = torch.tensor(queries[start : start + block], device=device)
        if measure == "cosine":
            scores = F.normalize(part, dim=1) @ table.T
        else:
            # Not by the sum of squares, which loses the digits of near neighbours.
            scores = -torch.cdist(part, table, compute_mode="donot_use_mm_for_euclid_dist")
        best, places = scores.sort(dim=1, descending=True, stable=True)
        found.append(places[:, :k].cpu().numpy())
        values.append(best[:, :k].cpu().numpy() * (1 if measure == "cosine" else -1))
    return np.concatenate(found), np.concatenate(values)


def _by_faiss(queries: np.ndarray, rows: np.ndarray, k: int, measure: Measure) -> tuple[np.ndarray, np.ndarray]:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "--search faiss needs faiss, which cannot be imported: pip install faiss-cpu, or leave --search out"
        ) from error
    queries, rows = (np.array(one, dtype=np.float32, order="C") for one in (queries, rows))
    if measure == "cosine":
        faiss.normalize_L2(queries)
        faiss.normalize_L2(rows)
    index = faiss.IndexFlatIP(rows.shape[1]) if measure == "cosine" else faiss.IndexFlatL2(rows.shape[1])
    index.add(rows)
    values, found = index.search(queries, k)
    return found, values if measure == "cosine" else np.sqrt(np.maximum(values, 0.0))


def _has_faiss() -> bool:
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def _without_own(found: np.ndarray, values: np.ndarray, own: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """k of k + 1 hits: without the query itself, or without the last where it is not among them."""
    is_own = found == own[:, None]
    is_own[~is_own.any(axis=1), -1] = True
    shape = (len(found), k)
    return found[~is_own].reshape(shape), values[~is_own].reshape(shape)


def hits_table(found: Neighbors, queries: FeatureTable, rows: FeatureTable, numbers: Sequence[int]) -> pd.DataFrame:
    """Queries and hits, a row for each pair: `query`, `rank`, `hit`, the similarity, and the columns of both.

    Args:
        found: Hits of the queries.
        queries: The queries, in the order of `found`.
        rows: The rows that were searched.
        numbers: Number of each query in its table.
    """
    count, k = found.indices.shape
    flat = found.indices.reshape(-1)
    left = queries.columns.to_pandas().iloc[np.repeat(np.arange(count), k)].reset_index(drop=True)
    right = rows.columns.to_pandas().iloc[flat].reset_index(drop=True)
    table = pd.DataFrame(
        {
            "query": np.repeat(np.asarray(numbers), k),
            "rank": np.tile(np.arange(1, k + 1), count),
            HIT: flat,
            found.measure: found.similarities.reshape(-1),
        }
    )
    sides = [left.add_prefix("query_"), right.add_prefix("hit_")]
    return pd.concat([table, *sides], axis=1)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, CSV or Markdown, by its ending.

    Raises:
        ValueError: Another ending.
    """
    if path.suffix == ".parquet":
        write_whole(path, lambda aside: table.to_parquet(aside, index=False))
    elif path.suffix == ".csv":
        write_whole(path, lambda aside: table.to_csv(aside, index=False))
    elif path.suffix == ".md":
        text = markdown_table([_cells(row) for row in table.itertuples(index=False)], list(table.columns))
        write_whole(path, lambda aside: aside.write_text(text + "\n", encoding="utf-8"))
    else:
        raise ValueError(f"--output {path}: expected a name that ends with {', '.join(TABLE_ENDINGS)}")


def _cells(row: Sequence[Any]) -> list[Any]:
    plain = [value.item() if isinstance(value, np.generic) else value for value in row]
    # Three digits, which tables of scores have, do not tell similarities apart.
    return [
        significant(value, 4) if isinstance(value, float) else value if isinstance(value, int) else str(value)
        for value in plain
    ]


def draw_hits(
    found: Neighbors, queries: FeatureTable, rows: FeatureTable, path: Path, title: str | None = None
) -> Path:
    """Draw the pictures of queries and, beside each, of its hits.

    Args:
        found: Hits of the queries.
        queries: The queries, with the paths of their pictures.
        rows: The rows that were searched, with paths, too.
        path: PNG file to write.
        title: Column whose value stands above each picture; None means the similarity alone.

    Raises:
        ValueError: Rows that are no pictures, or pictures that cannot be read.
    """
    shown, hits = queries.pictures(), rows.pictures()
    if shown is None or hits is None:
        raise ValueError("FEATURES has no column 'path', so its rows are no pictures of files: write a table instead")
    count, k = min(len(found.indices), MOST_DRAWN), min(found.indices.shape[1], MOST_DRAWN)
    figure = new_figure(1.25 * (k + 1) + 0.3, 1.45 * count + 0.3)
    axes = grid_axes(figure, count, k + 1, count * (k + 1))
    titles = [None, None] if title is None else [one.column(title, "--title") for one in (queries, rows)]
    for query in range(count):
        line = axes[query * (k + 1) : (query + 1) * (k + 1)]
        _draw(line[0], shown[query], "query" if titles[0] is None else f"query: {titles[0][query]}")
        line[0].patch.set_edgecolor("black")
        for place in range(k):
            hit = int(found.indices[query, place])
            words = "" if titles[1] is None else f"{titles[1][hit]}  "
            _draw(line[place + 1], hits[hit], f"{words}{found.similarities[query, place]:.3f}")
    return save_figure(figure, path)


def _draw(axes: Any, path: str, title: str) -> None:
    picture = read_image(path)
    axes.imshow(np.asarray(upright(picture)), cmap="gray")  # type: ignore[arg-type]  # a path gives a PIL image
    axes.set_title(title, fontsize=7, pad=2)
    axes.set_axis_off()
