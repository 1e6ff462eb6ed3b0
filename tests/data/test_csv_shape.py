"""CSV files as people write them: other delimiters, decimal commas, no line of names."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hf_maskssl.data import data_arguments
from hf_maskssl.data.looking import first_look, source_values, usual_label
from hf_maskssl.data.tables.columns import numeric_columns
from hf_maskssl.data.tables.csv_shape import CsvShape, shape_of_csv
from hf_maskssl.data.tables.sources import read_split

ROWS = [("0.5", "-1.25", "a"), ("3", "4.5", "b, or c"), ("7.125", "8", "d")]


def write(
    path: Path, delimiter: str = ",", decimal: str = ".", names: tuple[str, ...] | None = ("x", "y z", "w")
) -> Path:
    quote = '"' if delimiter == "," else ""
    lines = [
        delimiter.join((one.replace(".", decimal), two.replace(".", decimal), quote + word + quote))
        for one, two, word in ROWS
    ]
    path.write_text("\n".join([*([delimiter.join(names)] if names else []), *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "delimiter", "decimal", "fields"),
    [
        ("a.csv", ",", ".", {}),
        ("a.csv", ";", ",", {"delimiter": ";", "decimal": ","}),
        ("a.csv", ";", ".", {"delimiter": ";"}),
        ("a.tsv", "\t", ".", {"delimiter": "\t"}),
        ("a.csv", "|", ",", {"delimiter": "|", "decimal": ","}),
    ],
)
def test_each_way_of_writing_gives_the_same_rows(
    name: str, delimiter: str, decimal: str, fields: dict[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path / name, delimiter, decimal)
    values = source_values(str(path))
    assert values == {"source": "csv", "data_files": str(path), **fields}
    rows = first_look(values)
    assert [list(row.values()) for row in rows] == [[float(one), float(two), word] for one, two, word in ROWS]


def test_a_folder_and_a_compressed_file_are_looked_into(tmp_path: Path) -> None:
    text = write(tmp_path / "plain.csv", ";", ",").read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.csv").write_bytes(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + text))
    for data in ("folder", "a.csv.gz"):
        found = source_values(str(tmp_path / data))
        assert (found["delimiter"], found["decimal"]) == (";", ",")
        assert first_look(found)[0]["x"] == 0.5


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_recipe_with_the_wrong_delimiter_is_told_the_right_one(delimiter: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", delimiter, ",")
    section: dict[str, Any] = {"source": "csv", "data_files": str(path), "kind": "tabular", "input_column": ["x"]}
    with pytest.raises(ValueError, match="is one name where data.delimiter is") as raised:
        read_split(data_arguments(**section), "train")
    assert json.dumps(delimiter) in str(raised.value)
    rows = read_split(data_arguments(**section, delimiter=delimiter, decimal=","), "train")
    assert rows[0]["x"] == 0.5


def test_a_column_with_a_semicolon_in_its_name_is_one_among_others(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", names=("x;y", "y", "w"))
    assert shape_of_csv(str(path)) == CsvShape(",", ".", ("x;y", "y", "w"))
    assert len(first_look(source_values(str(path))).column_names) == 3


def test_a_file_without_names_is_refused_and_years_are_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", names=None)
    with pytest.raises(ValueError, match="holds numbers and no names of columns: put a line of names in front"):
        source_values(str(path))
    years = write(tmp_path / "years.csv", names=("2001", "2002", "w"))
    assert not shape_of_csv(str(years)).lacks_names


def test_what_is_no_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("größe,y\n1,2\n".encode("latin-1"))
    with pytest.raises(ValueError, match="a.csv.* The file is not UTF-8: save it as UTF-8"):
        source_values(str(path))


def test_a_folder_without_files_to_read_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("x")
    with pytest.raises(ValueError, match="holds none of a table .* or sounds") as raised:
        source_values(str(tmp_path))
    assert len(str(raised.value)) < 300


def test_a_cell_longer_than_the_csv_module_takes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    long = json.dumps(list(range(60_000)))
    path.write_text(f'x;series\n1,5;"{long}"\n2,5;"[1]"\n')
    assert shape_of_csv(str(path)) == CsvShape(";", ",", ("x", "series"))


def test_commas_between_thousands_are_no_decimals(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x;y\n1,250;0.5\n2,500;1.5\n")
    assert shape_of_csv(str(path)).decimal == "."


def test_one_column_that_the_recipe_names_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text; of a report\nall is well\n")
    args = data_arguments(
        source="csv", data_files=str(path), kind="masked_text", tokenizer="t", input_column="text; of a report"
    )
    assert read_split(args, "train").num_rows == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"delimiter": ";;"}, "data.delimiter: expected one character, got ';;'"),
        ({"decimal": ""}, "data.decimal: expected one character, got ''"),
        ({"delimiter": ",", "decimal": ","}, "data.delimiter and data.decimal are both ','"),
        ({"source": "parquet", "delimiter": ";"}, "data.delimiter is ';' with data.source 'parquet'.*only for csv"),
    ],
)
def test_characters_that_cut_no_file_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data_arguments(**{"source": "csv", "data_files": "a", "kind": "tabular", "input_column": ["x"], **fields})


@pytest.mark.parametrize(("cells", "decimal"), [("12.30;21,5", ","), ("1.5;1,250", "."), ("a;1,250", ",")])
def test_points_elsewhere_do_not_hide_decimal_commas(cells: str, decimal: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"x;y\n{cells}\n")
    assert shape_of_csv(str(path)).decimal == decimal


@pytest.mark.parametrize("cell", ["[[]]", "[", "[] []"])
def test_brackets_that_are_no_empty_list_are_named(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'n,s\n0,"[1, 2]"\n1,"{cell}"\n')
    args = data_arguments(source="csv", data_files=str(path), kind="series", input_column="s")
    with pytest.raises(ValueError, match=r"row 1, column 's': expected a JSON list of numbers"):
        read_split(args, "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n,a,y\n1,0.5,u,\n2,1.5,v,\n", "has 3 names, 'n, a, y', but row 0 has 4 cells, the last of which is empty"),
        ("# made by a logger\na,b\n1,2\n", "has 1 name.* but row 0 has 2 cells: .*delete what stands in front"),
        ("y,text\n1,hello, world\n0,hello\n", "has 2 names, .* has 3 cells: .*quotes around cells"),
        ("text\nhello, world\nbye, world\n", "has 1 name, 'text', but row 0 has 2 cells"),
    ],
    ids=["delimiters at the end", "a line in front", "an unquoted comma", "one column of texts"],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_rows_with_more_cells_than_names_are_refused(text: str, message: str, streaming: bool, tmp_path: Path) -> None:
    """pandas would take the first cells for names of rows, and every other cell for that of the column before."""
    (tmp_path / "a.csv").write_text(text)
    args = data_arguments(
        source="csv", data_files=str(tmp_path / "a.csv"), kind="tabular", input_column=["a", "b"], streaming=streaming
    )
    with pytest.raises(ValueError, match=rf"a\.csv: the first line {message}"):
        read_split(args, "train")


def test_names_of_rows_are_said_to_be_no_feature(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.csv").write_text('"a","b"\n"1",0.5,2.5\n"2",1.5,3.5\n')  # as R writes them
    rows = first_look(source_values(str(tmp_path / "a.csv")))
    assert (rows[0]["a"], rows[1]["b"]) == (0.5, 3.5)
    assert "one cell more than there are names: the first is taken for the row's own name" in caplog.text


def test_columns_of_one_name_are_told_and_refused_where_a_recipe_names_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.csv").write_text("a,a,y,b.1\n1,2,u,3\n")
    section: dict[str, Any] = {"source": "csv", "data_files": str(tmp_path / "a.csv"), "kind": "tabular"}
    assert list(read_split(data_arguments(**section, label_column="y"), "train").column_names or ()) == [
        "a",
        "a.1",
        "y",
        "b.1",
    ]
    assert "several columns have the same name and are told apart by numbers: 'a' (then 'a.1')" in caplog.text
    with pytest.raises(ValueError, match="several columns are named 'a': give each a name of its own"):
        read_split(data_arguments(**section, label_column="a"), "train")


def test_sixteen_bits_a_letter_are_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("x,y\n1,2\n".encode("utf-16-le"))
    with pytest.raises(ValueError, match="as in UTF-16.* save it as UTF-8"):
        source_values(str(tmp_path / "a.csv"))


def test_empty_lines_in_front_hide_no_delimiter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\r\n\r\nx;y\r\n1;2\r\n")
    assert shape_of_csv(str(tmp_path / "a.csv")).delimiter == ";"


def test_a_label_behind_a_blank_is_a_label(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a, label\n1, u\n2, v\n")
    assert usual_label(first_look(source_values(str(tmp_path / "a.csv")))) == " label"


def test_a_column_without_name_and_value_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,\n1,\n2,\n")
    features, left_out = numeric_columns(first_look(source_values(str(tmp_path / "a.csv"))), {})
    assert features == ["a"] and left_out == {"Unnamed: 1": "it has no name and no value"}


def test_whole_numbers_of_more_than_64_bits_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"a\n{2**70}\n1\n")
    with pytest.raises(ValueError, match="A whole number has more than 64 bits: write"):
        first_look(source_values(str(tmp_path / "a.csv")))
