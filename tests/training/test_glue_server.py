"""GLUE's test sets predicted into the server's files, and the zip of them, on data in miniature."""

import runpy
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from finetuning_runs import MODELS

from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.evaluation.glue_server import (
    SERVER_ROWS,
    SERVER_TASKS,
    pack_submission,
    submission_text,
    words_of_classes,
)
from hf_maskssl.scripts import UserError
from hf_maskssl.training.finetuning import glue_predictions
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe
from hf_maskssl.training.finetuning.sweep import finetune

pytestmark = pytest.mark.usefixtures("private_cache", "blank_pictures")
SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "glue_submission.py"


def write_task(folder: Path, task: str, splits: tuple[str, ...], labels: Any) -> dict[str, Any]:
    """Pairs of words in `folder`/`task`; a row of test has no label (-1), and its number as nyu-mll/glue has it."""
    place = folder / task
    place.mkdir(parents=True)
    for number, split in enumerate(("train", "validation", *splits)):
        random = np.random.default_rng(number)
        count = {"train": 48, "validation": 12}.get(split, 9 + number)
        words = ["".join(random.choice(["A", "C"], size=6)) for _ in range(count)]
        is_test = split in splits
        order = np.arange(count)[::-1] if is_test else np.arange(count)
        table = {
            "sentence1": words,
            "sentence2": words[::-1],
            "label": [-1 if is_test else labels(word) for word in words],
        }
        pd.DataFrame({**table, "idx": order}).to_parquet(place / f"{split}.parquet", index=False)
    files = {split: f"{split}.parquet" for split in ("train", "validation", *splits)}
    section = {"source": "parquet", "data_dir": str(place), "data_files": files, "test_split": "validation"}
    return section | {
        "kind": "tokens",
        "input_column": ["sentence1", "sentence2"],
        "tokenizer": "utf-8",
        "label_column": "label",
    }


def recipe(folder: Path, data: dict[str, Any], **finetuning: Any) -> FinetuningRecipe:
    fields: dict[str, Any] = {"output_dir": str(folder / "run"), "max_steps": 4, "batch_size": 8, "seeds": [0]}
    fields |= {"learning_rate": 1e-2, "predict_test": True}
    model = MODELS["metamae"] | {"vocab_size": 262, "max_position_embeddings": 16}
    return FinetuningRecipe(model, data_arguments(**data), FinetuningArguments(**(fields | finetuning)))


def lines_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_task_of_two_words_is_predicted_by_the_number_of_the_row(tmp_path: Path) -> None:
    data = write_task(tmp_path, "rte", ("test",), lambda word: int(word.count("A") > 3))
    results = finetune(recipe(tmp_path, data))
    assert results["test_predictions"] == ["glue/RTE.tsv"]
    lines = lines_of(tmp_path / "run" / "glue" / "RTE.tsv")
    assert lines[0] == ["index", "prediction"] and [int(line[0]) for line in lines[1:]] == list(range(11))
    assert {line[1] for line in lines[1:]} <= {"entailment", "not_entailment"}
    assert "RTE.tsv" in (tmp_path / "run" / "results.md").read_text(encoding="utf-8")
    # The kept model says the same when it is asked row by row.
    setup = finetune_setup(tmp_path, data)
    said = {int(index): word for index, word in lines[1:]}
    raw = pd.read_parquet(tmp_path / "rte" / "test.parquet")
    assert said == {int(index): word for index, word in zip(raw["idx"], answers(tmp_path, setup, raw), strict=True)}


def finetune_setup(folder: Path, data: dict[str, Any]) -> Any:
    from hf_maskssl.training.finetuning.setup import FinetuningSetup

    return FinetuningSetup(recipe(folder, data, predict_test=False))


def answers(folder: Path, setup: Any, raw: pd.DataFrame) -> list[str]:
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder / "run" / "model").eval()
    tokenizer = setup.data.processor
    words = []
    for first, second in zip(raw["sentence1"], raw["sentence2"], strict=True):
        batch = tokenizer(first, second, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            words.append(("entailment", "not_entailment")[int(model(**batch).logits.argmax())])
    return words


def test_similarities_are_values_and_mnli_has_three_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_task(tmp_path, "stsb", ("test",), lambda word: 5 * word.count("A") / 6)
    finetune(recipe(tmp_path, data | {"task": "regression"}))
    values = [line[1] for line in lines_of(tmp_path / "run" / "glue" / "STS-B.tsv")[1:]]
    assert len(values) == 11 and all(len(value) == 5 and 0 <= float(value) <= 5 for value in values)
    names = ("entailment", "neutral", "contradiction")
    data = write_task(tmp_path, "mnli", ("test_matched", "ax"), lambda word: names[word.count("A") % 3])
    finetune(recipe(tmp_path, data, output_dir=str(tmp_path / "mnli_run")))
    assert "names no test set for ['MNLI-mm']" in caplog.text
    packed = pack_submission([tmp_path / "run", tmp_path / "mnli_run"], tmp_path / "submission.zip")
    assert packed["files"] == {"STS-B": 11, "MNLI-m": 11, "AX": 12}
    assert packed["missing"] == [name for name in SERVER_ROWS if name not in packed["files"]]
    assert "STS-B.tsv has 11 rows, the test set 1,379: the server will refuse it" in packed["differences"]
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert archive.namelist() == ["STS-B.tsv", "MNLI-m.tsv", "AX.tsv"]
        assert archive.read("AX.tsv") == (tmp_path / "mnli_run" / "glue" / "AX.tsv").read_bytes()


def test_on_the_hub_the_diagnostic_set_is_a_configuration(tmp_path: Path) -> None:
    args = data_arguments(
        "nyu-mll/glue", config_name="mnli", kind="tokens", input_column=["premise", "hypothesis"], label_column="label"
    )
    sections = {
        name: glue_predictions._section(args, name, split) for name, split in SERVER_TASKS["mnli"].files.items()
    }
    places = {name: (section.config_name, section.train_split) for name, section in sections.items() if section}
    assert places == {"MNLI-m": ("mnli", "test_matched"), "MNLI-mm": ("mnli", "test_mismatched"), "AX": ("ax", "test")}
    assert all(section is not None and section.label_column is None for section in sections.values())


def test_every_row_wants_an_answer(tmp_path: Path) -> None:
    data = write_task(tmp_path, "rte", ("test",), lambda word: int(word.count("A") > 3))
    path = tmp_path / "rte" / "test.parquet"
    table = pd.read_parquet(path)
    table.loc[2, ["sentence1", "sentence2"]] = ""
    table.to_parquet(path, index=False)
    with pytest.raises(ValueError, match="wants a prediction for every row of RTE, but rows are left out"):
        finetune(recipe(tmp_path, data))


@pytest.mark.parametrize(
    ("task", "splits", "message"),
    [
        ("snli", ("test",), r"expected a task of GLUE, .* got 'snli'"),
        (
            "mnli",
            ("test_matched",),
            r"mnli: expected the classes \['entailment', 'neutral', 'contradiction'\], or their ids 0 to 2",
        ),
        ("rte", (), "data.data_files names no test set of rte: expected the splits .'test'."),
    ],
)
def test_what_cannot_be_predicted_is_told_before_the_training(
    task: str, splits: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    data = write_task(tmp_path, task, splits, lambda word: int(word.count("A") > 3))
    with pytest.raises(ValueError, match=message):
        finetune(recipe(tmp_path, data))
    with pytest.raises(ValueError, match="set save_model to true"):
        recipe(tmp_path, data, save_model=False)


def test_words_and_values_of_the_server() -> None:
    assert words_of_classes("wnli", ["not_entailment", "entailment"]) == ("0", "1")
    assert words_of_classes("qnli", ["not_entailment", "entailment"]) == ("not_entailment", "entailment")
    assert words_of_classes("rte", ["0", "1"]) == ("entailment", "not_entailment")
    assert words_of_classes("stsb", None) == ()
    with pytest.raises(ValueError, match="stsb: the server reads values"):
        words_of_classes("stsb", ["0", "1"])
    text = submission_text(np.array([[5.4321], [-0.2], [2.71828]]), [2, 0, 1], ())
    assert text == "index\tprediction\n0\t0.000\n1\t2.718\n2\t5.000\n"
    with pytest.raises(ValueError, match="expected the rows 0 to 1"):
        submission_text(np.eye(2), [0, 2], ("0", "1"))
    with pytest.raises(ValueError, match="finite"):
        submission_text(np.array([np.nan]), [0], ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,prediction\n", "expected the first line"),
        ("index\tprediction\n0\tyes\n", r"line 2: expected 0, a tab and one of \['0', '1'\]"),
        ("index\tprediction\n1\t0\n", "line 2: expected 0"),
    ],
)
def test_a_file_that_the_server_would_refuse_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "CoLA.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        pack_submission([tmp_path], tmp_path / "submission.zip")
    assert not (tmp_path / "submission.zip").exists()


def test_the_script_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "CoLA.tsv").write_text("index\tprediction\n0\t1\n", encoding="utf-8")
    output = tmp_path / "all.zip"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path), "--output", str(output)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    said = capsys.readouterr().out
    assert "missing: SST-2.tsv, MRPC.tsv" in said and "CoLA.tsv has 1 rows, the test set 1,063" in said
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path), str(tmp_path)])
    with pytest.raises((UserError, SystemExit)):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "CoLA.tsv is there twice" in capsys.readouterr().err
