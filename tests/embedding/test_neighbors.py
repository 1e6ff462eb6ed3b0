"""Nearest rows, against scikit-learn and by hand; and what they are written as."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from hf_maskssl.commands import neighbors as command
from hf_maskssl.embedding import neighbors
from hf_maskssl.embedding.feature_files import FeatureTable, read_features
from hf_maskssl.embedding.neighbors import nearest_rows
from hf_maskssl.embedding.places import Place
from hf_maskssl.embedding.tables import write_shard


def features(file: Path, /, rows: int = 30, width: int = 5, seed: int = 0, **columns: list[str]) -> FeatureTable:
    values = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    carried = pa.table({"row": range(rows), "split": ["train"] * rows, **columns})
    write_shard(Place(str(file)), carried, values, None, {})
    return read_features(str(file))


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["hf-maskssl neighbors", *map(str, words)])
    command.main()


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
@pytest.mark.parametrize("block", [2**24, 40])
def test_hits_are_those_of_scikit_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measure: neighbors.Measure, block: int
) -> None:
    monkeypatch.setattr(neighbors, "BLOCK_NUMBERS", block)
    table, queries = features(tmp_path / "a.parquet"), features(tmp_path / "b.parquet", rows=7, seed=1)
    found = nearest_rows(queries.values, table.values, 4, measure)
    model = NearestNeighbors(n_neighbors=4, metric=measure, algorithm="brute").fit(table.values)
    distances, indices = model.kneighbors(queries.values)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.similarities, 1 - distances if measure == "cosine" else distances, atol=1e-6)


def test_a_query_is_no_hit_of_its_own(tmp_path: Path) -> None:
    table = features(tmp_path / "a.parquet")
    table = dataclasses.replace(table, values=table.values.copy())
    table.values[7] = table.values[3]  # as near to 3 as 3 itself
    own = np.array([3, 7, 11])
    found = nearest_rows(table.values[own], table.values, 3, own=own)
    assert found.indices[0, 0] == 7 and found.indices[1, 0] == 3
    assert not (found.indices == own[:, None]).any()
    np.testing.assert_array_equal(
        found.indices, nearest_rows(table.values[own], table.values, 4, own=own).indices[:, :3]
    )
    assert nearest_rows(table.values[own], table.values, 29, own=own).indices.shape == (3, 29)


def test_faiss_gives_the_same(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    table = features(tmp_path / "a.parquet")
    for measure in ("cosine", "euclidean"):
        exact, fast = (
            nearest_rows(table.values[:5], table.values, 4, measure, search=way) for way in ("exact", "faiss")
        )
        np.testing.assert_array_equal(exact.indices, fast.indices)
        np.testing.assert_allclose(exact.similarities, fast.similarities, atol=1e-5)


def test_a_missing_faiss_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    table = features(tmp_path / "a.parquet")
    with pytest.raises(ImportError, match="--search faiss needs faiss.*pip install faiss-cpu"):
        nearest_rows(table.values[:1], table.values, 2, search="faiss")


def test_tables_of_hits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"n{row}" for row in range(30)]
    table = features(tmp_path / "f.parquet", name=names)
    words = (tmp_path / "f.parquet", "--query", "n4", "n9", "--id_column", "name", "-k", 2)
    for ending in ("parquet", "csv", "md"):
        run(monkeypatch, *words, "--output", tmp_path / f"hits.{ending}")
    written = pd.read_csv(tmp_path / "hits.csv")
    assert list(written.columns[:4]) == ["query", "rank", "hit", "cosine"] and len(written) == 4
    assert written["query_name"].tolist() == ["n4", "n4", "n9", "n9"]
    assert written["hit_name"].tolist() == [names[hit] for hit in written["hit"]]
    own = np.array([4, 9])
    assert (
        written["hit"].tolist() == nearest_rows(table.values[own], table.values, 2, own=own).indices.flatten().tolist()
    )
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "hits.parquet"), written, check_dtype=False)
    lines = (tmp_path / "hits.md").read_text().splitlines()
    assert len(lines) == 6 and lines[0].startswith("| query | rank | hit | cosine |")
    capsys.readouterr()
    run(monkeypatch, *words)
    printed = capsys.readouterr().out.splitlines()
    assert "hit_name" in printed[0] and max(map(len, printed)) <= 80


def test_all_rows_of_other_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features(tmp_path / "f.parquet")
    features(tmp_path / "q.parquet", rows=3, seed=2)
    run(monkeypatch, tmp_path / "f.parquet", "--queries", tmp_path / "q.parquet", "--output", tmp_path / "h.csv")
    assert pd.read_csv(tmp_path / "h.csv")["query"].tolist() == [0] * 5 + [1] * 5 + [2] * 5


def test_pictures_of_hits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for row in range(8):
        paths.append(str(tmp_path / f"{row}.png"))
        Image.new("L", (9, 7), 30 * row).save(paths[-1])
    features(tmp_path / "f.parquet", rows=8, path=paths, label=["a", "b"] * 4)
    words = [tmp_path / "f.parquet", "--query", 1, 2, "-k", 3, "--title", "label"]
    run(monkeypatch, *words, "--output", tmp_path / "hits.png")
    width, height = Image.open(tmp_path / "hits.png").size
    assert width > height  # four pictures in each of two lines


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--query", "30"], "--query 30: expected a row from 0 to 29"),
        (["--query", "x"], "--query x: expected a row from 0 to 29 .or name --id_column"),
        (["--query", "n4", "--id_column", "name"], "--query n4: no row has it in 'name'"),
        (["--query", "1", "--id_column", "nme"], "--id_column: .* has no column 'nme' .did you mean 'name'"),
        (["--query", "1", "-k", "30"], "-k: expected 1 to 29, the number of rows to search, got 30"),
        (["--query", "1", "--output", "x.txt"], "--output x.txt: expected a name that ends with"),
        (["--query", "1", "--output", "x.png"], "no column 'path', so its rows are no pictures"),
        (["--queries", "q.parquet"], "--queries q.parquet: no such file or folder"),
        (["--queries", "narrow.parquet"], "--queries: expected 5 numbers a row, as FEATURES has, got 4"),
    ],
)
def test_what_cannot_be_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    features(tmp_path / "f.parquet", name=["x"] * 30)
    features(tmp_path / "narrow.parquet", width=4)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(monkeypatch, "f.parquet", *words)
