"""FASTA files: records as rows, packed or not, and broken ones by file and line."""

import gzip
from pathlib import Path

import fsspec
import pytest

from hf_maskssl.data import build_config, prepare_data
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.looking import source_values
from hf_maskssl.data.tables.splits import load_splits
from hf_maskssl.training import load_pretraining_recipe
from hf_maskssl.training.own_data import recipe_from_data

FASTA = b"""\xef\xbb\xbf; of old, a remark
>sp|P1|A first, of two lines
MKV-LA
  wyx *

>P2
ACDEF\r
>P3 nothing in it
>P4\tprotein \xc3\xa9
GG
"""
ROWS = [
    {"id": "sp|P1|A", "description": "first, of two lines", "sequence": "MKV-LAwyx*"},
    {"id": "P2", "description": "", "sequence": "ACDEF"},
    {"id": "P3", "description": "nothing in it", "sequence": ""},
    {"id": "P4", "description": "protein é", "sequence": "GG"},
]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["p.fasta", "p.fa", "p.faa.gz", "p.FNA"])
def test_records_are_rows(name: str, streaming: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(FASTA) if name.endswith(".gz") else FASTA)
    values = source_values(str(path))
    assert values == {"source": "fasta", "data_files": str(path)}
    args = data_arguments(**values, kind="tokens", input_column="sequence", streaming=streaming)
    assert list(load_splits(args)["train"]) == ROWS


def test_a_folder_and_splits(tmp_path: Path) -> None:
    for name, letters in (("a.fa", "AC"), ("b.fa", "GT")):
        (tmp_path / name).write_text(f">{name}\n{letters}\n")
    (tmp_path / "readme.txt").write_text("what is here")
    args = data_arguments(**source_values(str(tmp_path)), kind="tokens", input_column="sequence")
    assert load_splits(args)["train"]["sequence"][:] == ["AC", "GT"]
    files = {"train": [str(tmp_path / "a.fa")], "test": str(tmp_path / "b.fa")}
    fields = {"data_files": files, "kind": "tokens", "input_column": "sequence"}
    assert load_splits(data_arguments("fasta", test_split="test", **fields))["test"]["id"][:] == ["b.fa"]
    with pytest.raises(ValueError, match=r"no files for split 'dev'; there are \['test', 'train'\]"):
        load_splits(data_arguments("fasta", test_split="dev", **fields))
    with pytest.raises(ValueError, match="data.source 'fasta' needs data.data_files: the FASTA files"):
        data_arguments("fasta", data_dir=str(tmp_path), kind="tokens", input_column="sequence")


BROKEN = {
    "text.fa": (b"MKVL\n>a\nAC\n", "text.fa, line 1: expected a line that begins with '>', got 'MKVL'"),
    "digits.fa": (b">a\nAC\n1 ACGT\n", r"digits.fa, line 3: expected letters, .* got \['1'\]"),
    "latin.fa": (b">a\nAC\n>\xe9\nAC\n", "latin.fa, line 3: the line is not UTF-8"),
    "cut.fa.gz": (
        gzip.compress(b">a\n" + 999 * b"ACGT\n")[:-12],
        "cut.fa.gz, line .*: it cannot be read further.*anew",
    ),
    "plain.fa.gz": (b">a\nAC\n", "plain.fa.gz, line 1: it cannot be read further: Not a gzipped file"),
    "empty.fa": (b"", "no rows"),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named_with_their_line(name: str, streaming: bool, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    fields = {"data_files": str(tmp_path / name), "input_column": "sequence", "streaming": streaming}
    with pytest.raises(ValueError, match=message):
        list(load_splits(data_arguments("fasta", kind="tokens", **fields))["train"])


def test_a_recipe_from_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [f">p{row} of a test\n{'ACDEFGHIKLMNPQRSTVWY'[row % 15 :]}\n" for row in range(40)]
    (tmp_path / "proteins.fasta").write_text("".join([*records, ">empty\n"]))
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    options = {"kind": None, "label_column": None, "minutes": 1.0, "max_steps": 2, "name": "proteins", "overrides": []}
    path = recipe_from_data("proteins.fasta", **options, say=said.append)
    recipe = load_pretraining_recipe(str(path), [])
    assert (recipe.data.source, recipe.data.input_column, recipe.data.kind) == ("fasta", "sequence", "tokens")
    assert "texts in 'sequence'" in "\n".join(said)
    report = prepare_data(recipe.data, build_config(recipe.model)).report
    left_out = [split.left_out.get("nothing in column 'sequence'", 0) for split in report.splits.values()]
    assert sum(left_out) == 1 and sum(split.rows or 0 for split in report.splits.values()) == 40


def test_a_file_at_an_address() -> None:
    with fsspec.open("memory://proteins/p.fasta.gz", "wb") as file:
        file.write(gzip.compress(FASTA))
    values = {"data_files": "memory://proteins/p.fasta.gz", "kind": "tokens", "input_column": "sequence"}
    assert list(load_splits(data_arguments("fasta", **values))["train"]) == ROWS
    with pytest.raises(ValueError, match="memory://proteins/other.fa"):
        load_splits(data_arguments("fasta", **values | {"data_files": "memory://proteins/other.fa"}))
