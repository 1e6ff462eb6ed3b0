"""Several columns of labels with gaps: read, counted, prepared, collated, cut by scaffold, and refused."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.preparation import PreparedData, prepare_data
from hf_maskssl.data.tables.label_columns import encode_column
from hf_maskssl.recipes import build_config

pytestmark = pytest.mark.usefixtures("private_cache")

MODEL = {
    "model_type": "metamae",
    "modality": "tokens",
    "vocab_size": 262,
    "max_position_embeddings": 12,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "decoder_num_hidden_layers": 1,
}
TASKS = ["NR-AR", "NR-ER", "SR-p53"]
TEXTS = ["CCO", "c1ccccc1", "CCN", "CCC", "c1ccncc1", "CC"]
LABELS = {
    "NR-AR": [0, 1, None, None, 1, 0],
    "NR-ER": [1, None, None, 0, 0, 1],
    "SR-p53": [0, 0, None, 0, None, 0],
}
KEPT = [0, 1, 3, 4, 5]  # row 2 has no label


def write(folder: Path, labels: dict[str, Any] | None = None, form: str = "csv") -> dict[str, Any]:
    table = pd.DataFrame({"smiles": TEXTS, **(labels or LABELS)})
    path = folder / f"assays.{form}"
    if form == "csv":
        table.to_csv(path, index=False)
    else:
        table.convert_dtypes().to_parquet(path, index=False)
    section = {"source": form, "data_files": str(path), "kind": "tokens", "input_column": "smiles"}
    return section | {"tokenizer": "utf-8", "label_column": TASKS, "task": "multi_label_classification"}


def prepare(section: dict[str, Any]) -> PreparedData:
    return prepare_data(data_arguments(**section), build_config(MODEL))


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("cache", [True, False])
def test_gaps_are_told_apart_from_labels(form: str, cache: bool, tmp_path: Path) -> None:
    prepared = prepare(write(tmp_path, form=form) | {"cache": cache})
    assert (prepared.task, prepared.num_labels, prepared.label_names) == ("multi_label_classification", 3, TASKS)
    rows: Any = prepared.train
    batch = prepared.collator([rows[row] for row in range(len(rows))])
    wanted = [[LABELS[task][row] for task in TASKS] for row in KEPT]
    expected = torch.tensor([[-100.0 if label is None else label for label in row] for row in wanted])
    assert batch["labels"].dtype == torch.float32 and torch.equal(batch["labels"], expected)


def test_each_task_is_counted_and_rows_without_any_label_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        prepared = prepare(write(tmp_path))
    report = prepared.report.splits["train"]
    assert report.tasks == {
        "NR-AR": {"positive": 2, "negative": 2, "missing": 1},
        "NR-ER": {"positive": 2, "negative": 2, "missing": 1},
        "SR-p53": {"positive": 0, "negative": 4, "missing": 1},
    }
    assert report.rows == 5 and report.missing == {}
    assert report.left_out == {"no label in 3 columns 'NR-AR'..'SR-p53'": 1}
    lines = prepared.report.lines()
    assert "  NR-AR: 2 positive, 2 negative, 1 missing" in lines
    assert "every label is missing in 1 of 6 rows" in caplog.text
    assert "1 of 3 tasks have no rows of both classes, so nothing can be learnt of them: ['SR-p53']" in caplog.text


def test_a_stated_number_is_a_gap_of_classes_alone(tmp_path: Path) -> None:
    labels = {task: [-100 if label is None else label for label in values] for task, values in LABELS.items()}
    prepared = prepare(write(tmp_path, labels))
    assert prepared.report.splits["train"].rows == 5
    values = encode_column([-100.0, None, 2.5], "regression", lambda place: f"row {place}")
    assert values[0] == -100 and np.isnan(values[1]) and values[2] == 2.5


def test_columns_of_values_keep_their_numbers(tmp_path: Path) -> None:
    values = {
        "NR-AR": [0.5, -100.0, None, 3.0, 1.0, 2.0],
        "NR-ER": [None, 1.0, None, 2.0, 3.0, 4.0],
        "SR-p53": range(6),
    }
    prepared = prepare(write(tmp_path, values) | {"task": "regression"})
    rows: Any = prepared.train
    labels = prepared.collator([rows[row] for row in range(len(rows))])["labels"]
    assert len(rows) == 6 and prepared.num_labels == 3
    assert labels[:2, :2].isnan().tolist() == [[False, True], [False, False]] and labels[1, 0] == -100


def test_a_scaffold_split_is_cut_after_rows_without_labels_are_left_out(tmp_path: Path) -> None:
    pytest.importorskip("rdkit")
    section = write(tmp_path) | {"split": "scaffold", "split_fractions": [0.6, 0.2, 0.2]}
    prepared = prepare(section)
    splits: list[Any] = [prepared.train, prepared.validation, prepared.test]
    assert [len(split) for split in splits] == [3, 1, 1]
    assert prepared.report.splits["train"].left_out == {"no label in 3 columns 'NR-AR'..'SR-p53'": 1}


def test_columns_of_a_table_that_are_labels_are_no_features(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(8, 3)), columns=["a", "b", "c"])
    table["first"], table["second"] = [0, 1] * 4, [1, 1, 0, 0] * 2
    table.to_csv(tmp_path / "table.csv", index=False)
    section = {"source": "csv", "data_files": str(tmp_path / "table.csv"), "kind": "tabular"}
    args = data_arguments(**section, label_column=["first", "second"], task="multi_label_classification")
    config = build_config(
        MODEL
        | {
            "modality": "series",
            "series_length": 3,
            "num_channels": 1,
            "patch_size": 1,
            "vocab_size": None,
            "max_position_embeddings": None,
        }
    )
    prepared = prepare_data(args, config)
    assert prepared.report.features == ["a", "b", "c"]
    assert prepared.report.features_left_out == {
        "first": "it is data.label_column[0]",
        "second": "it is data.label_column[1]",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_column": "NR-AR"}, "takes a list of columns, one a task, got 'NR-AR'"),
        ({"task": "classification"}, "several columns go with data.task multi_label_classification or regression"),
        ({"label_column": []}, "expected different columns, at least one"),
        ({"label_column": ["NR-AR", "NR-AR"]}, "expected different columns"),
        ({"label_column": ["NR-AR", "smiles"]}, r"label_column\[1\]: 'smiles' is also an input column"),
        ({"label_column": ["NR-AR", "NR-ARR"]}, r"label_column\[1\]: the train split has no column 'NR-ARR'"),
    ],
)
def test_what_cannot_be_columns_of_labels_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    section = write(tmp_path) | changes
    with pytest.raises(ValueError, match=message):
        prepare(section)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"NR-AR": [0, 1, 0, 2, 1, 0]}, "row 3, column 'NR-AR': expected 0, 1 or nothing as label .*, got 2"),
        (
            {"NR-AR": list("yynnyn")},
            "label_column 'NR-AR': one of several columns of labels holds numbers, got string",
        ),
    ],
)
def test_cells_that_are_no_labels_are_named(labels: dict[str, Any], message: str, tmp_path: Path) -> None:
    section = write(tmp_path, LABELS | labels)
    with pytest.raises(ValueError, match=message):
        prepare(section)


def test_streams_read_gaps_as_well(tmp_path: Path) -> None:
    args = data_arguments(**write(tmp_path), streaming=True)
    assert dataclasses.asdict(args)["label_column"] == TASKS
    prepared = prepare_data(args, build_config(MODEL))
    labels = prepared.collator(list(prepared.train))["labels"]
    # A row without any label cannot be counted beforehand; it has no part in a loss.
    assert labels.shape == (6, 3) and labels[2].tolist() == [-100.0] * 3
