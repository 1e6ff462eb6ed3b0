"""Steps recorded as CUDA graphs learn what steps without them learn; and what cannot be recorded is refused.

On the CPU a recorder takes the place of CUDA's that replays a step by calling it again on the tensors it was recorded with.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from runs import (
    PLAIN_MAE,
    SMA_MODEL,
    SMA_TEXT_MODEL,
    TEXT_MODEL,
    Killed,
    assert_same_weights,
    make_recipe,
    train,
    weights,
    without_time,
    write_text,
)
from text_runs import BERT_MODEL, write_sentences

from hf_maskssl.data.preparation import PreparedData
from hf_maskssl.models.pretraining import MaskedPretraining
from hf_maskssl.training import NonFiniteLossError, Pretrainer, PretrainingArguments, RunState
from hf_maskssl.training.pretraining import building, graphs, loop
from hf_maskssl.training.pretraining.graphs import DeviceRates, StepGraphs, StepOutputs
from hf_maskssl.training.pretraining.seeds import mix

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))
import multimae_cases  # noqa: E402

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="stands in for a GPU that is there")
# A number that float32 holds exactly, as which a recorded step reads it.
RATE = 2.0**-10


class CallRecorder:
    """In place of `CudaRecorder`: outputs stay where they were written first, as in a graph."""

    made: list["CallRecorder"] = []

    def __init__(self, device: torch.device) -> None:
        self.num_recorded = 0
        CallRecorder.made.append(self)

    def run(self, step: Callable[[], StepOutputs]) -> StepOutputs:
        return step()

    def record(self, step: Callable[[], StepOutputs]) -> tuple[Callable[[], None], StepOutputs]:
        self.num_recorded += 1
        outputs = StepOutputs({}, torch.zeros(()))

        def replay() -> None:
            fresh = step()
            for name, value in fresh.sums.items():
                outputs.sums.setdefault(name, torch.empty_like(value)).copy_(value)
            outputs.grad_norm.copy_(fresh.grad_norm)

        return replay, outputs


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[CallRecorder]]:
    """Runs with `cuda_graphs` on the CPU; the recorders they made."""
    monkeypatch.setattr(graphs, "CudaRecorder", CallRecorder)
    monkeypatch.setattr(building, "check_launch_for_graphs", lambda accelerator: None)
    monkeypatch.setattr(loop, "seed_device", lambda seed, device: torch.default_generator.manual_seed(seed))
    CallRecorder.made.clear()
    yield CallRecorder.made


CASES: dict[str, dict[str, Any]] = {
    "metamae": {"model": {"hidden_dropout_prob": 0.1}},
    "first_order": {"model": {"first_order": True}, "max_grad_norm": 0.05},
    "mae": {"model": PLAIN_MAE, "logging_steps": 3},
    "sma_random": {"model": SMA_MODEL | {"masking": "random", "mask_ratio": 0.5}},
    "guided_schedule": {"model": {"masking": "guided", "mask_schedule": "mix", "initializer_range": 0.3}},
    "sma_schedule": {"model": SMA_MODEL | {"mask_schedule": "widen"}, "decay_norm_and_bias": False},
}


def recipe_of(case: str, folder: Path, **changes: Any) -> Any:
    fields = {"max_steps": 12, "save_steps": 5, "learning_rate": RATE, "batch_size": 4}
    return make_recipe(folder, **(fields | CASES[case] | changes))


@on_cpu
@pytest.mark.parametrize("case", CASES)
def test_replayed_steps_are_those_of_a_run_without_graphs(
    case: str, tmp_path: Path, called: list[CallRecorder]
) -> None:
    _, expected = train(recipe_of(case, tmp_path / "eager"))
    trainer, found = train(recipe_of(case, tmp_path / "graphs", cuda_graphs=True))
    assert trainer._graphs is not None and (trainer._graphs.num_run, trainer._graphs.num_replayed) == (3, 9)
    assert called[0].num_recorded == trainer._graphs.num_graphs == 1
    assert_same_weights(weights(tmp_path / "graphs"), weights(tmp_path / "eager"))
    assert without_time(found) == without_time(expected)


@on_cpu
def test_the_schedule_of_the_learning_rate_reaches_replayed_steps(tmp_path: Path, called: list[CallRecorder]) -> None:
    fields: dict[str, Any] = {
        "lr_scheduler_type": "cosine",
        "warmup_steps": 4,
        "learning_rate": 3e-3,
        "logging_steps": 1,
    }
    _, expected = train(recipe_of("mae", tmp_path / "eager", **fields))
    _, found = train(recipe_of("mae", tmp_path / "graphs", cuda_graphs=True, **fields))
    # The rate is rounded to float32 for the device alone: the log has the schedule's own number.
    for name in ("train/loss", "train/learning_rate"):
        first, second = ([entry[name] for entry in state.history] for state in (expected, found))
        assert second == (first if name.endswith("rate") else pytest.approx(first, rel=1e-5))
    constant, _ = train(recipe_of("mae", tmp_path / "constant", **(fields | {"lr_scheduler_type": "constant"})))
    assert constant.state.history[-1]["train/loss"] != pytest.approx(found.history[-1]["train/loss"], rel=1e-5)


@on_cpu
def test_a_killed_run_goes_on_with_graphs_and_without(
    tmp_path: Path, called: list[CallRecorder], monkeypatch: pytest.MonkeyPatch, resumed_at: Callable[[], list[int]]
) -> None:
    _, expected = train(recipe_of("metamae", tmp_path / "whole"))
    original = Pretrainer._after_step

    def stop(self: Pretrainer, progress: Any) -> None:
        if self.state.step == 8:
            raise Killed
        original(self, progress)

    for after in (True, False):
        folder = tmp_path / f"cut-{after}"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Pretrainer, "_after_step", stop)
            train(recipe_of("metamae", folder, cuda_graphs=True))
        _, found = train(recipe_of("metamae", folder, cuda_graphs=after, resume=True))
        assert_same_weights(weights(folder), weights(tmp_path / "whole"))
        assert without_time(found) == without_time(expected)
    assert resumed_at() == [5, 5]


@on_cpu
def test_every_shape_has_a_graph_of_its_own(tmp_path: Path, called: list[CallRecorder]) -> None:
    fields: dict[str, Any] = {"model": TEXT_MODEL, "data": write_text(tmp_path / "text.txt"), "max_steps": 30}
    _, expected = train(recipe_of("mae", tmp_path / "eager", **fields))
    trainer, found = train(recipe_of("mae", tmp_path / "graphs", cuda_graphs=True, **fields))
    step_graphs = trainer._graphs
    assert step_graphs is not None and step_graphs.num_graphs >= 2 and len(step_graphs._seen) > 1
    assert step_graphs.num_run + step_graphs.num_replayed == 30 and step_graphs.num_replayed > 0
    assert_same_weights(weights(tmp_path / "graphs"), weights(tmp_path / "eager"))
    assert found.history == expected.history


@on_cpu
def test_a_non_finite_loss_is_named_by_its_step(
    tmp_path: Path, called: list[CallRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = StepGraphs.__call__
    steps: list[int] = []

    def spoilt(self: StepGraphs, batch: Any, seed: Any) -> StepOutputs:
        outputs = original(self, batch, seed)
        steps.append(1)
        if len(steps) == 7:
            outputs.sums["loss"].fill_(torch.nan)
        return outputs

    monkeypatch.setattr(StepGraphs, "__call__", spoilt)
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan at step 7 .*rows are \[\d+, \d+, \d+, \d+\]"):
        train(recipe_of("mae", tmp_path, cuda_graphs=True, save_steps=0, logging_steps=10))


# the parts


def make_step(inputs_seen: list[Any]) -> tuple[Callable[[Any], StepOutputs], torch.optim.Optimizer, torch.Tensor]:
    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.5)
    optimizer.param_groups[0]["capturable"] = False

    def step(batch: Any) -> StepOutputs:
        inputs_seen.append(batch)
        loss = (weight * batch["inputs"]["x"]).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return StepOutputs({"loss": loss.detach()}, torch.zeros(()))

    return step, optimizer, weight


def test_the_batch_is_copied_into_what_was_recorded() -> None:
    seen: list[Any] = []
    step, optimizer, weight = make_step(seen)
    taken = StepGraphs(step, optimizer, CallRecorder(torch.device("cpu")), torch.device("cpu"), warm_up_steps=1)
    seeds: list[int] = []
    expected = torch.ones(3)
    for number in range(4):
        batch = {"inputs": {"x": torch.full((3,), float(number))}}
        kept = batch["inputs"]["x"].clone()
        outputs = taken(batch, lambda number=number: seeds.append(number))  # type: ignore[misc]
        assert outputs.sums["loss"] == (expected * number).sum()
        expected = expected - 0.5 * number
        torch.testing.assert_close(weight.detach(), expected)
        assert torch.equal(batch["inputs"]["x"], kept)
    assert seeds == [0, 1, 2, 3]
    first, *replayed = [batch["inputs"]["x"] for batch in seen]
    assert len({id(x) for x in replayed}) == 1 and first is not replayed[0]
    taken({"inputs": {"x": torch.ones(1)}}, lambda: None)  # another shape: run again
    assert (taken.num_run, taken.num_replayed, taken.num_graphs) == (2, 3, 1)


def test_more_shapes_than_graphs_run_without(caplog: pytest.LogCaptureFixture) -> None:
    step, optimizer, _ = make_step([])
    recorder = CallRecorder(torch.device("cpu"))
    taken = StepGraphs(step, optimizer, recorder, torch.device("cpu"), warm_up_steps=1, max_graphs=1)
    for _ in range(4):
        for shape in ((3,), (2, 3), (4, 3)):
            taken({"inputs": {"x": torch.ones(shape)}}, lambda: None)
    assert (recorder.num_recorded, taken.num_run, taken.num_replayed) == (1, 9, 3)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1 and "more shapes than the 1 graphs" in messages[0]


def test_rates_are_lent_and_given_back() -> None:
    weight = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.AdamW([{"params": [weight]}], lr=0.25, fused=True)
    rates = DeviceRates(optimizer, torch.device("cpu"))
    group = optimizer.param_groups[0]
    with pytest.raises(Killed), rates.lent(capturable=True):
        assert group["lr"] is rates.rates[0] and group["capturable"]
        raise Killed
    assert group["lr"] == 0.25 and group["capturable"] is False
    rates.update()
    assert rates.rates[0] == 0.25
    group["lr"] = 0.5
    rates.update()
    assert rates.rates[0] == 0.5 and optimizer.state_dict()["param_groups"][0]["lr"] == 0.5


def test_what_cannot_be_recorded_says_why() -> None:
    class Broken(CallRecorder):
        def record(self, step: Any) -> Any:
            try:
                raise RuntimeError("operation not permitted when stream is capturing")
            finally:
                raise RuntimeError("capture was invalidated")

    step, optimizer, _ = make_step([])
    taken = StepGraphs(step, optimizer, Broken(torch.device("cpu")), torch.device("cpu"), warm_up_steps=0)
    with pytest.raises(ValueError, match="cannot be recorded: RuntimeError: operation not permitted .*cuda_graphs to"):
        taken({"inputs": {"x": torch.ones(3)}}, lambda: None)


# what is refused

ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "torch_compile": ({"torch_compile": True}, "cuda_graphs and training.torch_compile exclude each other"),
    "checkpointing": ({"gradient_checkpointing": True}, "cuda_graphs and training.gradient_checkpointing exclude"),
    "accumulation": ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps=2: set it to 1"),
    "fp16": ({"mixed_precision": "fp16"}, "got 'fp16', whose loss scaling"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_that_do_not_go_together(case: str) -> None:
    fields, message = ARGUMENTS[case]
    with pytest.raises(ValueError, match=message):
        PretrainingArguments(cuda_graphs=True, **fields)


@on_cpu
def test_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="training.cuda_graphs needs a CUDA GPU, this run is on the device 'cpu'"):
        train(make_recipe(tmp_path, cuda_graphs=True))


class Launched:
    device = torch.device("cuda", 0)
    num_processes = 1
    distributed_type = graphs.DistributedType.NO
    mixed_precision = "bf16"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_processes": 2, "distributed_type": graphs.DistributedType.MULTI_GPU}, "this run has 2 and MULTI_GPU"),
        ({"distributed_type": graphs.DistributedType.FSDP}, "this run has 1 and FSDP"),
        ({"mixed_precision": "fp16"}, "this run has 'fp16'"),
        ({"device": torch.device("mps")}, "on the device 'mps'"),
    ],
)
def test_launches_that_are_refused(changes: dict[str, Any], message: str) -> None:
    graphs.check_launch_for_graphs(Launched())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        graphs.check_launch_for_graphs(type("Other", (Launched,), changes)())


def test_masked_words_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "check_launch_for_graphs", lambda accelerator: None)
    with pytest.raises(ValueError, match="PoSMinimaxBertForPreTraining cannot be recorded. How many masked pieces"):
        train(make_recipe(tmp_path / "run", BERT_MODEL, write_sentences(tmp_path), cuda_graphs=True))


def test_a_model_may_answer_for_itself() -> None:
    class Model(MaskedPretraining):
        reason: str | None = None

        def reason_against_cuda_graphs(self) -> str | None:
            return self.reason

    model = Model()
    graphs.check_model_for_graphs(model)
    model.reason = "It counts."
    with pytest.raises(ValueError, match="Model cannot be recorded. It counts. Set it to false"):
        graphs.check_model_for_graphs(model)


# on a GPU


def read_losses(state: RunState) -> list[float]:
    return [entry["train/loss"] for entry in state.history]


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    floating = [name for name in first if first[name].is_floating_point()]
    return sum(float((first[name] - second[name]).double().square().sum()) for name in floating) ** 0.5


def assert_close_runs(
    folders: tuple[Path, Path], start: Path, states: tuple[RunState, RunState], rel: float = 2e-3, drift: float = 0.05
) -> None:
    """Sums on a GPU have no fixed order, so runs drift apart by rounding; other masks would differ by far more."""
    assert read_losses(states[1]) == pytest.approx(read_losses(states[0]), rel=rel)
    found, way = distance(*map(weights, folders)), distance(weights(start), weights(folders[0]))
    assert found < drift * way


CUDA_CASES: dict[str, dict[str, Any]] = {
    "metamae": {"model": {}},
    "metamae_dropout_clipped": {"model": {"hidden_dropout_prob": 0.1}, "max_grad_norm": 0.5},
    "first_order": {"model": {"first_order": True}},
    "mae": {"model": PLAIN_MAE, "lr_scheduler_type": "cosine", "warmup_steps": 5},
    "metamae_guided_schedule": {"model": {"masking": "guided", "mask_schedule": "mix", "initializer_range": 0.3}},
    "metamae_bf16": {"model": {}, "mixed_precision": "bf16"},
    "sma_random": {"model": SMA_MODEL | {"masking": "random", "mask_ratio": 0.5}},
    "sma_guided_schedule": {"model": SMA_MODEL | {"mask_schedule": "mix"}},
    "metamae_text": {"model": TEXT_MODEL, "data": "text"},
    "sma_text": {"model": SMA_TEXT_MODEL, "data": "text"},
}


# Where rounding is coarse, or chooses between tokens that attention receives nearly equally.
BOUNDS: dict[str, dict[str, float]] = {
    "metamae_bf16": {"rel": 2e-2, "drift": 0.3},
    "sma_guided_schedule": {"rel": 2e-2, "drift": 0.3},
    "metamae_guided_schedule": {"rel": 2e-2, "drift": 0.3},
}


def cuda_recipe(case: str, folder: Path, text: Path, **changes: Any) -> Any:
    fields = dict(CUDA_CASES[case])
    if fields.get("data") == "text":
        fields["data"] = write_text(text)
    base = {"max_steps": 20, "learning_rate": RATE, "batch_size": 8, "logging_steps": 1}
    return make_recipe(folder, **(base | fields | changes))


def fresh() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)


@needs_cuda
@pytest.mark.parametrize("case", CUDA_CASES)
def test_graphs_give_the_losses_of_steps_without_them(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, bounds = tmp_path / "text", BOUNDS.get(case, {})
    _, eager = train(cuda_recipe(case, tmp_path / "eager", text))
    fresh()
    trainer, graphed = train(cuda_recipe(case, tmp_path / "graphs", text, cuda_graphs=True))
    assert trainer._graphs is not None and trainer._graphs.num_replayed > 0
    if "text" not in case:
        assert (trainer._graphs.num_run, trainer._graphs.num_replayed) == (3, 17)
    fresh()
    train(cuda_recipe(case, tmp_path / "start", text, max_steps=1, learning_rate=1e-12, warmup_steps=0))
    assert_close_runs((tmp_path / "eager", tmp_path / "graphs"), tmp_path / "start", (eager, graphed), **bounds)
    fresh()
    monkeypatch.setattr(loop, "mix", lambda *numbers: mix(*numbers, 1))
    _, other = train(cuda_recipe(case, tmp_path / "other", text, cuda_graphs=True))
    expected = pytest.approx(read_losses(eager), rel=bounds.get("rel", 2e-3))
    assert read_losses(other) != expected  # the bound tells other masks apart


@needs_cuda
def test_texts_on_the_device_need_one_graph(tmp_path: Path) -> None:
    fields = {"cuda_graphs": True, "data_on_device": True}
    trainer, state = train(cuda_recipe("sma_text", tmp_path / "graphs", tmp_path / "text", **fields))
    assert trainer._graphs is not None
    assert (trainer._graphs.num_graphs, trainer._graphs.num_run, trainer._graphs.num_replayed) == (1, 3, 17)
    assert all(torch.isfinite(torch.tensor(read_losses(state))))


def multimae_runs(folder: Path, balancing: str, monkeypatch: pytest.MonkeyPatch) -> tuple[RunState, RunState]:
    """A run without graphs and one with them in `eager` and `graphs`, and one that hardly leaves the `start`."""
    batch = multimae_cases.make_batch("paper", 24)
    batch["index"] = torch.arange(24)
    rows = [multimae_cases.rows_of(batch, row) for row in range(24)]

    def stacked(parts: list[Any]) -> Any:
        if isinstance(parts[0], dict):
            return {name: stacked([part[name] for part in parts]) for name in parts[0]}
        return torch.stack(parts)

    prepared = PreparedData(rows, None, None, None, stacked, None, None, None)  # type: ignore[arg-type]
    monkeypatch.setattr(loop, "prepare_data", lambda *_, **__: prepared)
    model = {"model_type": "multimae", **multimae_cases.SMALL, **multimae_cases.CASES["paper"]}
    fields = {"max_steps": 20, "learning_rate": RATE, "batch_size": 8}
    runs: dict[str, dict[str, Any]] = {
        "eager": {},
        "graphs": {"cuda_graphs": True},
        "start": {"max_steps": 1, "learning_rate": 1e-12},
    }
    states = []
    for name, changes in runs.items():
        fresh()
        recipe = make_recipe(folder / name, model | {"task_balancing": balancing}, **(fields | changes))
        trainer, state = train(recipe)
        states.append(state)
        if name == "graphs":
            assert trainer._graphs is not None
            assert (trainer._graphs.num_run, trainer._graphs.num_replayed) == (3, 17)
    return states[0], states[1]


BALANCINGS = ["none", "minimax", "gradnorm"]


@on_cpu
@pytest.mark.parametrize("balancing", BALANCINGS)
def test_multimae_with_graphs(
    balancing: str, tmp_path: Path, called: list[CallRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, graphed = multimae_runs(tmp_path, balancing, monkeypatch)
    assert_same_weights(weights(tmp_path / "graphs"), weights(tmp_path / "eager"))
    assert graphed.history == eager.history
    assert_close_runs((tmp_path / "eager", tmp_path / "graphs"), tmp_path / "start", (eager, graphed))


@needs_cuda
@pytest.mark.parametrize("balancing", BALANCINGS)
def test_multimae_with_graphs_on_a_gpu(balancing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = multimae_runs(tmp_path, balancing, monkeypatch)
    assert_close_runs((tmp_path / "eager", tmp_path / "graphs"), tmp_path / "start", states)


@needs_cuda
@pytest.mark.parametrize("after", [True, False])
def test_a_killed_run_goes_on_on_a_gpu(
    after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed_at: Callable[[], list[int]]
) -> None:
    fields = {"save_steps": 6, "lr_scheduler_type": "cosine"}
    _, expected = train(cuda_recipe("metamae", tmp_path / "whole", tmp_path / "text", **fields))
    fresh()
    original = Pretrainer._after_step

    def stop(self: Pretrainer, progress: Any) -> None:
        if self.state.step == 14:
            raise Killed
        original(self, progress)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Pretrainer, "_after_step", stop)
        train(cuda_recipe("metamae", tmp_path / "cut", tmp_path / "text", cuda_graphs=True, **fields))
    fresh()
    recipe = cuda_recipe("metamae", tmp_path / "cut", tmp_path / "text", cuda_graphs=after, resume=True, **fields)
    _, found = train(recipe)
    assert resumed_at() == [12]
    assert read_losses(found) == pytest.approx(read_losses(expected), rel=2e-3)


WAITING = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
from runs import PLAIN_MAE, make_recipe, train
from hf_maskssl.training.pretraining import graphs

original = graphs.TrainingStep.__call__

def looks(self, batch):
    outputs = original(self, batch)
    float(outputs.grad_norm)
    return outputs

graphs.TrainingStep.__call__ = looks
train(make_recipe(Path(sys.argv[2]), PLAIN_MAE, max_steps=8, cuda_graphs=True))
"""


@needs_cuda
def test_what_waits_for_the_device_is_refused_while_recording(tmp_path: Path) -> None:
    """In a process of its own: torch is of no use any more after a recording that failed."""
    command = [sys.executable, "-c", WAITING, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "ValueError: training.cuda_graphs: this step cannot be recorded" in done.stderr
