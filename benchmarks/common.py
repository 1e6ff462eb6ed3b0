"""What the benchmarks share: where results lie, what the machine is called, means over seeds."""

import argparse
import dataclasses
import json
import os
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from matplotlib.figure import Figure

from hf_maskssl.evaluation.statistics import Interval, interval_of
from hf_maskssl.files import write_json
from hf_maskssl.pictures.figures import grouped_bars
from hf_maskssl.training import Pretrainer, PretrainingRecipe

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
RECIPES = ROOT / "examples" / "recipes"
# Fields of training that say where a run writes and what it shows, not what the encoder becomes.
IMMATERIAL = ("output_dir", "picture_steps", "quiet", "json_log")


def seeded_parser(description: str | None, seeds: Sequence[int] = (0, 1, 2)) -> argparse.ArgumentParser:
    """The options of a benchmark that has a result file for each run: `--seeds` and `--tables_only`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(seeds))
    parser.add_argument(
        "--tables_only", action="store_true", help="make the table and the plot of the runs that have ended"
    )
    return parser


def begin(runs: Path) -> None:
    """Make the folder of the result files, silence bars, and name the place of the small real sets where nobody has."""
    datasets.disable_progress_bars()
    os.environ.setdefault("HF_MASKSSL_SHARED", str(ROOT.parent / "shared"))
    runs.mkdir(parents=True, exist_ok=True)


def draw_bars(path: Path, panels: Mapping[str, tuple[list[str], Mapping[str, Sequence[Interval | None]]]]) -> None:
    """Panels side by side, by title their groups and the bars of each variant, with one legend."""
    figure = Figure(figsize=(4.5 * len(panels), 3.5), layout="constrained")
    for axes, (title, (labels, bars)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        grouped_bars(axes, labels, bars)
        axes.set_title(title)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, ncols=len(names), loc="outside lower center", frameon=False)
    figure.savefig(path, dpi=120)


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """Every result in a folder of one file a run, by file name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def effective_recipe(recipe: PretrainingRecipe) -> dict[str, Any]:
    """Every field that decides what an encoder becomes, as JSON gives it back."""
    sections = {"model": recipe.model}
    sections |= {name: dataclasses.asdict(getattr(recipe, name)) for name in ("data", "training")}
    for field in IMMATERIAL:
        del sections["training"][field]
    return json.loads(json.dumps(sections))


def pretrain_once(recipe: PretrainingRecipe, notes: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The folder of an encoder, pre-trained now unless it is there, and what became of its training.

    Args:
        recipe: its output folder is the encoder's.
        notes: what the record says beside steps, time, loss and learning rate.

    Raises:
        ValueError: The encoder that is there was pre-trained by another recipe.
    """
    folder, effective = Path(recipe.training.output_dir), effective_recipe(recipe)
    if not (folder / "pretraining.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        state = Pretrainer(recipe).run()
        if state.interrupted:
            raise SystemExit(f"{folder}: interrupted at step {state.step}; nothing is written down.")
        record = {
            **notes,
            "steps": state.step,
            "passes": state.epoch,
            "seconds": round(state.seconds, 1),
            "loss": state.latest("train/loss"),
            **{field: getattr(recipe.training, field) for field in ("batch_size", "learning_rate", "weight_decay")},
            "effective_recipe": effective,
        }
        write_json(folder / "pretraining.json", record)
    record = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    stored = record.pop("effective_recipe", {})  # too long for every run's file
    changed = [
        f"{section}.{field}"
        for section, fields in effective.items()
        for field in {**stored.get(section, {}), **fields}
        if stored.get(section, {}).get(field) != fields.get(field) and field not in IMMATERIAL
    ]
    if changed:
        raise ValueError(
            f"{folder} holds an encoder of another recipe ({', '.join(changed)} differ, or were not written down): "
            "remove that folder, or name another --work_dir."
        )
    return folder, record


def interval(values: Sequence[float], factor: float = 100) -> Interval | None:
    """Mean and 95 % half width over seeds, in per cent unless `factor` says otherwise; None where no run has ended."""
    return interval_of(values, factor)


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
