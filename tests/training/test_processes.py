"""Real processes: two of them in step, and one that is killed."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dense_runs import MULTIMAE, SCENES
from runs import (
    LABELLED,
    MIXED_MODEL,
    PLAIN_MAE,
    SMA_MODEL,
    SMA_TEXT_MODEL,
    TABLE_MODEL,
    TEXT_MODEL,
    UNIFIED_MODEL,
    assert_same_weights,
    draws_of_the_sample,
    make_recipe,
    queries_of_the_sample,
    tokens_of_the_sample,
    train,
    unified_data,
    weights,
    without_time,
    write_holes,
    write_mixed,
    write_recipe,
    write_text,
)
from text_runs import BERT_MODEL, write_sentences
from transformers import AutoModel, AutoModelForPreTraining

from forked import Script, launch, run_script
from hf_maskssl import MultiMAEForPretraining, SMAForMaskedModeling
from hf_maskssl.models.mask_sampling_metamae import MetaMAEMaskSampler
from hf_maskssl.training import RunState
from hf_maskssl.training.pretraining import checkpoints
from tiny_models import RGB

FOLDER = Path(__file__).resolve().parent
EXAMPLES = FOLDER.parents[1] / "examples"
FEW_SCENES = SCENES | {"num_scenes": {"train": 42, "validation": 8, "test": 1}, "scale": 1.0}
# The gradient of a key's bias is zero but for rounding, which AdamW would blow up.
NO_KEY_BIAS = MULTIMAE | {"qkv_bias": False}
ON_CPU = {"ACCELERATE_USE_CPU": "true"}


def assert_one_run(folder: Path, state: RunState, expected: Path) -> None:
    """Two processes logged and learnt what one did with batches of twice the size."""
    found = RunState(**checkpoints.read_state(folder))
    assert found.layout["num_processes"] == 2
    assert len(found.history) == len(state.history)
    for mine, theirs in zip(found.history, state.history, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-5)
    assert checkpoints.list_checkpoints(folder)[-1].name == f"checkpoint-{found.step:08d}"
    AutoModel.from_pretrained(folder)
    for name, value in weights(expected).items():
        torch.testing.assert_close(weights(folder)[name], value, rtol=1e-3, atol=2e-4)
    first, second = (torch.load(folder / f"process-{process}.pt") for process in (0, 1))
    named = {key.removeprefix("module."): part for key, part in first.items()}
    # A tied weight has a second name in memory.
    assert_same_weights({key: named[key] for key in weights(folder)}, weights(folder))
    if second:  # FSDP gathers the weights on the main process alone
        assert_same_weights(first, second)


def recipes_for_two(tmp_path: Path) -> dict[str, dict[str, Any]]:
    digits = LABELLED | {"validation_fraction": 0.01}
    every = {"max_steps": 8, "logging_steps": 2, "learning_rate": 1e-3}
    return {
        "digits": {
            **every,
            "data": digits,
            "probe": {"every_steps": 4, "max_samples": 20, "k": 3},
            "eval_steps": 4,
            "picture_steps": 4,
            "gradient_accumulation_steps": 2,
            "max_grad_norm": 1.0,
        },
        "ragged_stream": {
            **every,
            "model": TEXT_MODEL,
            "data": write_text(tmp_path / "text.txt") | {"streaming": True},
            "max_steps": 12,
        },
        "sma": {**every, "model": SMA_TEXT_MODEL, "data": write_text(tmp_path / "text.txt")},
        "holed_table": {
            **every,
            "model": TABLE_MODEL,
            "data": write_holes(tmp_path / "table.csv") | {"validation_fraction": 0.2},
            "probe": {"every_steps": 4, "max_samples": 20, "k": 3},
            "eval_steps": 4,
        },
        "mixed_table": {**every, "model": MIXED_MODEL, "data": write_mixed(tmp_path / "mixed.csv")},
        # Crops follow epoch and row; losses and weights are those of both processes and both accumulated batches.
        "multimae": {
            **every,
            "model": NO_KEY_BIAS | {"task_balancing": "minimax"},
            "data": FEW_SCENES | {"augment": True},
            "gradient_accumulation_steps": 2,
        },
        "unified": {
            **every,
            "model": UNIFIED_MODEL | {"task_balancing": "minimax"},
            "data": unified_data(write_holes(tmp_path / "part.csv")),
            "gradient_accumulation_steps": 2,
        },
        "interrupted": {"model": {"num_adaptation_steps": 2}, "resume": True, "logging_steps": 100},
    }


def test_two_processes_are_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = recipes_for_two(tmp_path)
    files = []
    for name, fields in cases.items():
        files.append(write_recipe(make_recipe(tmp_path / name, **fields), tmp_path / f"{name}.yaml"))
    words = [str(FOLDER / "launched.py"), *map(str, [*files, files[-1]])]
    errors = launch(EXAMPLES / "accelerate" / "two_cpu_processes.yaml", words).stderr
    # Both at the same step, though only one was told.
    assert "SIGTERM, SIGUSR1 or Ctrl-C in another process: stopped and saved at step 3" in errors
    assert errors.count("checkpoint-00000003 at step 3.") == 1  # one process speaks
    monkeypatch.setattr(MetaMAEMaskSampler, "draw", draws_of_the_sample)
    monkeypatch.setattr(SMAForMaskedModeling, "_choose_queries", queries_of_the_sample)
    monkeypatch.setattr(MultiMAEForPretraining, "_draw_visible", tokens_of_the_sample)
    for name, fields in cases.items():
        _, state = train(make_recipe(tmp_path / f"{name}-alone", **fields, batch_size=8))
        assert_one_run(tmp_path / name, state, tmp_path / f"{name}-alone")
    assert (tmp_path / "digits" / "pictures" / "reconstruction-00000008.png").exists()


def words_for_two(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Models with an output layer over a vocabulary that is tied to the input embedding."""
    text = write_text(tmp_path / "text.txt")
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return {
        "sma_tied": {"model": SMA_TEXT_MODEL | {"tie_word_embeddings": True}, "data": text},
        "bert": {"model": BERT_MODEL | no_dropout, "data": write_sentences(tmp_path, {"train": 12})},
    }


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["bert"], id="bert"),
        pytest.param(["image", "text", "sma", "multimae", "sma_tied", "guided"], id="others", marks=pytest.mark.slow),
        pytest.param(["accumulated"], id="accumulated", marks=pytest.mark.slow),
    ],
)
def test_fsdp_trains_saves_resumes_and_its_model_loads(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain MAE, whose forward pass takes no gradient, and SMA, which scores with the first layer before it runs.

    Words are read off the embedding's table after its own forward.
    """
    config = yaml.safe_load((EXAMPLES / "accelerate" / "fsdp2.yaml").read_text())
    del config["use_cpu"]
    (tmp_path / "fsdp.yaml").write_text(yaml.safe_dump(config | {"num_processes": 2, "mixed_precision": "no"}))
    text = {"model": TEXT_MODEL | PLAIN_MAE, "data": write_text(tmp_path / "text.txt")}
    image = {
        "model": PLAIN_MAE,
        "data": LABELLED | {"validation_fraction": 0.01},
        "probe": {"every_steps": 2, "max_samples": 20, "k": 3},
        "eval_steps": 2,
        "picture_steps": 2,
        "max_grad_norm": 1.0,
    }
    sma = {"model": SMA_MODEL, "picture_steps": 2}
    multimae = {"model": NO_KEY_BIAS | {"task_balancing": "uncertainty"}, "data": FEW_SCENES, "picture_steps": 2}
    guided = {"model": PLAIN_MAE | {"masking": "guided", "initializer_range": 0.3}}
    cases = {"image": image, "text": text, "sma": sma, "multimae": multimae, "guided": guided}
    # Texts of several lengths: batches are weighed by their masked tokens.
    cases |= {"accumulated": text | {"gradient_accumulation_steps": 2}}
    cases |= words_for_two(tmp_path)
    cases = {name: cases[name] for name in names}
    files = []
    for name, fields in cases.items():
        for steps in (2, 4):  # the second goes on where the first ended
            recipe = make_recipe(tmp_path / name, **fields, max_steps=steps, resume=True, save_total_limit=1)
            files.append(write_recipe(recipe, tmp_path / f"{name}-{steps}.yaml"))
    errors = launch(tmp_path / "fsdp.yaml", [str(FOLDER / "launched.py"), *map(str, files)]).stderr
    assert errors.count("checkpoint-00000002 at step 2.") == len(cases)  # each resumed; one process speaks
    monkeypatch.setattr(MetaMAEMaskSampler, "draw", draws_of_the_sample)
    monkeypatch.setattr(SMAForMaskedModeling, "_choose_queries", queries_of_the_sample)
    monkeypatch.setattr(MultiMAEForPretraining, "_draw_visible", tokens_of_the_sample)
    for name, fields in cases.items():
        _, state = train(make_recipe(tmp_path / f"{name}-alone", **fields, batch_size=8))
        assert_one_run(tmp_path / name, state, tmp_path / f"{name}-alone")
        _, info = AutoModelForPreTraining.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not any(info.values())


# ---- one process ---------------------------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {
    "model": {"hidden_dropout_prob": 0.2},
    "gradient_accumulation_steps": 2,
    "save_steps": 3,
    "logging_steps": 2,
    "save_total_limit": 100,
}


def test_sigkill_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed_at: Callable[[], list[int]]
) -> None:
    file = write_recipe(make_recipe(tmp_path / "killed", **SETTINGS, max_steps=9), tmp_path / "recipe.yaml")
    ended = run_script([str(FOLDER / "launched.py"), str(file)], environment=ON_CPU | {"DIE_AT": "6"})
    assert ended.returncode == -signal.SIGKILL, ended.stderr[-20000:]
    assert list((tmp_path / "killed").glob("checkpoint-00000006.*.incomplete"))
    assert checkpoints.newest_sound_checkpoint(tmp_path / "killed") == tmp_path / "killed" / "checkpoint-00000003"
    monkeypatch.setattr(MetaMAEMaskSampler, "draw", draws_of_the_sample)
    _, resumed = train(make_recipe(tmp_path / "killed", **SETTINGS, max_steps=9, resume=True))
    assert resumed_at() == [3]
    _, expected = train(make_recipe(tmp_path / "whole", **SETTINGS, max_steps=9))
    assert_same_weights(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert without_time(resumed) == without_time(expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_signal_at_any_moment(number: signal.Signals, tmp_path: Path, resumed_at: Callable[[], list[int]]) -> None:
    """SIGTERM, to workers too, saves and exits with 0; SIGKILL leaves the last checkpoint. Both runs can be resumed."""
    recipe = make_recipe(tmp_path / "run", **SETTINGS, max_steps=10_000, num_workers=1)
    file = write_recipe(recipe, tmp_path / "recipe.yaml")
    process = Script([str(EXAMPLES / "run_pretrain.py"), str(file)], ON_CPU)
    deadline = time.monotonic() + 100
    while not (tmp_path / "run" / "checkpoint-00000003").exists():
        assert not process.has_ended and time.monotonic() < deadline
        time.sleep(0.02)
    process.signal(number)
    ended = process.wait()
    errors = ended.stderr
    assert ended.returncode == (0 if number == signal.SIGTERM else -number), errors[-5000:]
    newest = checkpoints.newest_sound_checkpoint(tmp_path / "run")
    assert newest is not None
    AutoModel.from_pretrained(newest)
    state = checkpoints.read_state(newest)
    assert state["interrupted"] == (number == signal.SIGTERM)
    if number == signal.SIGTERM:
        assert f"SIGTERM: stopped and saved at step {state['step']}" in errors
    steps = state["step"] + 2
    train(make_recipe(tmp_path / "run", **SETTINGS, max_steps=steps, resume=True))
    assert resumed_at() == [state["step"]]
    train(make_recipe(tmp_path / "whole", **SETTINGS | {"save_steps": 0}, max_steps=steps))
    assert_same_weights(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def begun_for_two(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """A run of each method that begins from another's weights, most of them with another input."""
    train(make_recipe(tmp_path / "digits", {"image_size": [8, 8]}, max_steps=2))
    train(make_recipe(tmp_path / "sma", SMA_MODEL | {"image_size": [8, 8]}, max_steps=2))
    rgb = NO_KEY_BIAS | {"modalities": {"rgb": RGB}}
    train(make_recipe(tmp_path / "rgb", rgb, FEW_SCENES | {"input_column": {"rgb": "rgb"}}, max_steps=2))
    sentences = write_sentences(tmp_path, {"train": 12})
    bert = BERT_MODEL | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    train(make_recipe(tmp_path / "bert", bert, sentences, max_steps=2))
    every: dict[str, Any] = {"max_steps": 4, "save_steps": 2}
    more = SMA_MODEL | {"decoder_mask_token": True, "decoder_shared_positions": False}
    added = {"model": NO_KEY_BIAS, "data": FEW_SCENES, "init_freeze": True}
    begun: dict[str, dict[str, Any]] = {
        "digits": {},
        "sma": {"model": more},
        "rgb": added,
        "bert": {"model": bert | {"max_position_embeddings": 64}, "data": sentences},
    }
    return {name: {**every, **fields, "init_from": str(tmp_path / name)} for name, fields in begun.items()}


def test_two_processes_begin_from_a_checkpoint_and_are_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New and interpolated weights are the same on both; a resumed run does not need what it began from."""
    cases = begun_for_two(tmp_path)
    config, script = EXAMPLES / "accelerate" / "two_cpu_processes.yaml", str(FOLDER / "launched.py")

    def run(ending: str, **changes: Any) -> None:
        files = []
        for name, fields in cases.items():
            recipe = make_recipe(tmp_path / f"{name}-{ending}", **fields, **changes)
            files.append(str(write_recipe(recipe, tmp_path / f"{name}-{ending}.yaml")))
        launch(config, [script, *files])

    run("two")
    monkeypatch.setattr(MetaMAEMaskSampler, "draw", draws_of_the_sample)
    monkeypatch.setattr(SMAForMaskedModeling, "_choose_queries", queries_of_the_sample)
    monkeypatch.setattr(MultiMAEForPretraining, "_draw_visible", tokens_of_the_sample)
    for name, fields in cases.items():
        _, state = train(make_recipe(tmp_path / f"{name}-alone", **fields, batch_size=8))
        assert_one_run(tmp_path / f"{name}-two", state, tmp_path / f"{name}-alone")
    before, after = weights(tmp_path / "rgb"), weights(tmp_path / "rgb-two")
    assert_same_weights({key: after[key] for key in before}, before)
    for name in cases:
        shutil.copytree(tmp_path / f"{name}-two", tmp_path / f"{name}-again")
        shutil.rmtree(tmp_path / f"{name}-again" / "checkpoint-00000004")
        shutil.rmtree(tmp_path / name)
    run("again", resume=True)
    for name in cases:
        assert RunState(**checkpoints.read_state(tmp_path / f"{name}-again")).step == 4
        assert_same_weights(weights(tmp_path / f"{name}-again"), weights(tmp_path / f"{name}-two"))
