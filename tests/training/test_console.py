"""What a run says from its start to its end: every line on a terminal of 80 columns, in a file, and as JSON."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from finetuning_runs import make_finetuning
from runs import LABELLED, make_recipe, train, weights, write_recipe
from safetensors.torch import save_file

from forked import launch
from hf_maskssl.evaluation import features
from hf_maskssl.terminal import one_voice
from hf_maskssl.training import load_pretraining_recipe
from hf_maskssl.training.finetuning import sweep
from hf_maskssl.training.pretraining.console import next_commands, title
from screens import logged, terminal, unexpected

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
N = r"-?[\d.,]+(e-?\d+)?"  # a number
WATCHED: dict[str, Any] = {
    "data": {"validation_fraction": 0.2} | LABELLED,
    "probe": {"every_steps": 2, "max_samples": 20, "k": 3},
    "eval_steps": 2,
    "picture_steps": 2,
}
DATA = (
    r"data: \w+, kind \w+",
    r"(train|validation|test): [\d,]+ rows",
    r"  left out: [\d,]+ rows, data\.max_\w+_samples",
    r"  \d+ classes: .*",
    r"    [\d, ]+",
    r"columns: .*",
)
START = (
    rf"model: metamae, {N} parameters",
    r"device: cpu with 1 thread, float32, 1 process",
    r"step: 4 rows \(4 x 1 process x 1 forward pass\)",
    rf"steps: 4, or {N} epochs of \d+ rows",
    r"output: run",
)
LOOKS = (
    rf"untrained: (validation loss {N}|linear accuracy {N}, kNN {N})",
    rf"step [24]: validation loss {N} \(untrained {N}\)",
    rf"step [24]: linear accuracy {N} \(untrained {N}\), kNN {N} \({N}\)",
)
END = (
    rf"finished: 4 steps in .* (s|min), loss {N}",
    rf"best: validation loss {N} at step [24]",
    rf"probe: linear accuracy {N} -> {N}, kNN {N} -> {N}, RankMe {N} -> {N}",
    r"model: run",
    r"pictures: run/pictures \(3 files\)",
    r"next:",
    r"  hf-maskssl probe run run/recipe\.yaml",
    r"  hf-maskssl embed run run/recipe\.yaml --output run-features\.parquet",
    r"  hf-maskssl publish run you/run --dry_run",
)
MOVING = rf"(step \d/4, [\d:?]+ left(, \w+ {N})*)? *"
LINE = rf"step \d/4, [\d:?]+ left, loss {N}(, (support|reconstruction|contrastive) {N}){{2,3}}"


def test_each_line_of_a_run_is_a_known_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank_pictures: None
) -> None:
    monkeypatch.chdir(tmp_path)
    with terminal(monkeypatch) as screen:
        train(make_recipe(Path("run"), **WATCHED))
    allowed = [*DATA, *START, *LOOKS, *END]
    assert unexpected(screen.lines(), allowed) == []
    for pattern in (*START, *LOOKS, *END):
        assert any(re.fullmatch(pattern, line) for line in screen.lines()), pattern
    assert "\x1b" not in screen.text and max(map(len, screen.pieces())) <= screen.width
    # What stood on the line that moves.
    assert unexpected(screen.pieces(), [*allowed, MOVING]) == []
    assert any(re.fullmatch(LINE, piece) for piece in screen.pieces())


def test_a_file_gets_the_same_lines_and_no_carriage_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with logged():
        train(make_recipe(Path("run"), logging_steps=2))
    captured = capsys.readouterr()
    assert "\r" not in captured.err and "\x1b" not in captured.err and captured.out == ""
    lines = captured.err.splitlines()
    assert unexpected(lines, [*DATA, *START, LINE, *END]) == []
    assert [line.partition(",")[0] for line in lines if line.startswith("step ")] == ["step 2/4", "step 4/4"]
    assert not any("hf-maskssl probe" in line for line in lines)  # there are no labels


def test_a_quiet_run_says_nothing_and_json_is_all_of_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], blank_pictures: None
) -> None:
    with terminal(monkeypatch) as screen:
        _, state = train(make_recipe(tmp_path / "run", **WATCHED, quiet=True, json_log=True))
    assert screen.text == ""
    start, *logs, end = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [start["event"], end["event"]] == ["start", "end"] and {log["event"] for log in logs} == {"log"}
    assert (start["rows_per_step"], start["max_steps"], start["output_dir"]) == (4, 4, str(tmp_path / "run"))
    merged: dict[int, dict[str, float]] = {}
    for log in logs:
        merged.setdefault(log["step"], {}).update({name: log[name] for name in log if name != "event"})
    assert list(merged.values()) == state.history
    assert end["best_loss"] == min(row["validation/loss"] for row in state.history[1:] if "validation/loss" in row)


def test_a_run_writes_a_recipe_that_is_the_run(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path / "run", max_steps=1)
    train(recipe)
    assert load_pretraining_recipe(tmp_path / "run" / "recipe.yaml") == recipe


@pytest.mark.parametrize(("steps", "drawn"), [(1, 1), (4, 4), (5, 5), (1500, 5), (1501, 5)])
def test_pictures_are_five_a_run_unless_the_recipe_says_otherwise(steps: int, drawn: int, tmp_path: Path) -> None:
    every = make_recipe(tmp_path, max_steps=steps, picture_steps=None).training.steps_between_pictures
    assert len({min(step, steps) for step in range(every, steps + every, every)}) == drawn
    assert make_recipe(tmp_path, max_steps=steps, picture_steps=0).training.steps_between_pictures == 0


def test_the_untrained_model_is_never_the_best(tmp_path: Path) -> None:
    recipe = make_recipe(
        tmp_path, data={"validation_fraction": 0.2}, eval_steps=2, save_best=True, learning_rate=1e-12
    )
    _, state = train(recipe)
    assert state.history[0]["step"] == 0 and "validation/loss" in state.history[0]
    assert state.best_step in (2, 4) and (tmp_path / "checkpoint-best").is_dir()


def test_names_in_words() -> None:
    named = {
        "validation/loss": "validation loss",
        "probe/linear_accuracy": "linear accuracy",
        "probe/knn_accuracy": "kNN",
    }
    assert {name: title(name) for name in named} == named
    assert next_commands(Path("a run"), True)[0] == "  hf-maskssl probe 'a run' 'a run/recipe.yaml'"


FINETUNING = (
    *DATA,
    r"(train|validation|test) split: \d+ of \d+ texts are as long as the \d+ tokens that the model( reads, or)?",
    r"  (reads, or )?longer and cut there",
    r"model: metamae from random weights",
    r"task: classification, 2 outputs, chosen by accuracy",
    r"device: cpu with 1 thread, float32, 1 process",
    r"step: 8 rows \(8 x 1 process x 1 forward pass\)",
    r"steps: 12 a run, or 2 epochs of 48 rows",
    r"runs: 1: 1 seed x 1 learning rate",
    r"output: run",
    rf"learning rate 0\.01, seed 0: {N} parameters",
    rf"learning rate 0\.01, seed 0, epoch [12]: validation accuracy {N}",
    r"results: run/results\.md, results\.json",
    r"pictures: .*",
    r"  run/pictures/.*",
    r"model: run/model \(seed 0\)",
    r"next:",
    r"  hf-maskssl publish run/model you/run --dry_run",
)


def test_each_line_of_fine_tuning_is_a_known_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], blank_pictures: None
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = make_finetuning(tmp_path, num_train_epochs=2.0, seeds=[0], logging_steps=4)
    recipe.finetuning.output_dir = "run"
    monkeypatch.setattr(sweep, "load_finetuning_recipe", lambda path, overrides: recipe)
    monkeypatch.setattr("sys.argv", ["run_finetune.py", "recipe.yaml"])
    with terminal(monkeypatch) as screen:
        sweep.finetune_from_command_line("")
    moving = rf"(step \d+/12, [\d:?]+ left(, loss {N}, epoch {N})?)? *"
    assert unexpected(screen.lines(), FINETUNING) == []
    assert unexpected(screen.pieces(), [*FINETUNING, moving]) == []
    assert "\x1b" not in screen.text and max(map(len, screen.pieces())) <= screen.width
    printed = capsys.readouterr().out.splitlines()
    assert "accuracy (%)" in printed[2] and max(map(len, printed)) <= screen.width


def test_fine_tuning_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], blank_pictures: None
) -> None:
    recipe = make_finetuning(
        tmp_path, num_train_epochs=1.0, seeds=[0], logging_steps=3, quiet=True, json_log=True, save_model=False
    )
    monkeypatch.setattr(sweep, "load_finetuning_recipe", lambda path, overrides: recipe)
    monkeypatch.setattr("sys.argv", ["run_finetune.py", "recipe.yaml"])
    with terminal(monkeypatch) as screen:
        sweep.finetune_from_command_line("")
    assert screen.text == ""
    start, *logs, end = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [start["event"], end["event"]] == ["start", "end"] and start["steps"] == 6
    assert any("eval_accuracy" in log for log in logs) and [log["step"] for log in logs if "loss" in log] == [3, 6]
    assert end["scores"] == json.loads((tmp_path / "run" / "results.json").read_text())["scores"]


def test_loading_an_encoder_tells_of_weights_that_it_lacks_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    train(make_recipe(tmp_path, max_steps=1))
    capfd.readouterr()
    with one_voice():
        features.load_encoder(tmp_path)
        assert capfd.readouterr().err == "" and "lacks" not in caplog.text  # the decoder goes without saying
        kept = weights(tmp_path)
        name = next(name for name in kept if "layers.1" in name and name.startswith("metamae."))
        save_file(
            {other: kept[other] for other in kept if other != name}, tmp_path / "model.safetensors", {"format": "pt"}
        )
        features.load_encoder(tmp_path)
    assert f"lacks 1 weights of its encoder, which are random: {name.partition('.')[2]}" in caplog.text


@pytest.mark.slow
def test_one_of_two_processes_speaks(tmp_path: Path) -> None:
    path = write_recipe(make_recipe(tmp_path / "run", **WATCHED), tmp_path / "recipe.yaml")
    ended = launch(EXAMPLES / "accelerate" / "two_cpu_processes.yaml", [str(EXAMPLES / "run_pretrain.py"), str(path)])
    lines = ended.stderr.splitlines()
    for word in ("data: digits", "model: metamae", "untrained: validation", "finished: 4 steps", "next:"):
        assert len([line for line in lines if line.startswith(word)]) == 1, ended.stderr
    allowed = [
        *DATA,
        *LOOKS,
        *END,
        r"model: .*",
        r"device: .*, 2 processes",
        r"steps?: .*",
        r"output: .*",
        r"pictures: .*",
    ]
    allowed += [LINE, r"  hf-maskssl .*", r"    .*"]
    assert unexpected(lines, allowed) == []
    assert "\x1b" not in ended.stderr and "\r" not in ended.stderr
