"""Filled files: every cell that was there keeps its text, in the file's own way of writing."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hf_maskssl.evaluation.imputation_files import HoledFile


def filled(data: pd.DataFrame) -> pd.DataFrame:
    """The holes of the columns: 1.5 in numbers, the first word in words."""
    columns = {}
    for name in data.columns:
        column = data[name]
        value = 1.5 if column.dtype.kind in "if" else column.dropna().iloc[0]
        columns[name] = column.where(column.notna(), value)
    return data.assign(**columns)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'age,ok,word,x\n31,true,"a, b",0.50\n,false,,1e3\n45,,c,\n',
            'age,ok,word,x\n31,true,"a, b",0.50\n1.5,false,"a, b",1e3\n45,true,c,1.5\n',
        ),
        ("age;ok;x\n31;1;0,50\n;0;1,25\n45;;\n", "age;ok;x\n31;1;0,50\n1,5;0;1,25\n45;1,5;1,5\n"),
        ("id\tx\n007\t1\n008\t\n", "id\tx\n007\t1\n008\t1.5\n"),
    ],
    ids=["commas", "semicolons", "tabs"],
)
def test_cells_that_were_there_keep_their_text(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "holed.csv"
    path.write_text(text, encoding="utf-8")
    source = HoledFile.read(path)
    assert source.is_table
    source.write(filled(source.data), tmp_path / "filled.csv")
    assert (tmp_path / "filled.csv").read_text(encoding="utf-8") == expected


RECORDS = [
    '{"age": 31, "ok": true, "word": "é\\n", "x": 0.5, "more": {"kept": [1]}}',
    '{"age": null, "ok": false, "word": null, "x": 1000.0, "more": {"kept": []}}',
    '{"age": 45, "word": "c", "more": {"kept": [2]}}',
]
FILLED = [
    RECORDS[0],
    '{"age": 1.5, "ok": false, "word": "é\\n", "x": 1000.0, "more": {"kept": []}}',
    '{"age": 45, "word": "c", "more": {"kept": [2]}, "ok": true, "x": 1.5}',
]


@pytest.mark.parametrize("name", ["holed.jsonl", "holed.json", "holed.jsonl.gz", "list.json", "list.json.gz"])
def test_records_keep_the_values_that_were_there(name: str, tmp_path: Path) -> None:
    start, between, end = ("[\n", ",\n", "\n]\n") if name.startswith("list") else ("", "\n", "\n")
    pack = gzip.compress if name.endswith(".gz") else bytes
    (tmp_path / name).write_bytes(pack((start + between.join(RECORDS) + end).encode()))
    source = HoledFile.read(tmp_path / name)
    aside = tmp_path / f".{name}.partial"  # as `write_whole` has it
    source.write(filled(source.data), aside)
    written = gzip.decompress(aside.read_bytes()) if name.endswith(".gz") else aside.read_bytes()
    assert written.decode() == start + between.join(FILLED) + end


def test_a_packed_table_stays_packed(tmp_path: Path) -> None:
    path = tmp_path / "holed.csv.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfid;x\n007;0,50\n008;\n"))
    source = HoledFile.read(path)
    source.write(filled(source.data), tmp_path / ".filled.csv.gz.partial")
    written = gzip.decompress((tmp_path / ".filled.csv.gz.partial").read_bytes())
    assert written == b"\xef\xbb\xbfid;x\n007;0,50\n008;1,5\n"


def test_parquet_and_arrays_come_back(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [1.0, np.nan], "word": ["a", None]})
    table.to_parquet(tmp_path / "a.parquet")
    source = HoledFile.read(tmp_path / "a.parquet")
    source.write(filled(source.data), tmp_path / "b.parquet")
    assert pd.read_parquet(tmp_path / "b.parquet").to_dict("list") == {"x": [1.0, 1.5], "word": ["a", "a"]}
    np.save(tmp_path / "a.npy", np.array([[1.0, np.nan]]))
    array = HoledFile.read(tmp_path / "a.npy")
    assert not array.is_table
    array.write(np.nan_to_num(array.data, nan=2.0), tmp_path / "b.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), [[1.0, 2.0]])


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="DATA .*a.xyz: expected a file of a table or of series that ends in .csv"):
        HoledFile.read(tmp_path / "a.xyz")
    (tmp_path / "table.csv").write_text("x\n1\n")
    with pytest.raises(ValueError, match="tabel.csv: no such file.*table.csv"):
        HoledFile.read(tmp_path / "tabel.csv")


def test_the_mark_of_utf_8_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x;größe\n1,5;\n;2\n", encoding="utf-8-sig")
    source = HoledFile.read(path)
    source.write(source.data.fillna(0.25), tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_bytes().decode() == "\ufeffx;größe\n1,5;0,25\n0,25;2\n"
