"""CSV files in which a column's type changes below the rows by which datasets tells it."""

from pathlib import Path
from typing import Any

import pytest

from hf_maskssl.data import data_arguments
from hf_maskssl.data.tables.csv_types import types_of_csv
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
