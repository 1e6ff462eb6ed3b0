"""What the benchmarks share: where results lie, what the machine is called, means over seeds, grouped bars."""

import json
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes

from hf_maskssl.evaluation.statistics import mean_interval

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
RECIPES = ROOT / "examples" / "recipes"


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """Every result in a folder of one file a run, by file name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def interval(values: Sequence[float], factor: float = 100) -> dict[str, float | None] | None:
    """Mean and 95 % half width over seeds, in per cent unless `factor` says otherwise; None where no run has ended."""
    if not values:
        return None
    mean, half_width = mean_interval([factor * value for value in values])
    return {"mean": mean, "half_width": half_width}


def grouped_bars(
    axes: Axes, labels: Sequence[str], bars: Mapping[str, Sequence[dict[str, float | None] | None]]
) -> None:
    """A group of bars for each label, one bar for each title, with intervals; a missing cell leaves a gap."""
    width = 0.8 / len(bars)
    for number, (title, cells) in enumerate(bars.items()):
        places = [place + (number - (len(bars) - 1) / 2) * width for place in range(len(labels))]
        means = [float("nan") if cell is None or cell["mean"] is None else cell["mean"] for cell in cells]
        errors = [float("nan") if cell is None else cell["half_width"] or float("nan") for cell in cells]
        axes.bar(places, means, width, yerr=errors, label=title, capsize=2)
    axes.set_xticks(range(len(labels)), labels)
    axes.spines[["top", "right"]].set_visible(False)


def synchronize(device: str) -> None:
    """Wait for a GPU to finish, before the clock is read."""
    if device == "cuda":
        torch.cuda.synchronize()


def device_name(device: str, threads: int) -> str:
    """The card's name, or the processor's with the number of threads."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    name = " ".join(re.sub(r"\((R|TM)\)|CPU|Processor|@.*", " ", name).split())
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"
