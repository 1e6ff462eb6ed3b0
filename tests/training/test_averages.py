"""Averages of tasks over batches that hold unequally many of their terms, and of none."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hf_maskssl.training.pretraining.averages import add_parts, averages
from hf_maskssl.training.pretraining.console import weightiest


def scalars(**values: float) -> dict[str, torch.Tensor]:
    return {name.replace("__", "/"): torch.tensor(value) for name, value in values.items()}


def plain(sums: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in sums.items()}


def slow_add(sums: dict[str, Any], parts: dict[str, torch.Tensor], rows: float, dtype: Any) -> None:
    """One value after the other."""
    for name, value in parts.items():
        count = parts.get("count/" + name)
        weight: Any = 1.0 if name.startswith("count/") else rows if count is None else count.to(dtype)
        task = name.removeprefix("weight/")
        if task != name and "count/" + task in parts:
            weight = rows * (parts["count/" + task] > 0).to(dtype)
            sums["present/" + task] = sums.get("present/" + task, 0.0) + weight
        sums[name] = sums.get(name, 0.0) + weight * value.to(dtype)


def drawn_parts(batch: int, of_parts: Any = torch.float32) -> dict[str, torch.Tensor]:
    """A loss, a value without a count, a mean without a weight, and five tasks of which some are absent."""
    generator = torch.Generator().manual_seed(batch)
    draws = torch.rand(12, generator=generator).to(of_parts)
    counts = torch.randint(0, 3, (6,), generator=generator).to(of_parts)
    parts = {"loss": draws[0], "contrast": draws[1]} if batch % 3 else {"loss": draws[0]}
    parts |= {f"task{number}": draws[2 + number] for number in range(5)}
    parts |= {f"weight/task{number}": draws[7 + number] for number in range(5)}
    parts |= {f"count/task{number}": counts[number] for number in range(5)}
    return parts | {"mean": draws[1], "count/mean": counts[5]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("of_parts", [torch.float32, torch.float64, torch.bfloat16])
def test_all_at_once_is_one_after_the_other_to_the_bit(dtype: Any, of_parts: Any) -> None:
    """Also where a value comes late, and where the sums begin as numbers that a checkpoint held."""
    found: dict[str, Any] = {}
    expected: dict[str, Any] = {}
    for batch in range(8):
        parts = drawn_parts(batch, of_parts)
        add_parts(found, parts, 3 + batch, dtype)
        slow_add(expected, parts, 3 + batch, dtype)
        if batch == 4:
            found = {name: torch.tensor(float(value), dtype=dtype) for name, value in found.items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == dtype and found[name].shape == () and torch.equal(found[name], value), name


def test_the_number_of_kernels_does_not_grow_with_that_of_tasks() -> None:
    class Calls(TorchDispatchMode):
        number = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func.overloadpacket.__name__
            self.number += name not in ("view", "unbind", "detach", "_unsafe_view", "reshape")
            return func(*args, **(kwargs or {}))

    found = []
    for tasks in (2, 40):
        parts = {"loss": torch.tensor(1.0)}
        for task in range(tasks):
            parts |= {f"{prefix}task{task}": torch.tensor(2.0) for prefix in ("", "weight/", "count/")}
        sums: dict[str, Any] = {}
        for _ in range(2):
            with Calls() as calls:
                add_parts(sums, parts)
        found.append(calls.number)
    assert found[0] == found[1] <= 16, found


def test_tasks_are_averaged_over_their_terms_and_the_rest_over_rows() -> None:
    sums: dict[str, torch.Tensor] = {}
    batches = [scalars(loss=3.0, verb=2.0, count__verb=1), scalars(loss=1.0, verb=6.0, count__verb=3)]
    for rows, parts in zip((10, 30), batches, strict=True):
        add_parts(sums, parts, rows)
    assert averages(plain(sums), rows=40, batches=2) == pytest.approx({"loss": 1.5, "verb": 5.0, "count/verb": 2.0})


def test_a_task_that_no_batch_held_is_unknown_and_not_zero() -> None:
    sums: dict[str, torch.Tensor] = {}
    add_parts(sums, scalars(verb=0.0, count__verb=0, weight__verb=0.0))
    assert averages(plain(sums), rows=1) == {"count/verb": 0}


def test_a_weight_is_that_of_the_batches_that_held_the_task() -> None:
    """Else a rare task would seem to weigh little, though wherever it was it weighed most."""
    sums: dict[str, torch.Tensor] = {}
    for rows, count, weight in ((2, 1, 0.9), (7, 0, 0.0), (6, 3, 0.5)):
        add_parts(sums, scalars(verb=1.0, count__verb=count, weight__verb=weight), rows)
    assert averages(plain(sums), rows=15) == pytest.approx({"verb": 1.0, "count/verb": 4, "weight/verb": 0.6})


def test_the_moving_line_shows_the_loss_and_its_three_weightiest_parts() -> None:
    assert weightiest({"mask": 0.25, "loss": 1.0, "train/x": 3.0}) == [("loss", "1"), ("mask", "0.25")]
    assert weightiest({"reconstruction": 0.5, "loss": 0.5}) == [("loss", "0.5")]  # which is all of it
    tasks = {f"task{number}": float(number) for number in range(1, 6)}
    weights = {f"weight/{name}": 0.0 for name in ("task5", "task3")} | {"weight/task1": -9.0}
    shown = [name for name, _ in weightiest({"loss": 1.5, **tasks, **weights})]
    assert shown == ["loss", "task1", "task4", "task2"]
