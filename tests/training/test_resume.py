"""A run that is killed and resumed ends with the very weights of one that was not."""

import contextlib
import functools
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import (
    MIXED_MODEL,
    PLAIN_MAE,
    TABLE_MODEL,
    TEXT_MODEL,
    Killed,
    assert_same_weights,
    make_recipe,
    train,
    weights,
    without_time,
    write_holes,
    write_long,
    write_mixed,
    write_text,
)
from transformers import AutoModel

from hf_maskssl.locks import LOCK_FILE
from hf_maskssl.training import Pretrainer, PretrainingRecipe, RunState
from hf_maskssl.training.pretraining import checkpoints, saving

DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}
GUIDED = {"masking": "guided", "mask_schedule": "widen", "num_masked_per_query": 2, "initializer_range": 0.3}
# 42 rows: 10 batches of 4 a pass. With two batches a step, a pass ends within the runs below at steps 5 and 10.
CASES: dict[str, dict[str, Any]] = {
    "dropout_and_accumulation": {"model": DROPOUT, "gradient_accumulation_steps": 2, "max_grad_norm": 1.0},
    "accumulation_across_epochs": {"gradient_accumulation_steps": 3, "lr_scheduler_type": "cosine", "warmup_steps": 3},
    "at_the_end_of_an_epoch": {"gradient_accumulation_steps": 2, "save_steps": 5},
    "stream": {"model": DROPOUT, "data": {"streaming": True}, "gradient_accumulation_steps": 2},
    "workers": {"num_workers": 2, "gradient_accumulation_steps": 2},
    "ragged_tokens": {"model": TEXT_MODEL | DROPOUT, "data": "text", "lr_scheduler_type": "linear"},
    "holed_table": {"model": TABLE_MODEL | DROPOUT, "data": "holes", "gradient_accumulation_steps": 2},
    "mixed_table": {"model": MIXED_MODEL | DROPOUT, "data": "mixed", "gradient_accumulation_steps": 2},
    "guided": {"model": GUIDED | DROPOUT, "gradient_accumulation_steps": 2},
    "windows": {"model": TABLE_MODEL | DROPOUT, "data": "long", "num_workers": 1},
}


TEXTS = tempfile.TemporaryDirectory()  # whose path a run's state names
LONG = functools.cache(write_long)  # rows that are read anew each time are known by the time of their file
PLAIN_RUN: dict[str, Any] = {"model": PLAIN_MAE, "max_steps": 6, "save_steps": 2, "save_total_limit": 3}


def recipe_of(case: str, tmp_path: Path, name: str, **changes: Any) -> PretrainingRecipe:
    fields = dict(CASES[case])
    if fields.get("data") == "text":
        fields["data"] = write_text(Path(TEXTS.name) / "text.txt")
    if fields.get("data") == "holes":
        fields["data"] = write_holes(Path(TEXTS.name) / "table.csv")
    if fields.get("data") == "mixed":
        fields["data"] = write_mixed(Path(TEXTS.name) / "mixed.csv")
    if fields.get("data") == "long":
        fields["data"] = LONG(Path(TEXTS.name) / "long.parquet")
    settings = {"max_steps": 12, "save_steps": 3, "logging_steps": 5, "batch_size": 4}
    return make_recipe(tmp_path / name, **(settings | fields | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, RunState]]:
    """`whole(case)`: output folder and end of the run that nothing stops, trained once for all tests of the case."""

    @functools.cache
    def train_whole(case: str) -> tuple[Path, RunState]:
        folder = tmp_path_factory.mktemp(case)
        return folder / "whole", train(recipe_of(case, folder, "whole"))[1]

    return train_whole


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a finished run of six steps, with three checkpoints: for tests to copy."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    train(make_recipe(folder, **PLAIN_RUN))
    return folder


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int, where: str) -> None:
    """End the next run at a step: after it, or at some point of writing its checkpoint."""
    if where == "after_the_step":
        original: Callable[..., None] = Pretrainer._after_step

        def stop(self: Pretrainer, progress: Any) -> None:
            if self.state.step == step:
                raise Killed
            original(self, progress)

        monkeypatch.setattr(Pretrainer, "_after_step", stop)
        return
    places: dict[str, tuple[Any, str]] = {
        "while_files_are_written": (saving, "write_json"),
        "before_it_is_sealed": (saving, "seal"),
        "before_the_rename": (os, "replace"),
        "while_thinning": (saving, "thin_out"),
    }
    module, name = places[where]
    function = getattr(module, name)

    def interrupt(path: Path, *rest: Any, **options: Any) -> None:
        is_in_time = name != "replace" or Path(path).is_dir()
        if f"checkpoint-{step:08d}" in f"{path} {options}" and is_in_time:
            raise Killed
        function(path, *rest, **options)

    monkeypatch.setattr(module, name, interrupt)


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_is_as_if_nothing_happened(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resumed_at: Callable[[], list[int]],
    whole: Callable[[str], tuple[Path, RunState]],
) -> None:
    folder, expected = whole(case)
    for step in (8, 11):  # twice; resumed from steps 6 and 9, or 5 and 10
        with monkeypatch.context() as patch:
            kill_at(patch, step, "after_the_step")
            with pytest.raises(Killed):
                train(recipe_of(case, tmp_path, "killed", resume=step > 8))
    _, state = train(recipe_of(case, tmp_path, "killed", resume=True))
    assert resumed_at() == ([5, 10] if case == "at_the_end_of_an_epoch" else [6, 9])
    assert_same_weights(weights(tmp_path / "killed"), weights(folder))
    assert without_time(state) == without_time(expected)  # the logged means too, though the log was cut in its window
    assert_same_optimizers(folder, tmp_path / "killed")


def assert_same_optimizers(*runs: Path) -> None:
    first, second = (
        torch.load(run / "checkpoint-00000012" / "training_state" / "optimizer.bin")["state"] for run in runs
    )
    assert first.keys() == second.keys() and first
    assert all(torch.equal(first[key][part], second[key][part]) for key in first for part in first[key])


@pytest.mark.parametrize(
    "where", ["while_files_are_written", "before_it_is_sealed", "before_the_rename", "while_thinning"]
)
def test_killed_while_a_checkpoint_is_written(
    where: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resumed_at: Callable[[], list[int]],
    whole: Callable[[str], tuple[Path, RunState]],
) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, 9, where)
        with pytest.raises(Killed):
            train(recipe_of("dropout_and_accumulation", tmp_path, "killed"))
    newest = checkpoints.newest_sound_checkpoint(tmp_path / "killed")
    assert newest is not None and newest.name == (
        "checkpoint-00000009" if where == "while_thinning" else "checkpoint-00000006"
    )
    AutoModel.from_pretrained(newest)
    train(recipe_of("dropout_and_accumulation", tmp_path, "killed", resume=True))
    assert_same_weights(weights(tmp_path / "killed"), weights(whole("dropout_and_accumulation")[0]))
    assert resumed_at() == [9 if where == "while_thinning" else 6]
    assert not list((tmp_path / "killed").glob("*.incomplete"))


def test_resume_without_a_checkpoint_starts_anew(
    tmp_path: Path, whole: Callable[[str], tuple[Path, RunState]]
) -> None:
    train(recipe_of("stream", tmp_path, "resumed", resume=True))
    assert_same_weights(weights(tmp_path / "resumed"), weights(whole("stream")[0]))


def test_a_finished_run_is_left_as_it_is_or_made_longer(
    tmp_path: Path,
    resumed_at: Callable[[], list[int]],
    caplog: pytest.LogCaptureFixture,
    whole: Callable[[str], tuple[Path, RunState]],
) -> None:
    recipe_of_steps = {
        steps: recipe_of("dropout_and_accumulation", tmp_path, "run", max_steps=steps) for steps in (6, 12)
    }
    train(recipe_of_steps[6])
    before = weights(tmp_path / "run")
    assert "finished: 6 steps" in caplog.text
    caplog.clear()
    recipe_of_steps[6].training.resume = recipe_of_steps[12].training.resume = True
    train(recipe_of_steps[6])
    assert "Nothing left to do: 6 of 6 steps." in caplog.text
    assert_same_weights(weights(tmp_path / "run"), before)
    train(recipe_of_steps[12])
    assert resumed_at() == [6, 6]
    assert_same_weights(weights(tmp_path / "run"), weights(whole("dropout_and_accumulation")[0]))


@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped", "unsealed"])
def test_a_damaged_checkpoint_is_passed_over(
    damage: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    resumed_at: Callable[[], list[int]],
    plain_run: Path,
) -> None:
    shutil.copytree(plain_run, tmp_path / "run")
    expected = weights(tmp_path / "run")
    newest = tmp_path / "run" / "checkpoint-00000006"
    file = newest / {"missing": "training_state/optimizer.bin", "unsealed": "manifest.json"}.get(
        damage, "model.safetensors"
    )
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[:-100])
    elif damage == "flipped":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        file.unlink()
    (tmp_path / "run" / "checkpoint-00000008.incomplete").mkdir()
    _, state = train(make_recipe(tmp_path / "run", **PLAIN_RUN | {"resume": True, "save_total_limit": 1}))
    assert f"Skipping checkpoint {newest}" in caplog.text
    assert state.step == 6 and resumed_at() == [4]
    assert_same_weights(weights(newest), expected)  # written again, the damaged one replaced
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path / "run")] == ["checkpoint-00000006"]


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    ("left", "message"),
    [
        (
            "checkpoints",
            "none of its 3 checkpoints is sound, the newest since model.safetensors is missing: put the files",
        ),
        ("model", r"holds the model of an earlier run \(model.safetensors\) .* name another folder"),
    ],
)
def test_what_an_earlier_run_left_is_not_written_over(
    left: str, message: str, resume: bool, tmp_path: Path, plain_run: Path
) -> None:
    shutil.copytree(plain_run, tmp_path / "run")
    for folder in checkpoints.list_checkpoints(tmp_path / "run"):
        if left == "model":
            shutil.rmtree(folder)
        else:
            (folder / "model.safetensors").unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    expected = message if resume or left == "model" else "pass --resume to continue"
    with pytest.raises(ValueError, match=expected):
        train(make_recipe(tmp_path / "run", **PLAIN_RUN | {"resume": resume}))
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_a_new_checkpoint_is_not_thinned_out_for_a_damaged_later_one(tmp_path: Path, plain_run: Path) -> None:
    shutil.copytree(plain_run, tmp_path / "run")
    for step in (4, 6):
        (tmp_path / "run" / f"checkpoint-{step:08d}" / "model.safetensors").unlink()
    train(make_recipe(tmp_path / "run", PLAIN_MAE, max_steps=3, resume=True, save_total_limit=1))
    newest = checkpoints.newest_sound_checkpoint(tmp_path / "run")
    assert newest is not None and newest.name == "checkpoint-00000003"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 8}, r"other settings \(training.batch_size was 4, is now 8\), on which the order of the data"),
        ({"seed": 1, "report_to": ["tensorboard"]}, "order of the data"),  # before a tracker writes
        ({"gradient_accumulation_steps": 2}, r"\(training.gradient_accumulation_steps was 1, is now 2\)"),
        ({"seed": 1}, r"\(training.seed was 0, is now 1\)"),
        ({"model": PLAIN_MAE | {"hidden_size": 24}}, "model.hidden_size was 16, is now 24"),
        ({"model": {}}, "model.num_adaptation_steps was 0, is now"),
        ({"resume": False}, "pass --resume to continue"),
        (
            {"decay_norm_and_bias": False},
            r"\(training.decay_norm_and_bias was True, is now False\), which decides how",
        ),
    ],
)
def test_what_cannot_be_resumed_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, plain_run: Path
) -> None:
    shutil.copytree(plain_run, tmp_path / "run")
    if "report_to" in changes:
        pytest.importorskip("tensorboard")
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.name != LOCK_FILE]
    contents = {path: path.read_bytes() for path in files}
    settings = {"model": PLAIN_MAE, "resume": True, "max_steps": 8} | changes
    with pytest.raises(ValueError, match=message):
        train(make_recipe(tmp_path / "run", **settings))
    left = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.name != LOCK_FILE]
    assert contents == {path: path.read_bytes() for path in left}


def test_changed_data_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_recipe(tmp_path, PLAIN_MAE, max_steps=1))
    for steps in (2, 3):
        caplog.clear()
        train(make_recipe(tmp_path, PLAIN_MAE, {"max_train_samples": 20}, max_steps=steps, resume=True))
        told = f"{tmp_path}/checkpoint-00000001 was written with other data (data.max_train_samples was 42, is now 20)"
        assert (told in caplog.text) == (steps == 2)


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path, plain_run: Path) -> None:
    shutil.copytree(plain_run, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoint-00000006"
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"model_type": "metamae"', '"model_type": "vit_mae"'))
    (folder / "manifest.json").unlink()
    checkpoints.seal(folder, folder.with_name("checkpoint-00000007"))
    with pytest.raises(ValueError, match="checkpoint of model_type 'vit_mae', the recipe's model_type is 'metamae'"):
        train(make_recipe(tmp_path / "run", model=PLAIN_MAE, resume=True))


def test_the_best_checkpoint_is_completed_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "model": PLAIN_MAE,
        "data": {"validation_fraction": 0.2},
        "eval_steps": 2,
        "save_best": True,
        "save_steps": 2,
    }
    with monkeypatch.context() as patch:
        patch.setattr(saving, "copy_as", lambda source, final: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            train(make_recipe(tmp_path / "run", **settings))
    best = tmp_path / "run" / "checkpoint-best"
    assert not best.exists()
    _, state = train(make_recipe(tmp_path / "run", **settings | {"resume": True, "max_steps": 2}))
    assert state.best_step == 2
    assert_same_weights(weights(best), weights(tmp_path / "run" / "checkpoint-00000002"))


def test_settings_of_the_optimiser_are_those_of_the_recipe(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What an error about a loss that is not finite advises must have an effect, and be told."""
    settings = {"model": PLAIN_MAE, "warmup_steps": 2, "lr_scheduler_type": "linear", "max_steps": 8}
    for steps in ("run", "copy"):
        train(make_recipe(tmp_path / steps, **settings | {"max_steps": 4}))
    changes = {"learning_rate": 1e-4, "weight_decay": 0.3, "adam_beta1": 0.5, "adam_beta2": 0.7, "adam_epsilon": 1e-3}
    trainer, state = train(make_recipe(tmp_path / "run", **settings, **changes, resume=True))
    told = "training.learning_rate was 0.001, is now 0.0001; training.weight_decay was 0.0001, is now 0.3"
    assert f"checkpoint-00000004: {told}" in caplog.text and "training.max_steps was 4, is now 8" in caplog.text
    # Step 5 of 8, of which 2 are the warm-up: the rate falls to 0 over the 6 steps after it.
    rates = [entry["train/learning_rate"] for entry in state.history if entry["step"] > 4]
    assert rates == pytest.approx([1e-4 * (8 - step) / 6 for step in range(4, 8)])
    group = trainer.optimizer.param_groups[0]
    assert (group["weight_decay"], group["betas"], group["eps"]) == (0.3, (0.5, 0.7), 1e-3)
    caplog.clear()
    train(make_recipe(tmp_path / "copy", **settings | {"max_steps": 4}, resume=True))
    assert "From here on" not in caplog.text


class Hostile:
    """A pickle that writes a file when it is loaded as code."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize(
    "name",
    ["optimizer.bin", "random_states_0.pkl", "scaler.pt", "scheduler.bin", "sampler.bin", "custom_checkpoint_0.pkl"],
)
def test_no_file_of_a_checkpoint_runs_code(name: str, tmp_path: Path) -> None:
    """A file of a checkpoint with a manifest that fits is refused, or not read, if it holds more than data."""
    train(make_recipe(tmp_path / "run", model=PLAIN_MAE))
    folder = tmp_path / "run" / "checkpoint-00000004"
    for protocol in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))):
        protocol(Hostile(tmp_path / "trace"), folder / "training_state" / name)
        state = json.loads((folder / "trainer_state.json").read_text())
        if name == "custom_checkpoint_0.pkl":  # read where the state does not say how many updates there were
            state["updates"] = None
        (folder / "trainer_state.json").write_text(json.dumps(state))
        (folder / "manifest.json").unlink()
        checkpoints.seal(folder.rename(tmp_path / "run" / "aside"), folder)
        with contextlib.suppress(ValueError):
            train(make_recipe(tmp_path / "run", model=PLAIN_MAE, resume=True))
        assert not (tmp_path / "trace").exists()
