"""Files as they are named, linked, cut and stored by others."""

import bz2
import gzip
import json
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_configs import image_config
from datasets import Dataset
from PIL import Image

from hf_maskssl.data import prepare_data
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.looking import first_look, source_values
from hf_maskssl.data.tables.files import as_pattern, is_literal
from hf_maskssl.data.tables.json_tables import look_for_whole_table
from hf_maskssl.data.tables.report import DataReport
from hf_maskssl.data.tables.splits import load_splits, read_splits


def write_pictures(folder: Path, *names: str) -> None:
    """A picture by each name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(path)


def classes_of(folder: Path) -> list[str]:
    """The class of each picture that is read."""
    args = data_arguments("imagefolder", data_dir=str(folder), input_column="image", label_column="label")
    rows = load_splits(args)["train"]
    return [rows.features["label"].int2str(number) for number in rows["label"]]


@pytest.mark.parametrize("name", ["run [v2]", "[a-z]", "what?", "st*r", "a{1}b"])
def test_folders_and_files_are_read_as_they_are_written(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    write_pictures(folder / "pictures", "a/1.png", "b/2.png")
    write_pictures(tmp_path / "other", "a/1.png")
    assert classes_of(folder / "pictures") == ["a", "b"]
    pq.write_table(pa.table({"n": [1, 2]}), folder / f"{name}.parquet")
    named = [str(folder / f"{name}.parquet"), {"train": [str(folder / "*.parquet")]}]
    ways = [{"data_files": files} for files in named]
    for fields in [*ways, {"data_files": f"{name}.parquet", "data_dir": str(folder)}]:
        for streaming in (False, True):
            args = data_arguments("parquet", input_column="n", streaming=streaming, **fields)
            assert [row["n"] for row in load_splits(args)["train"]] == [1, 2]


def test_patterns_stay_patterns(tmp_path: Path) -> None:
    for name in ("a1", "a2", "b1"):
        pq.write_table(pa.table({"n": [int(name[1])]}), tmp_path / f"{name}.parquet")
    args = data_arguments("parquet", data_files=str(tmp_path / "a[12].parquet"), input_column="n")
    assert list(load_splits(args)["train"]["n"]) == [1, 2]
    assert as_pattern("no/such [1]/*.csv") == "no/such [1]/*.csv" and as_pattern("s3://a[1]/b") == "s3://a[1]/b"
    assert is_literal("a[[]1]") and not is_literal("a[1]")


def test_linked_class_folders_are_read(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", "a/1.png", "b/2.png")
    write_pictures(tmp_path / "elsewhere", "3.png", "4.png")
    (tmp_path / "data" / "c").symlink_to(tmp_path / "elsewhere")
    assert classes_of(tmp_path / "data") == ["a", "b", "c", "c"]


def test_links_in_a_circle_are_read_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pictures(tmp_path / "data", "a/1.png", "b/2.png")
    write_pictures(tmp_path / "out", "3.png")
    (tmp_path / "data" / "a" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "twin").symlink_to(tmp_path / "data" / "a")
    for name in ("c", "d"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "out")
    (tmp_path / "out" / "back").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "home").symlink_to(tmp_path / "data")
    assert sorted(classes_of(tmp_path / "data")) == ["a", "b", "c"]
    assert "twin" in caplog.text and f"{tmp_path / 'data' / 'd'} leads to" in caplog.text


def test_linked_splits_are_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train", "test"):
        write_pictures(tmp_path / f"my_{name}", "a/1.png", "b/2.png")
        (tmp_path / "data" / name).symlink_to(tmp_path / f"my_{name}")
    args = data_arguments("imagefolder", data_dir=str(tmp_path / "data"), input_column="image", test_split="test")
    assert {name: len(split) for name, split in load_splits(args).items()} == {"train": 2, "test": 2}


def test_endings_that_are_not_read_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "data" / "a"
    folder.mkdir(parents=True)
    for row in range(3):
        (folder / f"{row}.HEIC").write_bytes(b"....ftypheic")
    args = data_arguments("imagefolder", data_dir=str(tmp_path / "data"), input_column="image")
    with pytest.raises(ValueError, match=r"no file that can be read: the folder holds 3 of \.heic"):
        load_splits(args)
    write_pictures(folder, "1.png")
    (folder / "metadata.csv").write_text("file_name,caption\n1.png,x\n")
    report = DataReport()
    assert len(read_splits(args, report)["train"]) == 1
    assert report.files_left_out == {".heic": 3} and "are left out: 3 of .heic" in caplog.text


TABLES_IN_A_FOLDER: dict[str, Callable[[Path], None]] = {
    "csv": lambda path: pd.DataFrame({"n": [1, 2]}).to_csv(path, index=False),
    "parquet": lambda path: pd.DataFrame({"n": [1, 2]}).to_parquet(path),
    "json": lambda path: pd.DataFrame({"n": [1, 2]}).to_json(path, orient="records", lines=True),
}


@pytest.mark.parametrize("source", TABLES_IN_A_FOLDER)
@pytest.mark.parametrize("streaming", [False, True])
def test_what_a_folder_has_beside_tables_is_told(
    source: str, streaming: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train", "test", "extra"):
        TABLES_IN_A_FOLDER[source](folder / f"{name} [1].{source}")
    for name in ("train notes.txt", "codebook.xlsx"):
        (folder / name).write_text("no table")
    report = DataReport()
    args = data_arguments(source, data_dir=str(folder), input_column="n", test_split="test", streaming=streaming)
    splits = read_splits(args, report)
    assert {name: [row["n"] for row in rows] for name, rows in splits.items()} == {"train": [1, 2], "test": [1, 2]}
    assert report.files_left_out == {".txt": 1, "(in no split)": 1, ".xlsx": 1}
    assert "files become splits where a part of their names" in caplog.text


def test_tables_of_unusual_endings_and_texts_of_any_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.dat").write_text("n\n1\n")
    (folder / "b.md").write_text("n\n1\n")
    for source in ("csv", "text"):
        report = DataReport()
        args = data_arguments(source, data_dir=str(folder), input_column="text")
        assert len(read_splits(args, report)["train"]) == (4 if source == "text" else 2) and not report.files_left_out


def test_folders_of_sequences_and_arrays_have_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sequences, arrays = tmp_path / "sequences", tmp_path / "arrays"
    sequences.mkdir()
    arrays.mkdir()
    for name in ("train", "test", "extra"):
        (sequences / f"{name}.fasta").write_text(">a\nACD\n")
    found = source_values(str(sequences))
    files = {name: [str(sequences / f"{name}.fasta")] for name in ("train", "test")}
    assert found == {"source": "fasta", "data_files": files, "test_split": "test"}
    assert "1 of (in no split)" in caplog.text
    for name in ("x", "x_test"):
        np.save(arrays / f"{name}.npy", np.zeros(3))
    assert source_values(str(arrays))["data_files"] == [str(arrays / "x.npy"), str(arrays / "x_test.npy")]


def test_what_a_folder_has_beside_pictures_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_pictures(folder, "a/1.png", "a/2.png", "b/3.png", ".ipynb_checkpoints/4.png")
    (folder / "a" / "5.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "c").mkdir()
    report = DataReport()
    args = data_arguments("imagefolder", data_dir=str(folder), input_column="image")
    assert len(read_splits(args, report)["train"]) == 3
    assert report.files_left_out == {"(empty folder)": 1, "(broken link)": 1}


@pytest.mark.parametrize("name", ["train/1.png", "test tubes/1.png", "dogs/dev-1.png"])
def test_pictures_beside_those_of_splits_are_told(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pictures(tmp_path / "data", name, "cats/2.png", "cats/latest3.png")
    split = {"t": "train", "d": "validation"}[name[0]] if "tubes" not in name else "test"
    report = DataReport()
    args = data_arguments("imagefolder", data_dir=str(tmp_path / "data"), input_column="image", train_split=split)
    assert len(read_splits(args, report)["train"]) == 1
    assert report.files_left_out == {"(in no split)": 2}
    assert (
        "are left out: 2 of (in no split); in a folder, files become splits where a part of their names" in caplog.text
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train", "test"],
            "label is missing in 2 of 2 rows: .* Or classes were read as splits: in a folder, files become",
        ),
        (["train", "cats"], "no column 'label'.*; in a folder, files become splits where"),
        (
            ["test", "val"],
            r"Unknown split \"train\"\. .* Name one of these in the recipe; in a folder, files become splits",
        ),
    ],
)
def test_classes_that_are_named_like_splits_are_told(names: list[str], message: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", *(f"{name}/{row}.png" for name in names for row in range(2)))
    fields = {"data_dir": str(tmp_path / "data"), "input_column": "image", "label_column": "label", "kind": "image"}
    with pytest.raises(ValueError, match=message):
        prepare_data(data_arguments("imagefolder", **fields), image_config(3, 8, 8))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_pictures_that_no_metadata_names_are_told(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "data"
    write_pictures(folder, "a/1.png", "a/2.png", "b/3.png")
    table = pd.DataFrame({"file_name": ["a/1.png", "b/3.png"], "caption": ["x", "y"]})
    path = folder / f"metadata.{ending}"
    write = {"csv": table.to_csv, "parquet": table.to_parquet}.get(ending)
    write(path) if write else table.to_json(path, orient="records", lines=True)  # type: ignore[operator]
    report = DataReport()
    args = data_arguments("imagefolder", data_dir=str(folder), input_column="image")
    assert len(read_splits(args, report)["train"]) == 2
    assert report.files_left_out == {"(not in metadata)": 1}


def test_a_folder_without_labels_says_when_it_has_them(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", "a/1.png", "b/2.png", "3.png")
    args = data_arguments(
        "imagefolder", data_dir=str(tmp_path / "data"), input_column="image", label_column="label", kind="image"
    )
    with pytest.raises(
        ValueError, match="no column 'label'.*each file lies in the folder of its class.* no file lies higher"
    ):
        prepare_data(args, image_config(3, 8, 8))


def test_a_name_that_reads_as_an_address_is_told(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", "a/1::2.png")
    args = data_arguments("imagefolder", data_dir=str(tmp_path / "data"), input_column="image")
    with pytest.raises(
        ValueError, match=r"'::' in the name '.*1::2\.png' is read as the end of an address: rename it"
    ):
        read_splits(args)


TABLE = pd.DataFrame({"a": [1.5, 2.5, 3.5], "b": [1, 2, 3]})
NAMED = TABLE.set_axis(["x", "y", "z"])
WHOLE_TABLES: dict[str, tuple[Any, str]] = {
    "columns": (TABLE.to_dict(), r"an object for each of \['a', 'b'\] .*'columns'\)"),
    "columns, one": (TABLE[["a"]].to_dict(), r"an object for each of \['a'\] .*'columns'\)"),
    "columns, named rows": (NAMED.to_dict(), r"an object for each of \['a', 'b'\] .*'columns' or 'index'\)"),
    "index": (TABLE.to_dict("index"), r"an object for each of \['0', '1', '2'\] .*'index'\)"),
    "index, one": (TABLE[:1].to_dict("index"), r"an object for each of \['0'\] .*'index'\)"),
    "split": (TABLE.to_dict("split"), "all rows below 'data', beside 'columns' .*orient 'split'"),
    "table": (json.loads(TABLE.to_json(orient="table")), "all rows below 'data', beside 'schema' .*orient 'table'"),
    "records below a field": ({"n": 3, "items": TABLE.to_dict("records")}, "all rows below 'items'"),
    "lists": (TABLE.to_dict("list"), r"a list for each of \['a', 'b'\]"),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", WHOLE_TABLES)
def test_a_json_file_of_one_object_is_refused(form: str, streaming: bool, tmp_path: Path) -> None:
    content, words = WHOLE_TABLES[form]
    path = tmp_path / "table.json"
    path.write_text(json.dumps(content))
    args = data_arguments("json", data_files=str(path), kind="tabular", streaming=streaming)
    with pytest.raises(ValueError, match=f"table.json.*: the file is one object with {words}.*write a list of rows"):
        load_splits(args)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TABLE.to_json(orient="values"), r"a list of lists without names of columns \(pandas' orient 'values'\)"),
        ('[["CCO"], ["CC"]]', "a list of lists"),
        ("[1.5, 2, 3.5]", "a list of numbers"),
        ("[1.5, 2]\n[3, 4.5]\n", "a list of numbers"),
    ],
)
def test_lists_without_names_are_refused(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"table.json: the file begins with {words}.*: write a list of rows"):
        first_look(source_values(str(path)))


@pytest.mark.parametrize("orient", ["index", "columns", "split", "table", "values"])
def test_the_beginning_of_a_long_json_table_tells(orient: str, tmp_path: Path) -> None:
    table = pd.DataFrame({name: np.linspace(0, 1, 4000) for name in ("a", 'b "[{,', "c")})
    path = tmp_path / "long.json.gz"
    table.to_json(path, orient=orient)  # type: ignore[call-overload]
    words = look_for_whole_table(str(path))
    assert words is not None and f"'{orient}'" in words


def test_rows_of_json_are_no_whole_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [json.dumps({"x": {"a": 1, "b": number}, "y": {"a": 1, "b": 2}}) for number in range(3)]
    for content in (
        "\n".join(rows),
        f"[{','.join(rows)}]",
        '["CC", "CCO"]',
        '"CC"',
        "[]",
        "{}",
        "",
        '{"a": [1, 2',
        "}{",
    ):
        path.write_text(content)
        assert look_for_whole_table(str(path)) is None, content


def test_rows_of_json_may_hold_objects_and_lists(tmp_path: Path) -> None:
    rows = [
        {"x": [1.0, 2.0], "y": [3.0, 4.0]},
        {"x": {"path": "1.png", "bytes": None}, "y": {"path": "2.png", "bytes": None}},
    ]
    for number, row in enumerate(rows):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(row))
        args = data_arguments("json", data_files=str(path), kind="series", input_column="x")
        assert len(load_splits(args)["train"]) == 1


CONTENT = "\n".join(json.dumps({"text": f"text number {row}", "n": row}) for row in range(400)).encode()


def zipped(content: bytes, path: Path) -> bytes:
    """The content as the one file of an archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jsonl", content)
    return path.read_bytes()


@pytest.mark.parametrize("ending", ["gz", "xz", "bz2", "zip", "parquet", "json"])
@pytest.mark.parametrize("streaming", [False, True])
def test_cut_files_are_named(tmp_path: Path, ending: str, streaming: bool) -> None:
    pq.write_table(pa.table({"text": ["a"] * 50}), tmp_path / "whole.parquet")
    whole = {
        "gz": gzip.compress(CONTENT),
        "xz": lzma.compress(CONTENT),
        "bz2": bz2.compress(CONTENT),
        "zip": zipped(CONTENT, tmp_path / "whole.zip"),
        "parquet": (tmp_path / "whole.parquet").read_bytes(),
        "json": json.dumps([{"text": "a"}] * 50).encode(),
    }[ending]
    name = f"cut.{ending}" if ending in ("parquet", "json") else f"cut.jsonl.{ending}"
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    source = "parquet" if ending == "parquet" else "json"
    args = data_arguments(
        source,
        data_files=str(tmp_path / name),
        kind="tokens",
        input_column="text",
        tokenizer="utf-8",
        streaming=streaming,
    )
    with pytest.raises(
        ValueError, match=rf"data.source '{source}' .*{name}.*: split 'train' (cannot be read|has no rows)"
    ):
        for _ in load_splits(args)["train"]:
            pass


def numpy_rows(*files: Path, streaming: bool = False) -> list[dict[str, Any]]:
    """The rows of NumPy files."""
    args = data_arguments(
        "numpy", kind="series", data_files=list(map(str, files)), input_column="x", streaming=streaming
    )
    split = load_splits(args)["train"]
    return list(split.with_format("numpy") if isinstance(split, Dataset) else split)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("dtype", [">f4", ">i2", ">f8", "<f2", ">f2", ">u8", "?", "longdouble", ">U3", "S3", "i1"])
def test_numbers_of_other_machines_are_read(tmp_path: Path, dtype: str, streaming: bool) -> None:
    values = np.arange(24).reshape(4, 6).astype(np.longdouble if dtype == "longdouble" else np.dtype(dtype))
    for name, saved in (("flat", values[:, 0]), ("rows", values), ("cubes", values.reshape(4, 2, 3))):
        if values.dtype.kind in "US" and saved.ndim > 1:
            continue
        np.savez(tmp_path / f"{name}.npz", x=saved)
        found = np.array([row["x"] for row in numpy_rows(tmp_path / f"{name}.npz", streaming=streaming)])
        expected = saved.astype(str) if values.dtype.kind in "US" else saved.astype(np.float64)
        np.testing.assert_array_equal(found.astype(expected.dtype), expected)
    np.save(tmp_path / "x.npy", values[:, 0])
    assert len(numpy_rows(tmp_path / "x.npy", streaming=streaming)) == 4


class Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1 + 2j, 3]), "'x' holds complex128.*two channels"),
        (np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), "'x' holds .*an array of its own"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "'x' holds datetime64"),
        (np.array(3.0), "same number of rows"),
        (np.zeros(0), "no rows|cannot be read"),
        (np.zeros((0, 3)), "has no rows"),
        (np.zeros((3, 0)), "the rows of array 'x' hold no value"),
        (np.zeros((2,) * 7), "at most 6"),
    ],
    ids=["complex", "structured", "dates", "scalar", "empty", "no rows", "no columns", "seven"],
)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_arrays_of_other_things_are_refused_by_name(tmp_path: Path, array: Any, message: str, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    (np.save if ending == "npy" else lambda path, x: np.savez(path, x=x))(path, array)
    with pytest.raises(ValueError, match=message):
        numpy_rows(path)


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_objects_are_refused_without_running_what_they_hold(tmp_path: Path, ending: str) -> None:
    objects = np.array([Touch(tmp_path / "touched")], dtype=object)
    path = tmp_path / f"x.{ending}"
    (np.save if ending == "npy" else lambda path, x: np.savez(path, x=x))(path, objects)
    with pytest.raises(ValueError, match=rf"x\.{ending} cannot be read.*objects would run code"):
        numpy_rows(path)
    assert not (tmp_path / "touched").exists()


def test_numpy_files_are_read_from_a_disk_alone() -> None:
    values = {"data_files": "https://example.org/x.npy", "kind": "series", "input_column": "x"}
    with pytest.raises(ValueError, match=r"https://example.org/x.npy is an address, .* download it first"):
        load_splits(data_arguments("numpy", **values))


def test_numpy_files_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"\['x'\] name two .npy files"):
        numpy_rows(tmp_path / "a" / "x.npy", tmp_path / "b" / "x.npy")
    np.savez(tmp_path / "1.npz", x=np.zeros((2, 3)))
    np.savez(tmp_path / "2.npz", x=np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"2\.npz: its arrays have shapes"):
        numpy_rows(tmp_path / "1.npz", tmp_path / "2.npz")


def test_a_folder_as_source_whose_name_is_a_pattern_is_refused(
    write_parquet: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "my [data]").mkdir()
    os.rename(write_parquet("train", n=[1]), tmp_path / "my [data]" / "train.parquet")
    with pytest.raises(ValueError, match="read as a pattern: rename it, or set data.source"):
        load_splits(data_arguments(str(tmp_path / "my [data]"), input_column="n"))
