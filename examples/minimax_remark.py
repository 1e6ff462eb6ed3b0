"""How much worse the worst task gets when the average is minimised (Remark 5.2 of https://arxiv.org/abs/2306.12070).

    python examples/minimax_remark.py [--output PICTURE]

One parameter theta and T tasks: A (theta - 1)^2 once and theta^2 for the T - 1 others, with A = T - 1. Gradient descent on the
average of the losses and softmax-weighted gradient descent (minimax task balancing) run for a range of T. The ratio of their
worst tasks' losses grows as T; it is printed and drawn beside its closed form.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch

from hf_maskssl.models.task_balancing import TaskBalancer
from hf_maskssl.scripts import OneLineErrors, run_script

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

NUM_TASKS = [5, 10, 17, 37, 65, 145, 257, 577, 1025]
SHARP, PAPER = 300.0, 1.0  # alpha: nearly the maximum; what the paper trains with
NUM_STEPS = 1000
EXPLANATION = f"""
minimum: the closed form of the best worst loss, A / (sqrt(A) + 1)^2, at theta = sqrt(A) / (sqrt(A) + 1). Appendix C of the
paper gives the other crossing of the two parabolas, theta = sqrt(A) / (sqrt(A) - 1), which is no minimum; its bound holds.
closed form: A / 4 over that minimum, (sqrt(T - 1) + 1)^2 / 4. bound: (sqrt(T - 1) - 1)^2 / 4, Appendix C.
minimax: with a constant alpha the softmax does not reach the maximum exactly: here the two losses stay about
log(A) / (2 alpha) apart. alpha = {SHARP:g} comes close; alpha = {PAPER:g}, the paper's for training, ends between average and
minimum. The schedule of Theorem 3.1 closes the gap, but what it promises, 4 A / sqrt(steps) at most, needs far more steps.
"""


def worst_loss(num_tasks: int, method: str, alpha: float | None = None) -> float:
    """Loss of the worst task after gradient descent from theta = 0."""
    steepness = num_tasks - 1
    balancer = TaskBalancer([str(task) for task in range(num_tasks)], method, {"alpha": alpha} if alpha else None)
    scales = torch.ones(num_tasks, dtype=torch.float64)
    scales[0] = steepness
    targets = torch.zeros(num_tasks, dtype=torch.float64)
    targets[0] = 1
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    # Steps of 1 / curvature: of the average, and of the smoothed maximum near its minimum (at most, anywhere).
    curvature = 4 * steepness / num_tasks
    if alpha:
        curvature = 2 * steepness + 4 * alpha * steepness**1.5 / (math.sqrt(steepness) + 1) ** 2 * 2
    for _ in range(NUM_STEPS):
        loss = balancer(scales * (theta - targets).square(), torch.ones(num_tasks)).loss
        if not alpha:
            loss = loss / num_tasks
        (gradient,) = torch.autograd.grad(loss, theta)
        with torch.no_grad():
            theta -= gradient / curvature
    return (scales * (theta.detach() - targets).square()).max().item()


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Ratio against number of tasks, both logarithmic."""
    figure, axes = plt.subplots(figsize=(6.4, 4.4), constrained_layout=True)
    tasks = [row["T"] for row in rows]
    axes.plot(tasks, [row["closed form"] for row in rows], color="0.2", label=r"closed form, $(\sqrt{T-1}+1)^2/4$")
    axes.plot(tasks, [row["bound"] for row in rows], "--", color="0.5", label=r"paper's bound, $(\sqrt{T-1}-1)^2/4$")
    axes.plot(tasks, [row["ratio"] for row in rows], "o", color="C0", label=rf"measured, $\alpha={SHARP:g}$")
    axes.plot(
        tasks,
        [row["ratio (paper's alpha)"] for row in rows],
        "s",
        color="C1",
        fillstyle="none",
        label=rf"measured, $\alpha={PAPER:g}$ (as the paper trains)",
    )
    axes.set(xscale="log", yscale="log", xlabel="number of tasks T", ylabel="worst loss: average / minimax")
    axes.set_title("How much worse the worst task is\nafter minimising the average than after minimax (Remark 5.2)")
    axes.grid(which="major", alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> list[dict[str, float]]:
    """Command line; returns the printed rows."""
    parser = OneLineErrors(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("outputs/minimax_remark.png"),
        help="picture; default: %(default)s",
    )
    options = parser.parse_args(argv)
    rows = []
    for num_tasks in NUM_TASKS:
        root = math.sqrt(num_tasks - 1)
        average, minimax = worst_loss(num_tasks, "none"), worst_loss(num_tasks, "minimax", SHARP)
        paper = worst_loss(num_tasks, "minimax", PAPER)
        row = {"T": num_tasks, "average": average, "minimax": minimax, "minimum": (root / (root + 1)) ** 2}
        row |= {"ratio": average / minimax, "closed form": (root + 1) ** 2 / 4, "bound": (root - 1) ** 2 / 4}
        rows.append(row | {"ratio (paper's alpha)": average / paper})
        if len(rows) == 1:
            print("".join(f"{name:>{max(9, len(name) + 2)}}" for name in rows[0]))
        print("".join(f"{value:>{max(9, len(name) + 2)}.5g}" for name, value in rows[-1].items()))
    print(EXPLANATION)
    draw(rows, options.output)
    print(f"Written: {options.output}")
    return rows


if __name__ == "__main__":
    run_script(main)
