"""Two processes with half a batch each compute what one process computes with all of it."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import two_processes
from balancing_cases import same, train
from torch import nn
from two_processes import (
    OBJECTIVES,
    batch_norm_case,
    collective_inputs,
    objective_inputs,
    run_objective,
    share,
    unequal,
)

from hf_maskssl.models.distributed import (
    SyncBatchNorm1d,
    all_gather,
    all_reduce_sum,
    global_mean_denominator,
    world_size,
)

Found = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found; started once for all tests of this file."""
    folder = tmp_path_factory.mktemp("processes")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, two_processes.__file__, str(folder)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_halves_have_the_gradient_of_the_whole(name: str, both: list[dict[str, Any]]) -> None:
    expected = run_objective(name, None)
    assert sum(key.startswith("gradient.") and bool(value.any()) for key, value in expected.items()) > 20
    for found in (process["objectives"][name] for process in both):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            # The inner gradient is scaled with the batch, so errors are relative to the largest entry.
            scale = max(1.0, value.abs().max().item())
            assert (found[key] - value).abs().max() <= 1e-5 * scale, key


def test_balanced_tasks_train_as_in_one_process(both: list[dict[str, Any]]) -> None:
    for process in both:
        for case, found in process["balancing"]:
            same(found, train(case))


def test_the_running_statistics_are_those_of_the_whole_batch(both: list[dict[str, Any]]) -> None:
    expected = run_objective("image", None)
    name = "buffer.projector.norm.running_var"
    assert not torch.equal(expected[name], torch.ones_like(expected[name]))
    for process in both:
        close(process["objectives"]["image"][name], expected[name])
        assert process["objectives"]["image"]["buffer.projector.norm.num_batches_tracked"] == 2


def test_the_halves_differ_in_what_they_score() -> None:
    """Otherwise a mean of two means would pass for the mean over both."""
    for name in ("padded_tokens", "vision_language", "sma-padded-self-tokens"):
        mask = unequal(objective_inputs(name))["attention_mask"]
        assert share(mask, 0).sum() < share(mask, 1).sum()
    presence = unequal(objective_inputs("multimae-minimax"))["presence"]
    assert not share(presence, 0)["rgb"].any() and share(presence, 1)["rgb"].all()
    assert share(presence, 0)["depth"].all() and not share(presence, 1)["depth"].all()
    pieces = unequal(objective_inputs("pos-minimax"))
    for task in (0, 1, 3):
        is_own = (pieces["labels"] != -100) & (pieces["tasks"] == task)
        assert share(is_own, 0).sum() != share(is_own, 1).sum()
    labels = pieces["next_sentence_label"]
    assert (share(labels, 0) != -100).sum() != (share(labels, 1) != -100).sum()


def test_collectives_against_autograd_on_one_process(both: list[dict[str, Any]]) -> None:
    given = collective_inputs()
    weights = [given["first"], given["second"]]
    values = given["values"].clone().requires_grad_()
    sum((values.sin() * weight).sum() for weight in weights).backward()  # type: ignore[union-attr]
    for rank, process in enumerate(both):
        found: Found = process["collectives"]
        close(found["gathered"], given["values"])
        close(found["gather_gradient"], share(values.grad, rank))
    halves = [share(given["values"], rank).clone().requires_grad_() for rank in range(2)]
    total = halves[0] + halves[1]
    sum((total.sin() * share(weight, rank)).sum() for rank, weight in enumerate(weights)).backward()  # type: ignore[union-attr]
    for half, process in zip(halves, both, strict=True):
        close(process["collectives"]["total"], total.detach())
        close(process["collectives"]["reduce_gradient"], half.grad)


def test_the_denominator_averages_to_the_mean_over_all(both: list[dict[str, Any]]) -> None:
    for process in both:
        assert process["collectives"]["denominator"] == 5.5  # (3 + 8) / 2 processes
        assert 0 < process["collectives"]["denominator_of_nothing"] < 1e-6


def test_batch_norm_with_unequal_shares_is_that_of_all_rows(both: list[dict[str, Any]]) -> None:
    norm, values, weight = batch_norm_case(nn.BatchNorm1d)
    values.requires_grad_()
    for _ in range(2):
        output = norm(values)
    (output.sin() * weight).sum().backward()
    buffers = {key: value.clone() for key, value in norm.named_buffers()}
    evaluated = norm.eval()(values).detach()
    first, second = (process["batch_norm"] for process in both)
    close(torch.cat([first["output"], second["output"]]), output.detach())
    close(torch.cat([first["gradient"], second["gradient"]]), values.grad)
    close(torch.cat([first["evaluated"], second["evaluated"]]), evaluated)
    for name in ("weight", "bias"):  # DDP would average what each process found
        close(first[name] + second[name], getattr(norm, name).grad)
    for process in (first, second):
        for name, value in buffers.items():
            close(process[name], value)


def test_on_one_process_everything_is_the_identity() -> None:
    values = torch.randn(3, 2)
    assert world_size() == 1
    assert all_gather(values) is values and all_reduce_sum(values) is values
    assert global_mean_denominator(torch.tensor(4.0)) == 4.0
    norm, plain = SyncBatchNorm1d(2), nn.BatchNorm1d(2)
    assert torch.equal(norm(values), plain(values))
    assert norm.state_dict().keys() == plain.state_dict().keys()
