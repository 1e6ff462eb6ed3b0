"""Tables in which a column's type changes below the rows by which datasets tells it."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_maskssl.data import data_arguments
from hf_maskssl.data.tables.column_types import types_of_csv
from hf_maskssl.data.tables.splits import load_splits

FIRST = 10_000  # rows by which datasets tells types


@pytest.mark.parametrize(
    ("first", "later", "dtype", "values"),
    [
        ("1", "2.5", "float64", [1.0, 2.5]),
        ("1", "a few", "string", ["1", "a few"]),
        ("", "a word", "string", [None, "a word"]),
        ("True", "maybe", "string", ["True", "maybe"]),
        ("2.5", "NA", "float64", [2.5, None]),
    ],
)
def test_a_column_has_the_type_of_all_its_rows(
    first: str, later: str, dtype: str, values: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n,c\n" + f"1,{first}\n" * FIRST + f"2,{later}\n" * 3)
    rows = load_splits(data_arguments("csv", data_files=str(path), input_column="n"))["train"]
    assert rows.features["c"].dtype.removeprefix("large_") == dtype
    assert [rows[0]["c"], rows[FIRST]["c"]] == values and rows[FIRST]["n"] == 2


def test_files_of_other_columns_have_no_common_types(tmp_path: Path) -> None:
    for name, text in (("1", "a,b\n1,2\n"), ("2", "a,c\n1.5,x\n"), ("3", "a,b\n1.5,\n")):
        (tmp_path / name).write_text(text)
    first, other, third = (str(tmp_path / name) for name in "123")
    assert types_of_csv([first, other], {}) is None
    found = types_of_csv([first, third], {"sep": ",", "data_dir": None})
    assert found is not None and {name: kind.dtype for name, kind in found.items()} == {"a": "float64", "b": "float64"}


@pytest.mark.parametrize(
    ("later", "column", "values"),
    [({"a": 2.5}, "a", [1.0, 2.5]), ({"a": 2, "b": "x"}, "b", [None, "x"]), ({"a": 2, "c": 3}, "c", [None, 3])],
)
def test_json_lines_have_the_types_of_all_rows(
    later: dict[str, Any], column: str, values: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    first = json.dumps({"a": 1, "b": None, "pad": "x" * 1_000_000})
    path.write_text("\n".join([first] * 11 + [json.dumps({"b": None, "pad": "", **later})] * 2))
    rows = load_splits(data_arguments("json", data_files=str(path), input_column="a"))["train"]
    assert [rows[0][column], rows[-1][column]] == values


def test_parquet_files_have_the_types_of_all(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{name}.parquet") for name in "123"]
    for file, columns in zip(files, ({"a": [1]}, {"a": [2.5]}, {"b": [1]}), strict=True):
        pq.write_table(pa.table(columns), file)
    rows = load_splits(data_arguments("parquet", data_files=files[:2], input_column="a"))["train"]
    assert list(rows["a"]) == [1.0, 2.5]
    with pytest.raises(ValueError, match="Give all rows and files the same columns, or name the files that have"):
        load_splits(data_arguments("parquet", data_files=files[1:], input_column="a"))
