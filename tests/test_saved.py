"""Folders that earlier versions saved (`tests/saved`) open, give the same numbers, and their runs go on."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_maskssl.training import load_pretraining_recipe, pretrain

SAVED = Path(__file__).resolve().parent / "saved"
sys.path[:0] = [str(SAVED), str(SAVED.parent / "training")]
from save_runs import STEPS, features  # noqa: E402

CHECKPOINTS = [
    pytest.param(path.parent, id=f"{path.parts[-3]}-{path.parts[-2]}")
    for path in sorted(SAVED.glob("*/*/checkpoint-*"))
]


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A copy of a saved run, in a copy of its folder of data, which is the working directory."""
    run: Path = request.param
    shutil.copytree(run.parent, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / run.name


def test_every_method_is_saved() -> None:
    for version in SAVED.glob("*/"):
        if version.name != "__pycache__":
            assert {path.stem for path in version.glob("*.yaml")} >= {"metamae", "sma", "multimae", "pos_minimax_bert"}
    assert len(CHECKPOINTS) >= 4


@pytest.mark.parametrize("copied", CHECKPOINTS, indirect=True)
def test_encoder_has_the_features_it_had(copied: Path) -> None:
    expected = load_file(copied.with_suffix(".safetensors"))["hidden_states"]
    found = features(next(copied.glob("checkpoint-*")), copied.name)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("copied", CHECKPOINTS, indirect=True)
def test_run_goes_on_as_if_it_had_not_been_stopped(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = pretrain(load_pretraining_recipe(copied.with_suffix(".yaml")))
    assert state.step == STEPS
    assert "was written with other data" not in caplog.text, (
        "fields of other kinds, which version 0.1 wrote, say nothing"
    )
    found = [entry for entry in state.history if entry["step"] > 2]
    expected = json.loads(copied.with_suffix(".json").read_text(encoding="utf-8"))
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    "path", sorted(SAVED.glob("*/printed/*.yaml")), ids=lambda path: f"{path.parts[-3]}-{path.stem}"
)
def test_a_recipe_as_cards_printed_it_opens(path: Path) -> None:
    """Version 0.1 printed the fields of all kinds of data."""
    written = load_pretraining_recipe(path.parents[1] / path.name)
    assert load_pretraining_recipe(path).data == written.data
