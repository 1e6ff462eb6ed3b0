"""Averages of tasks over batches that hold unequally many of their terms, and of none."""

import pytest
import torch

from hf_maskssl.training.averages import add_parts, averages


def scalars(**values: float) -> dict[str, torch.Tensor]:
    return {name.replace("__", "/"): torch.tensor(value) for name, value in values.items()}


def test_tasks_are_averaged_over_their_terms_and_the_rest_over_rows() -> None:
    sums: dict[str, torch.Tensor] = {}
    batches = [scalars(loss=3.0, verb=2.0, count__verb=1), scalars(loss=1.0, verb=6.0, count__verb=3)]
    for rows, parts in zip((10, 30), batches, strict=True):
        add_parts(sums, parts, rows)
    found = averages({name: float(value) for name, value in sums.items()}, rows=40, batches=2)
    assert found == pytest.approx({"loss": 1.5, "verb": 5.0, "count/verb": 2.0})


def test_a_task_that_no_batch_held_is_unknown_and_not_zero() -> None:
    sums: dict[str, torch.Tensor] = {}
    add_parts(sums, scalars(verb=0.0, count__verb=0, weight__verb=0.0))
    assert averages({name: float(value) for name, value in sums.items()}, rows=1) == {
        "count/verb": 0,
        "weight/verb": 0,
    }
