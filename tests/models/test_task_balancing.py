"""One loss from several tasks: weights by hand, the bound of Theorem 3.1, and the same over parts and processes."""

import math
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from balancing_cases import CASES, THEOREM, Problem, problem_rows, same, train
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from hf_maskssl.models.task_balancing import TASK_BALANCING, BalancingRule, TaskBalancer, check_task_balancing


def balance(balancer: TaskBalancer, losses: list[float], counts: list[float] | None = None) -> Any:
    """One step whose tasks have these mean losses and numbers of terms."""
    terms = torch.tensor(counts or [1.0] * len(losses), dtype=torch.float64)
    sums = (torch.tensor(losses, dtype=torch.float64) * terms).requires_grad_()
    return balancer(sums, terms)


def close(found: torch.Tensor | None, expected: Any, tolerance: float = 1e-6) -> None:
    assert found is not None
    expected = torch.as_tensor(expected, dtype=found.dtype)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


# ---- each method by hand ------------------------------------------------------------------------------------------


def test_none_is_the_sum_of_the_means() -> None:
    balanced = balance(TaskBalancer(["a", "b"], "none"), [1.0, 3.0], [2.0, 5.0])
    close(balanced.loss, 4.0)
    close(balanced.weights, [1.0, 1.0])
    close(balanced.task_losses, [1.0, 3.0])


def test_minimax_weights_are_the_softmax_of_the_losses() -> None:
    balanced = balance(TaskBalancer(["a", "b"], "minimax", {"alpha": 0.5}), [1.0, 3.0], [2.0, 5.0])
    light = 1 / (1 + math.e)  # exp(0.5) / (exp(0.5) + exp(1.5))
    close(balanced.weights, [light, 1 - light])
    close(balanced.loss, light * 1 + (1 - light) * 3)
    assert not balanced.weights.requires_grad and balanced.loss.requires_grad


def test_minimax_does_not_overflow() -> None:
    balanced = balance(TaskBalancer(["a", "b"], "minimax", {"alpha": 1e6}), [1e6, 2.0])
    close(balanced.weights, [1.0, 0.0])


def test_minimax_with_momentum_weighs_by_running_losses() -> None:
    balancer = TaskBalancer(["a", "b"], "minimax", {"momentum": 0.5})
    close(balance(balancer, [1.0, 3.0]).weights, torch.tensor([1.0, 3.0]).softmax(0))  # the first is the average
    # (0.25 x 1 + 0.5 x 3) / 0.75, but b is absent and stays at 3
    balance(balancer, [3.0, 0.0], [1.0, 0.0])
    # a: (0.125 x 1 + 0.25 x 3 + 0.5 x 2) / 0.875; b: (0.25 x 3 + 0.5 x 2) / 0.75
    close(balance(balancer, [2.0, 2.0]).weights, torch.tensor([1.875 / 0.875, 1.75 / 0.75]).softmax(0))


def test_minimax_alpha_follows_the_theorem() -> None:
    balancer = TaskBalancer(["a", "b"], "minimax", THEOREM)  # R_0 L' = 1, 4 T B = 24
    for step in range(4):
        alpha = 4 * math.sqrt(step + 1) * math.log(24 * math.sqrt(step + 1))
        close(balance(balancer, [0.1, 0.12]).weights, (alpha * torch.tensor([0.1, 0.12])).softmax(0))


def test_uncertainty_is_the_authors(shared_golden: Callable[[str], dict[str, Any]]) -> None:
    golden = shared_golden("multimae_uncertainty")
    for row, log_variances in enumerate(golden["input.log_vars"]):
        for column, losses in enumerate(golden["input.losses"]):
            balancer = TaskBalancer(["a", "b", "c"], "uncertainty")
            learned = dict(balancer.named_parameters())["rule.log_variances"]
            assert torch.equal(learned.data, torch.zeros(3))
            learned.data.copy_(log_variances)
            losses = losses.clone().requires_grad_()
            balanced = balancer(losses, torch.ones(3))
            balanced.loss.backward()
            case = f"v{row}.l{column}"
            close(balanced.loss.detach(), golden[f"{case}.total"])
            close(learned.grad, golden[f"{case}.grad_log_vars"])
            close(losses.grad, golden[f"{case}.grad_losses"])
            close(balanced.weights, golden[f"{case}.grad_losses"])


def test_gradnorm_by_hand() -> None:
    balancer = TaskBalancer(["a", "b"], "gradnorm", {"alpha": 1.5, "learning_rate": 0.1})
    shared = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)

    def step() -> torch.Tensor:
        # Gradients 4 and 1; from the values 8 and 4 on
        sums = torch.stack([4 * shared.sum(), shared.sum() + 2])
        return balancer(sums, torch.ones(2), shared).weights

    close(step(), [1.0, 1.0])
    # Norms 4 and 1, both to be 2.5: the first weight falls by 0.1 x 4, the second rises by 0.1 x 1; then the sum is 2.
    first = [0.6 * 2 / 1.7, 1.1 * 2 / 1.7]
    with torch.no_grad():
        shared.fill_(1.0)
    close(step(), first)
    # The losses are 4 of 8 and 3 of 4 now: rates 0.5 and 0.75 over their mean.
    norms = [4 * first[0], first[1]]
    targets = [sum(norms) / 2 * (rate / 0.625) ** 1.5 for rate in (0.5, 0.75)]
    signs = [math.copysign(1, norm - target) for norm, target in zip(norms, targets, strict=True)]
    changed = [first[0] - 0.1 * signs[0] * 4, first[1] - 0.1 * signs[1] * 1]
    close(step(), [weight * 2 / sum(changed) for weight in changed])


def test_gradnorm_weights_stay_positive_and_keep_their_sum() -> None:
    balancer = TaskBalancer(["a", "b", "c"], "gradnorm", {"learning_rate": 10.0})
    shared = torch.tensor([2.0], requires_grad=True)
    for absent in (0, 1, 2, 1, 0):
        counts = torch.ones(3)
        counts[absent] = 0
        # The last task does not depend on the shared weight at all.
        sums = torch.stack([5 * shared.sum(), shared.sum(), torch.tensor(1.0)]) * counts
        after = balancer.state_dict()["rule.task_weights"]  # the tensor itself
        before = after.clone()
        balancer(sums, counts, shared)
        close(after.sum(), 3.0)
        assert after.min() > 0 and after[absent] == before[absent]


def test_dwa_compares_the_last_two_windows() -> None:
    balancer = TaskBalancer(["a", "b"], "dwa", {"interval": 2, "temperature": 2.0})
    for losses in ([1.0, 4.0], [3.0, 4.0], [1.5, 2.0], [0.5, 6.0]):
        close(balance(balancer, losses).weights, [1.0, 1.0])
    ratios = torch.tensor([1.0 / 2.0, 4.0 / 4.0])
    for _ in range(2):
        close(balance(balancer, [8.0, 1.0]).weights, 2 * (ratios / 2).softmax(0))
    close(balance(balancer, [8.0, 1.0]).weights, 2 * (torch.tensor([8.0, 0.25]) / 2).softmax(0))


# ---- what holds for all -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_accumulated_parts_train_as_the_whole(case: str) -> None:
    expected = train(case)
    assert not torch.allclose(expected["0.losses"], expected["2.losses"])
    if case not in ("none", "dwa"):
        assert not torch.allclose(expected["0.weights"], expected["2.weights"])
    same(train(case, (1, 4, 3)), expected)


def test_parts_that_were_only_counted_train_as_the_whole() -> None:
    """Where weights do not depend on losses; counts are in single precision."""
    expected, found = train("none"), train("none", (1, 4, 3), counted=True)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-6, msg=key)


def test_counted_parts_have_their_own_losses() -> None:
    """Their average over the parts is the loss of the whole; a task that none of them has carries no weight."""
    balancer = TaskBalancer(["a", "b", "c"], "none")
    counts = [torch.tensor([1, 0, 0]), torch.tensor([3, 2, 0])]
    totals = balancer.count(counts[0]) + balancer.count(counts[1])
    assert totals.sums is None and totals.num_batches == 2
    close(totals.counts, [4.0, 2.0, 0.0])
    balancer.begin_step(totals)
    first = balancer(torch.tensor([5.0, 0.0, 0.0]), counts[0])
    second = balancer(torch.tensor([3.0, 8.0, 0.0]), counts[1])
    close(first.task_losses, [5 / 2, 0, 0])
    close(second.task_losses, [3 / 2, 8, 0])
    for balanced in (first, second):
        close(balanced.weights, [1.0, 1.0, 0.0])
        close(balanced.counts, [4.0, 2.0, 0.0])
    close((first.loss + second.loss) / 2, 8 / 4 + 8 / 2)
    balancer.end_step()
    close(balancer(torch.tensor([5.0, 0.0, 0.0]), counts[0]).loss, 5.0)


@pytest.mark.parametrize("name", TASK_BALANCING)
def test_counts_are_not_enough_where_losses_decide(name: str) -> None:
    balancer = TaskBalancer(["a", "b"], name)
    assert balancer.needs_losses == (name != "none")
    if balancer.needs_losses:
        with pytest.raises(ValueError, match=f"'{name}' weighs tasks by their losses, .*: call `measure`"):
            balancer.count(torch.ones(2))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), name=st.sampled_from(["none", "minimax", "uncertainty", "dwa"]))
def test_parts_have_the_gradient_of_the_whole(data: st.DataObject, name: str) -> None:
    num_tasks, num_parts = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    count = st.lists(st.integers(0, 9), min_size=num_tasks, max_size=num_tasks)
    counts = torch.tensor([data.draw(count) for _ in range(num_parts)], dtype=torch.float64)
    values = torch.rand(num_parts, num_tasks, dtype=torch.float64) * 3

    def gradient(in_parts: bool) -> torch.Tensor | None:
        balancer = TaskBalancer([str(task) for task in range(num_tasks)], name)
        leaf = values.clone().requires_grad_()
        sums = leaf * counts
        if in_parts:
            totals = [balancer.measure(*part) for part in zip(sums, counts, strict=True)]
            balancer.begin_step(sum(totals[1:], totals[0]))
            for part in zip(sums, counts, strict=True):
                (balancer(*part).loss / num_parts).backward(retain_graph=True)
        else:
            balancer(sums.sum(0), counts.sum(0)).loss.backward()
        return leaf.grad

    close(gradient(in_parts=True), gradient(in_parts=False), 1e-12)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_finite_differences(case: str) -> None:
    problem, rows = Problem(case), problem_rows(0)
    problem.balancer.begin_step(problem.balancer.measure(*problem.sums(rows)))
    names, values = zip(*problem.named_parameters(), strict=True)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(problem, dict(zip(names, values, strict=True)), (rows,))[0]

    assert torch.autograd.gradcheck(loss, values)


@pytest.mark.parametrize("case", CASES)
def test_absent_tasks_have_no_part(case: str) -> None:
    """Whatever stands in their sums: one of three, then all of them."""
    problem = Problem(case)
    sums, counts, weight = problem.sums(problem_rows(0))
    wild = sums + torch.tensor([0, math.nan, 0])
    balanced = problem.balancer(wild, counts * torch.tensor([1, 0, 1]), weight)
    assert balanced.loss.isfinite() and balanced.weights[1] == balanced.task_losses[1] == 0
    if case.startswith("minimax"):
        close(balanced.weights.sum(), 1.0)
    nothing = problem.balancer(sums * 0, counts * 0, weight)
    nothing.loss.backward()
    assert nothing.loss == 0 and not nothing.weights.any()
    assert all(value.isfinite().all() for value in problem.state_dict().values())
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in problem.parameters())


@pytest.mark.parametrize("case", CASES)
def test_evaluation_leaves_the_state_alone(case: str) -> None:
    problem, rows = Problem(case), problem_rows(0)
    problem(rows)
    before = {name: value.clone() for name, value in problem.state_dict().items()}
    with torch.no_grad():
        problem(rows)
    problem.eval()(rows)
    problem.balancer.begin_step(problem.balancer.measure(*problem.sums(rows)))
    same(problem.state_dict(), before)


@pytest.mark.parametrize("case", CASES)
def test_a_saved_state_goes_on_with_the_same_weights(case: str) -> None:
    problem = Problem(case)
    for step in range(3):
        problem(problem_rows(step))
    resumed = Problem(case)
    resumed.load_state_dict(problem.state_dict())
    expected = problem(problem_rows(3))[2]
    assert torch.equal(resumed(problem_rows(3))[2], expected)
    if case in ("gradnorm", "dwa", "minimax-momentum", "minimax-theorem"):
        assert not torch.allclose(Problem(case)(problem_rows(3))[2], expected)


class SmallConfig(PreTrainedConfig):
    model_type = "small"
    balancing: str | None = None


class SmallModel(PreTrainedModel):
    config_class = SmallConfig

    def __init__(self, config: SmallConfig) -> None:
        super().__init__(config)
        self.linear = nn.Linear(2, 2)
        if config.balancing:
            self.balancer = TaskBalancer(["a", "b"], config.balancing)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, BalancingRule):
            module.reset_state()
        else:
            super()._init_weights(module)


@pytest.mark.parametrize("name", TASK_BALANCING)
def test_transformers_loads_the_state_or_makes_it_anew(name: str, tmp_path: Path) -> None:
    """A checkpoint with the state keeps it; one without leaves memory that nobody has written to."""
    fresh = TaskBalancer(["a", "b"], name).state_dict()
    SmallModel(SmallConfig()).save_pretrained(tmp_path / "without")
    model = SmallModel.from_pretrained(tmp_path / "without", config=SmallConfig(balancing=name))
    same(model.balancer.state_dict(), fresh)
    for value in model.balancer.state_dict().values():
        value.fill_(7)
    model.save_pretrained(tmp_path / "with")
    loaded = SmallModel.from_pretrained(tmp_path / "with").balancer.state_dict()
    assert loaded.keys() == fresh.keys() and all(bool((value == 7).all()) for value in loaded.values())


def test_minimax_saves_what_something_depends_on() -> None:
    """A checkpoint of a BERT is then BERT's, key by key."""
    wanted: list[tuple[dict[str, Any], set[str]]] = [
        ({}, set()),
        ({"momentum": 0.5}, {"running_losses", "running_shares"}),
        (THEOREM, {"num_steps"}),
        ({**THEOREM, "momentum": 0.5}, {"num_steps", "running_losses", "running_shares"}),
    ]
    for options, names in wanted:
        assert set(TaskBalancer(["a", "b"], "minimax", options).rule.state_dict()) == names


@pytest.mark.parametrize("case", [case for case in CASES if case != "gradnorm"])
def test_compiles_without_a_graph_break(case: str) -> None:
    plain, compiled = Problem(case), Problem(case)
    called = torch.compile(compiled, fullgraph=True, backend="eager")
    for step in range(2):
        for found, expected in zip(called(problem_rows(step)), plain(problem_rows(step)), strict=True):
            close(found, expected)
    same(compiled.state_dict(), plain.state_dict())


def test_half_precision_sums_are_balanced_in_single() -> None:
    balancer = TaskBalancer(["a", "b"], "minimax")
    with torch.autocast("cpu", torch.bfloat16):
        balanced = balancer(torch.tensor([2.0, 3.0], dtype=torch.bfloat16), torch.tensor([2, 3]))
    assert balanced.loss.dtype == balanced.weights.dtype == torch.float32
    assert list(balancer.loss_parts(balanced)) == ["a", "b", "weight/a", "weight/b", "count/a", "count/b"]


def test_gradnorm_goes_back_through_each_task_once() -> None:
    """Not T times through all: with one sum per task, autograd meets only that task's graph."""
    weight = torch.ones(3, requires_grad=True)
    visits: list[int] = []
    sums = []
    for task in range(3):
        part = weight * (task + 1.0)
        part.register_hook(lambda gradient, task=task: visits.append(task))
        sums.append(part.sum())
    balancer = TaskBalancer(["a", "b", "c"], "gradnorm").train()
    balancer(sums, torch.ones(3), weight)
    assert sorted(visits) == [0, 1, 2]


# ---- Theorem 3.1 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_steps", [4, 64, 1024])
def test_the_bound_of_the_theorem_holds(num_steps: int) -> None:
    """max_t f_t(mean iterate) - min max_t f_t <= 2 R_0 L' / sqrt(K), for f_t = |a_t . theta - b_t| on a plane."""
    generator = np.random.default_rng(1)
    slopes = generator.normal(size=(6, 2))
    slopes /= np.linalg.norm(slopes, axis=1, keepdims=True)
    slopes[1:] *= 0.3  # many flat tasks against one steep one, which the average neglects
    offsets = np.array([10.0, 0.0, 0.1, -0.1, 0.2, 0.0])
    # The minimax as a linear programme in (theta, u): u >= +-(a_t . theta - b_t)
    ones = np.ones((6, 1))
    solved = linprog(
        [0, 0, 1],
        A_ub=np.block([[slopes, -ones], [-slopes, -ones]]),
        b_ub=np.concatenate([offsets, -offsets]),
        bounds=[(None, None)] * 3,
    )
    distance, lipschitz, bound = float(np.linalg.norm(solved.x[:2])), 1.0, 60.0

    def worst_gap(name: str, options: dict[str, Any] | None) -> float:
        balancer = TaskBalancer([str(task) for task in range(6)], name, options)
        theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        mean, size = torch.zeros(2, dtype=torch.float64), distance / (lipschitz * math.sqrt(num_steps))
        for _ in range(num_steps):
            losses = (torch.from_numpy(slopes) @ theta - torch.from_numpy(offsets)).abs()
            assert losses.max() <= bound
            (gradient,) = torch.autograd.grad(balancer(losses, torch.ones(6)).loss, theta)
            mean += theta.detach() / num_steps
            with torch.no_grad():
                theta -= size * gradient / (6 if name == "none" else 1)
        return float(np.abs(slopes @ mean.numpy() - offsets).max() - solved.fun)

    limit = 2 * distance * lipschitz / math.sqrt(num_steps)
    constants = {"distance": distance, "lipschitz": lipschitz, "bound": bound}
    assert 0 <= worst_gap("minimax", {"schedule": "theorem", **constants}) <= limit
    if num_steps == 1024:
        assert worst_gap("none", None) > limit


def test_the_example_of_remark_5_2() -> None:
    """Closed forms with A = T - 1 = 16: A / 4 after the average, A / (sqrt(A) + 1)^2 after minimax."""
    script = Path(__file__).resolve().parents[2] / "examples" / "minimax_remark.py"
    worst_loss = runpy.run_path(str(script))["worst_loss"]
    assert worst_loss(17, "none") == pytest.approx(4.0)
    assert worst_loss(17, "minimax", 300.0) == pytest.approx(16 / 25, rel=0.01)


# ---- bad input ----------------------------------------------------------------------------------------------------

BAD_OPTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("none", {"alpha": 1.0}, r"'none' has no option \['alpha'\]; its options are: none"),
    ("dwa", {"temprature": 1.0}, r"\['temprature'\].*\['interval', 'temperature'\]"),
    ("minimax", {"alpha": 0}, "'alpha' of 'minimax' must be a number above 0, got 0"),
    ("minimax", {"alpha": math.inf}, "'alpha' .* got inf"),
    ("minimax", {"alpha": True}, "'alpha' .* got True"),
    ("minimax", {"alpha": "1e-3"}, "'alpha' .* got '1e-3'"),
    ("minimax", {"momentum": 1.0}, "'momentum' .* from 0 to below 1, got 1.0"),
    ("minimax", {"schedule": "linear"}, r"'schedule' .* one of \['constant', 'theorem'\], got 'linear'"),
    ("minimax", {"schedule": "theorem", "distance": 1.0}, r"needs \['lipschitz', 'bound'\]"),
    ("minimax", {**THEOREM, "bound": -1.0}, "'bound' .* above 0, got -1.0"),
    ("minimax", {**THEOREM, "alpha": 2.0}, "computes 'alpha', expected none, got 2.0"),
    ("minimax", {"bound": 1.0}, r"\['bound'\] belong to the schedule 'theorem'"),
    ("gradnorm", {"alpha": -0.1}, "'alpha' of 'gradnorm' must be a number of at least 0, got -0.1"),
    ("gradnorm", {"learning_rate": 0.0}, "'learning_rate' .* above 0"),
    ("dwa", {"temperature": 0.0}, "'temperature' .* above 0"),
    ("dwa", {"interval": 2.5}, "'interval' .* integer of at least 1, got 2.5"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD_OPTIONS)
def test_bad_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    for refuse in (check_task_balancing, lambda *arguments: TaskBalancer(["a"], *arguments)):
        with pytest.raises(ValueError, match=f"`task_balancing_options`.*{message}"):
            refuse(name, options)


def test_other_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="`task_balancing` must be one of .*'dwa'.*, got 'maxmin'"):
        check_task_balancing("maxmin", None)
    for tasks in ([], ["a", "a"]):
        with pytest.raises(ValueError, match="`tasks` must be different names"):
            TaskBalancer(tasks, "none")
    with pytest.raises(ValueError, match=r"shape \(2,\).*got \(2,\) and \(3,\)"):
        TaskBalancer(["a", "b"], "none")(torch.ones(2), torch.ones(3))
    balancer = TaskBalancer(["a"], "gradnorm")
    with pytest.raises(ValueError, match="needs `shared_weight`"):
        balancer(torch.ones(1, requires_grad=True), torch.ones(1))
    with torch.no_grad():
        balancer(torch.ones(1), torch.ones(1))


@pytest.mark.parametrize("name", TASK_BALANCING)
def test_a_task_beside_weighs_as_much_as_all_others_together(name: str) -> None:
    """And changes nothing of how the others are weighed."""
    weight = torch.ones(3, requires_grad=True)
    sums, counts = [2.0 * weight.sum(), weight[1].square(), 5.0 * weight[2]], torch.tensor([4, 1, 2])
    alone, both = TaskBalancer(["a", "b"], name), TaskBalancer(["a", "b"], name, beside=["c"])
    first, second = alone(sums[:2], counts[:2], weight), both(sums, counts, weight)
    torch.testing.assert_close(second.weights[:2], first.weights)
    torch.testing.assert_close(second.weights[2], first.weights.sum())
    torch.testing.assert_close(second.loss, first.loss + first.weights.sum() * 2.5)
    torch.testing.assert_close(both.state_dict(), alone.state_dict())
    absent = both([*sums[:2], torch.zeros(())], torch.tensor([4, 1, 0]), weight)
    assert absent.weights[2] == 0 and list(both.loss_parts(absent))[2] == "c"
    only = both([torch.zeros(()), torch.zeros(()), sums[2]], torch.tensor([0, 0, 2]), weight)
    torch.testing.assert_close(only.weights, torch.tensor([0.0, 0.0, 1.0]))
