"""Runs on several kinds of data at once."""

import importlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from runs import (
    UNIFIED_MODEL,
    assert_same_weights,
    make_recipe,
    train,
    unified_data,
    weights,
    without_time,
    write_holes,
)
from transformers import AutoImageProcessor, AutoModel, AutoModelForPreTraining

import hf_maskssl
from hf_maskssl.data import data_arguments, prepare_data
from hf_maskssl.evaluation.features import load_encoder
from hf_maskssl.hub.cards import write_model_card
from hf_maskssl.hub.publish import publish
from hf_maskssl.recipes import build_config
from hf_maskssl.training import Pretrainer, load_pretraining_recipe
from hf_maskssl.training.needs import describe


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    return unified_data(write_holes(tmp_path / "table.csv"))


def with_part(data: dict[str, Any], name: str, **fields: Any) -> dict[str, Any]:
    return data | {"parts": {**data["parts"], name: data["parts"][name] | fields}}


def test_rows_of_shorter_parts_begin_again(data: dict[str, Any]) -> None:
    prepared = prepare_data(data_arguments(**data), build_config(UNIFIED_MODEL), complete=True)
    train_rows: Any = prepared.train
    digits, table = prepared.parts["digits"].train, prepared.parts["table"].train
    assert len(train_rows) == len(digits) == 42 and len(table) == 41
    last = train_rows[41]
    assert last["index"] == 41 and (last["digits"]["pixel_values"] == digits[41]["pixel_values"]).all()
    pd.testing.assert_series_equal(pd.Series(last["table"]["input_values"][0]), pd.Series(table[0]["input_values"][0]))
    batch = prepared.collator(train_rows.__getitems__([3, 41]))
    assert batch["index"].tolist() == [3, 41] and batch["inputs"]["digits"].keys() == {"pixel_values"}
    expected = prepared.parts["table"].collator([table[3], table[0]])
    assert torch.equal(batch["inputs"]["table"]["input_values"], expected["input_values"])
    assert prepared.report.splits["train"].rows == 42 and prepared.report.splits["table/train"].rows == 41
    assert prepared.report.splits["table/train"].left_out


def test_a_run_and_its_parts(
    tmp_path: Path,
    data: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = make_recipe(
        tmp_path / "run", UNIFIED_MODEL | {"task_balancing": "uncertainty"}, data, {"every_steps": 4, "max_samples": 20, "k": 3},
        picture_steps=4, save_steps=2,
    )  # fmt: skip
    state = Pretrainer(recipe, write_model_card).run()
    folder = tmp_path / "run"
    assert {"train/digits", "train/table", "train/weight/digits", "train/digits/reconstruction"} <= state.history[
        -1
    ].keys()
    assert "probe/digits/linear_accuracy" in state.history[0] and "probe/digits/rankme" in state.history[-1]
    assert {path.name for path in (folder / "pictures").glob("*.png")} == {
        "curves.png",
        "reconstruction-digits-00000004.png",
        "reconstruction-table-00000004.png",
    }
    whole = AutoModelForPreTraining.from_pretrained(folder)
    for name, part in whole.parts.items():
        alone = AutoModelForPreTraining.from_pretrained(folder / name)
        assert_same_weights(alone.state_dict(), part.state_dict())
        assert_same_weights(weights(folder / name), weights(folder / "checkpoint-00000004" / name))
        own = load_pretraining_recipe(folder / name / "recipe.yaml")
        assert own.training.output_dir == str(folder / name) and own.data == recipe.data.sections()[name]
        assert build_config(own.model).to_dict() == part.config.to_dict()
    assert AutoImageProcessor.from_pretrained(folder, subfolder="digits")
    rows = prepare_data(own.data, build_config(own.model)).train
    assert len(rows) == 41
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert 'AutoModel.from_pretrained("ORGANISATION/NAME", subfolder="digits")' in card
    assert "pre-trained on scikit-learn's handwritten digits and local tabular data" in card
    part_card = (folder / "digits" / "README.md").read_text(encoding="utf-8")
    assert "linear accuracy (%)" in part_card and "42 train, 30 test" in part_card
    assert "| trained jointly with | `table`, which have the same layers" in part_card
    assert "trained jointly" not in card
    assert json.loads((folder / "data_report.json").read_text())["splits"]["digits/train"]["rows"] == 42
    code = {path.name for name in ("digits", "table") for path in (folder / name).glob("*.py")}
    assert code <= {
        path.name for path in folder.glob("*.py")
    }  # where from_pretrained(..., subfolder=...) looks for it
    loaded: list[Path] = []
    monkeypatch.setattr(importlib.import_module("hf_maskssl.hub.publish"), "check_loading", loaded.append)
    assert publish(folder, "org/joint", dry_run=True) is None
    assert loaded == [folder, folder / "digits", folder / "table"]
    said = capsys.readouterr().out
    assert "table/model.safetensors" in said and "digits/preprocessor_config.json" in said
    assert "digits/README.md" not in said and "no processor" not in said
    assert type(load_encoder(str(folder / "table"), "cpu")).__name__ == "MetaMAEModel"


@pytest.mark.slow
def test_whole_and_parts_load_with_the_package_and_without(tmp_path: Path, data: dict[str, Any]) -> None:
    Pretrainer(make_recipe(tmp_path / "run", UNIFIED_MODEL, data), write_model_card).run()
    assert publish(tmp_path / "run", "org/joint", dry_run=True) is None


def test_a_run_is_resumed_to_the_bit(tmp_path: Path, data: dict[str, Any]) -> None:
    model = UNIFIED_MODEL | {"task_balancing": "gradnorm"}
    _, whole = train(make_recipe(tmp_path / "whole", model, data, max_steps=12))
    trainer = Pretrainer(make_recipe(tmp_path / "two", model, data, max_steps=12))
    taken = trainer._step

    def stop(batches: Any) -> None:
        taken(batches)
        trainer.stop_requested = trainer.state.step == 7
        trainer.signals.received = "SIGTERM" if trainer.stop_requested else None

    trainer._step = stop  # type: ignore[method-assign]
    assert trainer.run().interrupted and not (tmp_path / "two" / "digits").exists()
    _, state = train(make_recipe(tmp_path / "two", model, data, max_steps=12, resume=True))
    assert without_time(state) == without_time(whole)
    assert_same_weights(weights(tmp_path / "two"), weights(tmp_path / "whole"))
    assert_same_weights(weights(tmp_path / "two" / "table"), weights(tmp_path / "whole" / "table"))


def test_a_run_goes_on_from_a_part_and_from_the_whole(tmp_path: Path, data: dict[str, Any]) -> None:
    train(make_recipe(tmp_path / "first", UNIFIED_MODEL, data))
    first = weights(tmp_path / "first")
    _, state = train(
        make_recipe(tmp_path / "more", UNIFIED_MODEL, data, init_from=str(tmp_path / "first"), learning_rate=1e-12)
    )
    assert state.start is not None and not state.start["new"] and not state.start["left"]
    more = weights(tmp_path / "more")
    fixed = {name for name in first if ".running_" not in name and "num_batches" not in name}
    for name in fixed:
        torch.testing.assert_close(more[name], first[name], rtol=1e-6, atol=1e-8)
    own = load_pretraining_recipe(tmp_path / "first" / "digits" / "recipe.yaml")
    begun = make_recipe(
        tmp_path / "part", own.model, {"label_column": None}, init_from=str(tmp_path / "first" / "digits")
    )
    _, state = train(begun)
    assert state.start is not None and not state.start["new"]


def test_a_recipe_is_described(tmp_path: Path, data: dict[str, Any]) -> None:
    path = tmp_path / "recipe.yaml"
    training = {"output_dir": "o", "max_steps": 4, "batch_size": 4}
    path.write_text(yaml.safe_dump({"model": UNIFIED_MODEL, "data": data, "training": training}))
    found = describe(path, steps=1)
    text = "\n".join(found.lines())
    assert "digits/train: 42 rows" in text and "table/train: 41 rows" in text and found.measured is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": {"digits": {"source": "digits"}}}, "data.parts: expected at least two parts, got \\['digits'\\]"),
        (
            {"source": "digits"},
            "data.source is 'digits': with data.kind 'unified' it belongs into .* data.parts.digits.source",
        ),
        ({"label_column": "label"}, "data.label_column is 'label': .* data.parts.digits.label_column"),
    ],
)
def test_sections_that_cannot_work(data: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data_arguments(**(data | changes))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "tabulr"}, "data.parts.table: data.kind: expected one of .*, got 'tabulr' .did you mean 'tabular'"),
        ({"kind": "unified"}, "data.parts.table"),
        ({"streaming": True}, "data.parts.table.streaming: expected false"),
    ],
)
def test_parts_that_cannot_work(data: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data_arguments(**with_part(data, "table", **fields))


def test_model_and_data_must_have_the_same_parts(tmp_path: Path, data: dict[str, Any]) -> None:
    renamed = {"tables": data["parts"]["table"], "digits": data["parts"]["digits"]}
    args, config = data_arguments(**(data | {"parts": renamed})), build_config(UNIFIED_MODEL)
    with pytest.raises(ValueError, match=r"data.parts \['digits', 'tables'\] and model.parts \['digits', 'table'\]"):
        prepare_data(args, config, complete=True)
    with pytest.raises(ValueError, match="goes with model.model_type 'unified'"):
        prepare_data(args, config.part_config("digits"), complete=True)
    some_validate = with_part(data, "table", validation_fraction=0.1)
    with pytest.raises(ValueError, match="data.parts: table have validation rows, digits have none"):
        prepare_data(data_arguments(**some_validate), config, complete=True)
    pictures = {"pictures": data["parts"]["table"], "digits": data["parts"]["digits"]}
    with pytest.raises(ValueError, match="'pictures' is the name of a folder of every run"):
        data_arguments(**(data | {"parts": pictures}))


def test_the_whole_is_no_encoder_of_one_kind(tmp_path: Path, data: dict[str, Any]) -> None:
    AutoModel.from_config(build_config(UNIFIED_MODEL)).save_pretrained(tmp_path / "whole")
    with pytest.raises(ValueError, match="the parts digits, table: give the folder of one of them, .*whole/digits"):
        hf_maskssl.embed(str(tmp_path / "whole"), [[0.0]])


def test_a_batch_is_no_larger_than_the_smallest_part(tmp_path: Path, data: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match="data.parts.table: the training split has 41 rows, fewer than one batch of .*=42"
    ):
        train(make_recipe(tmp_path, UNIFIED_MODEL, data, batch_size=42))
