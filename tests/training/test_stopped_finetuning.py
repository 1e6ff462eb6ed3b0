"""SIGTERM and Ctrl-C in fine-tuning: saved, ended cleanly, and gone on with to the same end."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dense_runs import make_dense
from finetuning_runs import make_finetuning, raise_in_step
from runs import assert_same_weights, weights

from hf_maskssl.training.finetuning.arguments import FinetuningRecipe
from hf_maskssl.training.finetuning.stopping import RunStopped
from hf_maskssl.training.finetuning.sweep import finetune, finetune_from_command_line

SHORT: dict[str, Any] = {"seeds": [0], "num_train_epochs": 2.0}


def recipe_of(case: str, folder: Path) -> FinetuningRecipe:
    if case == "segmentation":
        fields = SHORT | {"max_steps": 0, "batch_size": 3}
        return make_dense(folder, "semantic_segmentation", data={"augment": True}, **fields)
    changes = {
        "classification": {},
        "accumulated": {"gradient_accumulation_steps": 2, "batch_size": 4},
        "by_steps": {"eval_steps": 2},
        "workers": {"num_workers": 1},
    }
    return make_finetuning(folder, **SHORT, **changes[case])


@pytest.mark.parametrize(
    ("case", "step"),
    [
        ("classification", 8),
        pytest.param("accumulated", 13, marks=pytest.mark.slow),
        pytest.param("by_steps", 4, marks=pytest.mark.slow),
        pytest.param("workers", 3, marks=pytest.mark.slow),
        pytest.param("segmentation", 3, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_end(
    case: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank_pictures: None
) -> None:
    """In the midst of an epoch, at its end, and at a validation: where no run can stop, it does a step later."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    expected = finetune(recipe_of(case, tmp_path / "whole"))["runs"][0]
    seconds: list[float] = []
    for number in (signal.SIGTERM, signal.SIGINT):  # twice
        with monkeypatch.context() as patch:
            raise_in_step(patch, step if number == signal.SIGTERM else 1, number)
            with pytest.raises(
                RunStopped, match=rf"{number.name}: learning rate .*saved at step \d+; the same command"
            ):
                finetune(recipe_of(case, tmp_path / "stopped"))
        seconds.append(json.loads((tmp_path / "stopped" / "run" / "trainer" / "stopped.json").read_text())["seconds"])
    found = finetune(recipe_of(case, tmp_path / "stopped"))["runs"][0]
    assert found["training_loss"] == pytest.approx(expected["training_loss"], rel=1e-5)
    assert seconds[0] < seconds[1] <= found["seconds"] + 0.1, "the card tells the time of all of the run"
    for name in ("seconds", "training_loss"):
        del found[name], expected[name]
    assert found == expected
    assert_same_weights(*(weights(tmp_path / name / "run" / "model") for name in ("whole", "stopped")))
    assert not (tmp_path / "stopped" / "run" / "trainer").exists()


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raise_in_step(monkeypatch, 2, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        finetune(make_finetuning(tmp_path, **SHORT))
    monkeypatch.undo()
    assert finetune(make_finetuning(tmp_path, **SHORT))["runs"][0]["steps"] == 12  # nothing hinders a new start


def test_a_damaged_state_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        raise_in_step(patch, 2, signal.SIGTERM)
        with pytest.raises(RunStopped):
            finetune(make_finetuning(tmp_path, **SHORT))
    (tmp_path / "run" / "trainer" / "checkpoint-2" / "optimizer.pt").write_bytes(b"")
    finetune(make_finetuning(tmp_path, **SHORT))
    assert "checkpoint-2: optimizer.pt differs from what was written. The run starts anew." in caplog.text


def test_the_command_ends_cleanly(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = make_finetuning(tmp_path, **SHORT)
    sections = {"model": recipe.model, "data": vars(recipe.data), "finetuning": vars(recipe.finetuning)}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(sections))
    monkeypatch.setattr(sys, "argv", ["run_finetune.py", str(tmp_path / "recipe.yaml")])
    raise_in_step(monkeypatch, 2, signal.SIGTERM)
    finetune_from_command_line("")
    assert "stopped and saved at step 2; the same command continues." in caplog.text
    assert not capsys.readouterr().out
