"""The script that trains a tokenizer: recipes in front or by name, and a column that is not there."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = str(Path(__file__).resolve().parents[2] / "examples" / "train_tokenizer.py")
Run = Callable[..., list[str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    (tmp_path / "corpus.txt").write_text("the cat sat\nthe dog ran\n")
    recipe = "data: {source: text, kind: masked_text, input_column: text, wordpiece_size: 30, data_files: FILE}"
    (tmp_path / "recipe.yaml").write_text(recipe.replace("FILE", str(tmp_path / "corpus.txt")))

    def train_tokenizer(name: str, *words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", [SCRIPT, *words, "--output_dir", str(tmp_path / name)])
        runpy.run_path(SCRIPT, run_name="__main__")
        return (tmp_path / name / "vocab.txt").read_text().splitlines()

    return train_tokenizer


def test_recipe_in_front_by_name_or_none(run: Run, tmp_path: Path) -> None:
    recipe, corpus = str(tmp_path / "recipe.yaml"), str(tmp_path / "corpus.txt")
    pieces = run("front", recipe)
    assert len(pieces) == 30
    assert run("named", "--recipe", recipe) == pieces
    assert run("none", "--source", "text", "--data_files", corpus, "--vocab_size", "30") == pieces
    with pytest.raises(SystemExit):
        run("both", recipe, "--recipe", recipe)


def test_the_folder_appears_whole_or_not_at_all(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = str(tmp_path / "recipe.yaml")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", interrupt)  # the last file
        with pytest.raises(SystemExit):
            run("folder", recipe)
    assert not list(tmp_path.glob("folder*"))
    run("folder", recipe)
    written = {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()}
    with pytest.raises(ValueError, match=r"--output_dir .*folder is not an empty folder: name a new one"):
        run("folder", recipe)
    assert written == {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()}


def interrupt(path: Path, *arguments: object, **options: object) -> None:
    if path.name == "vocab.txt":
        raise KeyboardInterrupt
    path.write_bytes(str(arguments[0]).encode())


def test_a_misspelt_column_is_told_before_training(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.input_column: the training split has no column 'txt'; .*\['text'\]"):
        run("folder", str(tmp_path / "recipe.yaml"), "--input_column", "txt")
    assert not (tmp_path / "folder").exists()
