"""Averages of tasks over batches that hold unequally many of their terms, and of none."""

import pytest
import torch

from hf_maskssl.training.averages import add_parts, averages, shown_beside_progress


def scalars(**values: float) -> dict[str, torch.Tensor]:
    return {name.replace("__", "/"): torch.tensor(value) for name, value in values.items()}


def plain(sums: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in sums.items()}


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


def test_a_progress_bar_shows_few_losses_or_the_worst_task() -> None:
    few = {"loss": 1.0, "mask": 0.25, "train/x": 3.0}
    assert shown_beside_progress(few) == {"loss": "1", "mask": "0.25"}
    many = {"loss": 1.5} | {f"task{number}": float(number) for number in range(6)} | {"next_sentence": 9.0}
    weights = {f"weight/{name}": 0.1 for name in ("task1", "task3", "next_sentence")}
    assert shown_beside_progress(many | weights) == {"loss": "1.5", "worst": "task3 3"}
    assert shown_beside_progress(many) == {"loss": "1.5"}
