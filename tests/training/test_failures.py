"""What goes wrong is said at once, by name, and leaves nothing half-written."""

import math
import signal
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from runs import LABELLED, PLAIN_MAE, make_recipe, train, weights, write_recipe

from forked import run_script
from hf_maskssl.annotation.pseudo_labels import PseudoLabelArguments, make_pseudo_labels
from hf_maskssl.commands import pretrain as command
from hf_maskssl.hub.publish import UploadError
from hf_maskssl.launch import LONGEST_WAIT
from hf_maskssl.scripts import run_script as run_main
from hf_maskssl.training import NonFiniteLossError, OnlineProbe, Pretrainer, PretrainingArguments, RunState
from hf_maskssl.training.finetuning.sweep import Finetuner
from hf_maskssl.training.pretraining import checkpoints
from hf_maskssl.training.pretraining.building import build_model
from hf_maskssl.training.pretraining.signals import STOPPING, PatientWorkers, StopSignals
from hf_maskssl.training.pretraining.window import LossWindow

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "run_pretrain.py"


def poison(monkeypatch: pytest.MonkeyPatch, step: int, value: float, what: str) -> None:
    """Spoil the loss of a step, or its gradient alone."""
    original = Pretrainer._step

    def spoilt(self: Pretrainer, batches: Any) -> None:
        if self.state.step + 1 == step and what == "loss":
            self.model.metamae.norm.bias.data[0] = value
        if self.state.step + 1 == step and what == "gradient":
            bias = self.model.metamae.norm.bias
            bias.register_hook(lambda gradient: torch.full_like(gradient, value))
        original(self, batches)

    monkeypatch.setattr(Pretrainer, "_step", spoilt)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 5, value, "loss")
    rows: list[list[int]] = []
    original = LossWindow.add

    def record(self: LossWindow, step: int, index: torch.Tensor, parts: dict[str, torch.Tensor]) -> None:
        rows.append(index.tolist())
        original(self, step, index, parts)

    monkeypatch.setattr(LossWindow, "add", record)
    recipe = make_recipe(tmp_path, PLAIN_MAE, max_steps=8, save_steps=2)
    with pytest.raises(NonFiniteLossError) as caught:
        train(recipe)
    message = str(caught.value)
    assert message.startswith("the loss is nan at step 5 on process 0") or message.startswith(
        "the loss is inf at step 5"
    )
    assert str(rows[4]) in message and len(rows) == 5
    assert str(tmp_path / "checkpoint-00000004") in message
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path)] == [
        "checkpoint-00000002",
        "checkpoint-00000004",
    ]
    assert all(value.isfinite().all() for value in weights(tmp_path / "checkpoint-00000004").values())


def test_weights_spoilt_by_the_gradient_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, 2, math.nan, "gradient")
    with pytest.raises(
        NonFiniteLossError, match=r"weights are NaN or infinite after step 2.*rows are \[\d+, .*none yet"
    ):
        train(make_recipe(tmp_path, PLAIN_MAE, save_steps=2))
    assert not list(tmp_path.glob("checkpoint*"))


SET_UP_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "no_validation": ({"eval_steps": 1}, "training.eval_steps needs validation data: name data.validation_split"),
    "no_labels": ({"probe": {"every_steps": 3}}, "data.label_column: the online probe needs labels"),
    "nothing_held_out": (
        {"probe": {"every_steps": 3}, "data": {"label_column": "label"}},
        "probe.every_steps: the online probe needs held-out rows",
    ),
    "metric_of_another_task": (
        {"probe": {"every_steps": 3, "metric": "spearman"}, "data": LABELLED},
        "probe.metric: 'spearman' does not measure a classification task",
    ),
    "fewer_rows_than_a_batch": (
        {"batch_size": 43},
        r"training split has 42 rows, fewer than one batch of training.batch_size=43.*to 42 or less",
    ),
    "unknown_tracker": ({"report_to": ["tensorbord"]}, r"training.report_to=\['tensorbord'\].*tensorboard"),
    "precision": ({"mixed_precision": "fp16"}, "training.mixed_precision 'fp16' needs a GPU"),
    "wrong_channels": ({"model": {"num_channels": 3}}, "channel"),
    "unknown_model_field": (
        {"model": {"hiden_size": 3}},
        "unknown field model.hiden_size .did you mean 'hidden_size'",
    ),
    "nothing_visible": ({"model": {"mask_ratio": 0.99}}, "mask_ratio"),
}


@pytest.mark.parametrize("case", SET_UP_ERRORS)
def test_errors_come_before_training(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        pytest.fail("training began")

    monkeypatch.setattr(Pretrainer, "_step", refuse)
    monkeypatch.setattr(OnlineProbe, "look", refuse)
    changes, message = SET_UP_ERRORS[case]
    with pytest.raises(ValueError, match=message):
        train(make_recipe(tmp_path / "run", **changes))
    assert not list((tmp_path / "run").iterdir())


def test_processes_wait_for_the_one_that_prepares_the_data(tmp_path: Path) -> None:
    handler = Pretrainer(make_recipe(tmp_path)).accelerator.init_handler
    assert handler is not None and handler.timeout == LONGEST_WAIT


def test_a_tracker_whose_package_is_absent_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
    with pytest.raises(ValueError, match="training.report_to: the package of tensorboard is not installed"):
        Pretrainer(make_recipe(tmp_path, report_to=["tensorboard"]))


def test_an_output_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"training.output_dir .*file/run cannot be written: .*Name a folder"):
        Pretrainer(make_recipe(tmp_path / "file" / "run"))


def test_a_stream_without_a_full_batch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gave no full batch of training.batch_size=64"):
        train(make_recipe(tmp_path, PLAIN_MAE, {"streaming": True}, batch_size=64))


def test_fsdp_is_refused_with_the_reason(tmp_path: Path) -> None:
    trainer = Pretrainer(make_recipe(tmp_path))
    trainer.accelerator = SimpleNamespace(distributed_type=DistributedType.FSDP)  # type: ignore[assignment]
    with pytest.raises(
        ValueError, match="MetaMAEForPretraining cannot be sharded by FSDP. MetaMAE takes a gradient inside"
    ):
        build_model(trainer.recipe, trainer.accelerator)


def test_fsdp_where_accelerate_would_silently_not_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="launch asks for FSDP, which Accelerate does not do on the device 'cpu'"):
        Pretrainer(make_recipe(tmp_path, PLAIN_MAE))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_steps": 0}, "training.max_steps: expected at least 1, got 0"),
        ({"batch_size": 0}, "training.batch_size"),
        ({"learning_rate": 0.0}, "training.learning_rate: expected a number above 0, got 0.0"),
        ({"max_grad_norm": -1.0}, "training.max_grad_norm"),
        ({"warmup_steps": 11, "max_steps": 10}, "training.warmup_steps=11 is more than training.max_steps=10"),
        ({"save_best": True}, "training.save_best needs a validation loss"),
        ({"push_to_hub": True}, "training.push_to_hub needs training.hub_model_id"),
        ({"hub_model_id": "name"}, "training.hub_model_id must be 'organisation/name'"),
        ({"hub_model_id": "org/na me"}, "training.hub_model_id: "),
    ],
)
def test_arguments_that_cannot_work(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainingArguments(**fields)


@pytest.mark.parametrize("number", STOPPING)
def test_signals_are_noticed_inside_the_context_only(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        signal.raise_signal(number)
        assert signals.received == number.name
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_ends_at_once() -> None:
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # as a launcher sends it to its processes after Ctrl-C
        assert signals.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_saves_and_stops(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = Pretrainer._step

    def step(self: Pretrainer, batches: Any) -> None:
        original(self, batches)
        if self.state.step == 3:
            signal.raise_signal(number)

    monkeypatch.setattr(Pretrainer, "_step", step)
    _, state = train(make_recipe(tmp_path, PLAIN_MAE, logging_steps=50))
    assert f"{number.name}: stopped and saved at step 3" in caplog.text
    assert state.interrupted and state.step == 3
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path)] == ["checkpoint-00000003"]
    assert not (tmp_path / "config.json").exists()  # the run is not complete
    monkeypatch.undo()
    _, state = train(make_recipe(tmp_path, PLAIN_MAE, logging_steps=50, resume=True))
    assert state.step == 4 and not state.interrupted


@pytest.mark.slow
def test_an_error_in_a_worker_process_ends_the_run(tmp_path: Path) -> None:
    """Workers ignore SIGTERM while a run lasts: nothing may wait for them to die of it."""
    rows = [f"{row},{row % 7},{'' if row == 30 else row % 3}" for row in range(42)]
    (tmp_path / "rows.csv").write_text("\n".join(["a,b,c", *rows]))
    data = {"source": "csv", "data_files": str(tmp_path / "rows.csv"), "kind": "tabular", "scale": 1.0, "cache": False}
    data |= {"standardize": "none", "max_train_samples": None, "missing": "error"}
    model = PLAIN_MAE | {"modality": "series", "series_length": 3, "patch_size": 1, "mask_ratio": 0.4}
    recipe = make_recipe(tmp_path / "run", model, data, num_workers=2, max_steps=50)
    ended = run_script([str(EXAMPLE), str(write_recipe(recipe, tmp_path / "recipe.yaml"))])
    assert ended.returncode == 2 and "row 30" in ended.stderr.splitlines()[-1]


def test_workers_die_of_sigterm_when_the_run_is_over() -> None:
    patience = PatientWorkers()
    context = torch.multiprocessing.get_context("fork")
    ready = context.Event()

    def work() -> None:
        patience(0)
        ready.set()
        while True:
            time.sleep(0.01)

    worker = context.Process(target=work, daemon=True)
    worker.start()
    assert ready.wait(20)
    worker.terminate()
    worker.join(0.3)
    assert worker.is_alive()
    patience.end()
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0


@pytest.mark.parametrize("build", [Pretrainer, Finetuner, make_pseudo_labels])
def test_processes_that_do_not_know_of_each_other_are_refused(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `accelerate launch` of two processes on the CPU without ACCELERATE_USE_CPU."""
    PartialState(cpu=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments: dict[Any, Any] = {
        Pretrainer: make_recipe(tmp_path),
        Finetuner: SimpleNamespace(finetuning=SimpleNamespace(output_dir=str(tmp_path))),
        make_pseudo_labels: PseudoLabelArguments(output_dir=str(tmp_path)),
    }
    with pytest.raises(ValueError, match="launch started 2 processes .*Accelerate sees 1.*ACCELERATE_USE_CPU=true"):
        build(arguments[build])


# ---- the example script ------------------------------------------------------------------------------------------


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, list[tuple[Any, ...]]]:
    """`hf-maskssl pretrain` with a run that is over at once and an upload that only notes its arguments."""
    uploads: list[tuple[Any, ...]] = []
    monkeypatch.setattr(command, "pretrain", lambda recipe, write_card: RunState(step=4))
    monkeypatch.setattr(command, "publish", lambda *words, **options: uploads.append((*words, options)))
    recipe = write_recipe(make_recipe(tmp_path / "run"), tmp_path / "recipe.yaml")
    words = ["run_pretrain.py", str(recipe), "--push_to_hub", "--hub_model_id", "org/name", "--hub_private"]
    monkeypatch.setattr("sys.argv", words)
    return command, uploads


def test_the_example_publishes_from_the_main_process(example: Any, tmp_path: Path) -> None:
    module, uploads = example
    module.main()
    assert uploads == [(str(tmp_path / "run"), "org/name", {"private": True})]


def test_the_example_publishes_from_no_other_process(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, uploads = example
    monkeypatch.setattr(PartialState, "is_main_process", False)
    module.main()
    assert uploads == []


def test_the_example_publishes_no_interrupted_run(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, uploads = example
    monkeypatch.setattr(command, "pretrain", lambda recipe, write_card: RunState(step=2, interrupted=True))
    module.main()
    assert uploads == []


def test_a_failed_upload_says_how_to_try_again(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _ = example

    def fail(*_: Any, **__: Any) -> None:
        raise UploadError(
            "the upload to org/name failed: no network\nTry again with:\n  python -m hf_maskssl.hub.publish"
        )

    monkeypatch.setattr(command, "publish", fail)
    with pytest.raises(SystemExit, match="^the upload to org/name failed: .* python -m hf_maskssl.hub.publish"):
        run_main(module.main)
