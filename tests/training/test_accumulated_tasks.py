"""Several batches to one optimiser step train a model of several tasks as one batch of all their rows does."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import make_recipe, train, weights

from hf_maskssl import MultiMAEForPretraining, PoSMinimaxBertForPreTraining, PoSMinimaxBertModel
from hf_maskssl.data.preparation import PreparedData
from hf_maskssl.training.pretraining import loop

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))
import pos_minimax_bert_cases as pos  # noqa: E402
from multimae_cases import CASES, SMALL, make_batch, rows_of  # noqa: E402

NUM_ROWS, NUM_STEPS = 24, 3
BALANCERS: dict[str, dict[str, Any]] = {
    "none": {},
    "minimax": {"alpha": 3.0, "momentum": 0.5},
    "uncertainty": {},
    "gradnorm": {},
    "dwa": {"interval": 1, "temperature": 0.5},
}


def samples(lacking: bool) -> list[dict[str, Any]]:
    """Rows with masks of their own: a sample has the same one in whatever batch it is."""
    case = "lacking" if lacking else "paper"
    batch = make_batch(case, NUM_ROWS)
    generator = torch.Generator().manual_seed(2)
    masks = torch.rand(NUM_ROWS, 18, generator=generator) < 0.6
    masks[:, ::6], masks[:, 1::6] = False, True  # something is visible and something hidden in every modality
    batch["task_masks"] = dict(zip(batch["inputs"], masks.split(6, dim=1), strict=True))
    if lacking:  # rgb is rare, so that batches differ much in how many samples have it
        batch["presence"]["rgb"] = torch.arange(NUM_ROWS) % 4 == 0
        batch["presence"]["depth"][:] = True
    batch["index"] = torch.arange(NUM_ROWS)
    return [rows_of(batch, row) for row in range(NUM_ROWS)]


def stacked(rows: list[Any]) -> Any:
    if isinstance(rows[0], dict):
        return {name: stacked([row[name] for row in rows]) for name in rows[0]}
    return torch.stack(rows)


def sentences() -> list[dict[str, Any]]:
    """Rows with their masked pieces, of which some have many and some none; one kind of word is rare."""
    batch: dict[str, Any] = pos.make_batch("none", NUM_ROWS)
    is_verb = (batch["tasks"] == 1) & (torch.arange(NUM_ROWS)[:, None] % 4 != 0)
    batch["tasks"][is_verb] = 0
    batch["next_sentence_label"] = torch.arange(NUM_ROWS) // 3 % 2
    batch["index"] = torch.arange(NUM_ROWS)
    return [rows_of(batch, row) for row in range(NUM_ROWS)]


def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, balancer: str, lacking: bool, parts: int
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Weights after a few steps of 4 rows in so many `parts`, and what was logged."""
    if method == "multimae":
        rows, not_inputs = samples(lacking), ("index", "labels")
        model = {"model_type": "multimae", **SMALL, **CASES["paper"], "drop_path_rate": 0.0}
    else:
        rows, not_inputs = sentences(), ("index",)
        model = {
            "model_type": "pos_minimax_bert",
            **pos.SMALL,
            "next_sentence_prediction": method.removeprefix("pos-"),
        }
    prepared = PreparedData(rows, None, None, None, stacked, None, None, None, not_inputs)  # type: ignore[arg-type]
    monkeypatch.setattr(loop, "prepare_data", lambda *_, **__: prepared)
    model |= {"task_balancing": balancer, "task_balancing_options": BALANCERS[balancer]}
    _, state = train(
        make_recipe(
            folder,
            model,
            batch_size=4 // parts,
            gradient_accumulation_steps=parts,
            max_steps=NUM_STEPS,
            learning_rate=1e-2,
            max_grad_norm=1.0,
            adam_epsilon=1e-3,  # or entries without a gradient would be moved by its rounding errors
        )
    )
    return weights(folder), [
        {name: value for name, value in entry.items() if name.startswith("train/")} for entry in state.history
    ]


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


@pytest.mark.parametrize("balancer", BALANCERS)
@pytest.mark.parametrize("method", ["multimae", "pos-beside", "pos-inside"])
def test_two_batches_train_as_one(method: str, balancer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, logged = run(tmp_path / "whole", monkeypatch, method, balancer, True, parts=1)
    halves, logged_of_halves = run(tmp_path / "halves", monkeypatch, method, balancer, True, parts=2)
    assert difference(whole, halves) < 1e-5
    # Without the first pass each batch is balanced by itself.
    monkeypatch.setattr(loop, "balance_tasks", lambda *_: None)
    alone, _ = run(tmp_path / "alone", monkeypatch, method, balancer, True, parts=2)
    assert difference(whole, alone) > 1e-4
    assert len(logged) == NUM_STEPS
    for mine, theirs in zip(logged_of_halves, logged, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    assert sum(name.startswith("train/count/") for name in logged[0]) == 4 + method.startswith("pos")


def test_the_first_pass_is_left_out_where_it_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum of tasks that everybody has: half the time would be for nothing."""
    measured: list[int] = []
    original = MultiMAEForPretraining.measure_tasks
    monkeypatch.setattr(
        MultiMAEForPretraining, "measure_tasks", lambda self, **batch: measured.append(1) or original(self, **batch)
    )
    whole, _ = run(tmp_path / "whole", monkeypatch, "multimae", "none", False, parts=1)
    halves, _ = run(tmp_path / "halves", monkeypatch, "multimae", "none", False, parts=2)
    assert not measured and difference(whole, halves) < 1e-5
    run(tmp_path / "minimax", monkeypatch, "multimae", "minimax", False, parts=2)
    assert len(measured) == 2 * NUM_STEPS


@pytest.mark.parametrize("balancer", BALANCERS)
def test_masked_words_are_counted_and_not_encoded_where_that_is_enough(
    balancer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None's means depend on how many there are in all batches; its weights on nothing."""
    encoded: list[bool] = []
    measured: list[Any] = []
    original, encode = PoSMinimaxBertForPreTraining.measure_tasks, PoSMinimaxBertModel.forward

    def measure(self: Any, **batch: Any) -> Any:
        before = len(encoded)
        measured.append(original(self, **batch))
        assert len(encoded) - before == (balancer != "none")
        return measured[-1]

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        encoded.append(True)
        return encode(self, *args, **kwargs)

    monkeypatch.setattr(PoSMinimaxBertForPreTraining, "measure_tasks", measure)
    monkeypatch.setattr(PoSMinimaxBertModel, "forward", forward)
    run(tmp_path, monkeypatch, "pos-beside", balancer, True, parts=2)
    assert len(measured) == 2 * NUM_STEPS and len(encoded) == 2 * NUM_STEPS * (1 + (balancer != "none"))
    assert all((totals.sums is None) == (balancer == "none") for totals in measured)
