"""Time and memory of a training step of MetaMAE and of plain MAE, at the paper's model size.

    python benchmarks/step_time.py [--shapes pamap2 pfam eurosat] [--device cpu|cuda] [--batch_size N] [--steps N] [--tables_only]

A step is forward, backward, AdamW and zero_grad on a random batch of the recipe's shape; "compiled" is the training loop's
`torch_compile`. Each combination of shape, precision and mode has a process of its own, in which the models take turns step by
step, so that whatever else the machine does meets all of them. Its result is written to
benchmarks/results/step_time/DEVICE-SHAPE-PRECISION-MODE.json as it ends; step_time.json and .png are made of all that are there.
Memory is the most that PyTorch's allocator holds for one model during a step: weights, optimiser state, activations, gradients.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import tempfile
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from transformers import AutoModelForPreTraining, PreTrainedConfig

from hf_maskssl.data import build_config
from hf_maskssl.evaluation.reports import markdown_table, write_json
from hf_maskssl.training import load_pretraining_recipe

ROOT = Path(__file__).resolve().parent.parent
SHAPES = {"pamap2": "PAMAP2", "pfam": "Pfam", "eurosat": "EuroSAT"}
# Variant -> title, changes to the recipe. The first is what the others are compared with.
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "mae": ("MAE", ["--num_adaptation_steps", "0", "--contrastive_weight", "0.0"]),
    "metamae": ("MetaMAE", []),
    "metamae_first_order": ("first order", ["--first_order", "true"]),
}
BASELINE = "mae"
PRECISIONS = ("float32", "bf16")
MODES = ("eager", "compiled")
WARM_UP_STEPS = 3  # the first compiles, the second may compile again for another number of support tokens
CPU_BATCH_SIZE = 32  # on a GPU the paper's
GOAL, PAPER = 1.6, 1.4  # MetaMAE's time over MAE's; the paper: section 3.3, computational efficiency


@dataclass(frozen=True)
class Setting:
    """One combination to measure; all that its process needs to know."""

    device: str
    shape: str
    precision: str
    mode: str
    batch_size: int
    steps: int
    threads: int

    @property
    def name(self) -> str:
        return f"{self.device}-{self.shape}-{self.precision}-{self.mode}"

    @property
    def variants(self) -> list[str]:
        # Its decoder is compiled in three forms, which on a CPU takes about as long as all else in the process.
        skipped = {"metamae_first_order"} if self.mode == "compiled" and self.device == "cpu" else set()
        return [name for name in VARIANTS if name not in skipped]


class Step:
    """A model with its optimiser and a batch; calling it trains one step and returns the seconds that took."""

    def __init__(self, setting: Setting, variant: str) -> None:
        recipe = load_recipe(setting.shape, variant)
        config = build_config(recipe.model)
        torch.manual_seed(0)
        self.setting = setting
        self.model = AutoModelForPreTraining.from_config(config).to(setting.device).train()
        self.batch = make_batch(config, setting.batch_size, setting.device)
        if setting.mode == "compiled":
            for module in self.model.compilable_modules():
                module.compile()
        args = recipe.training
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay, fused=True
        )

    def __call__(self) -> float:
        synchronize(self.setting.device)
        started = time.perf_counter()
        with torch.autocast(self.setting.device, torch.bfloat16, enabled=self.setting.precision == "bf16"):
            loss = self.model(**self.batch).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        synchronize(self.setting.device)
        return time.perf_counter() - started

    def peak_bytes(self) -> int:
        """The most that this model holds at any time of a step, with what it keeps between steps."""
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        kept = sum(tensor.nbytes for tensor in [*self.model.parameters(), *self.model.buffers(), *states])
        return kept + (peak_growth_cuda(self) if self.setting.device == "cuda" else peak_growth_cpu(self))


def load_recipe(shape: str, variant: str) -> Any:
    path = ROOT / "examples" / "recipes" / f"metamae_{shape}.yaml"
    return load_pretraining_recipe(path, VARIANTS[variant][1])


def make_batch(config: PreTrainedConfig, batch_size: int, device: str) -> dict[str, torch.Tensor]:
    """Random input of the configuration's shape, nothing padded."""
    generator = torch.Generator().manual_seed(0)
    if config.modality == "tokens":
        ids = torch.randint(config.vocab_size, (batch_size, config.max_position_embeddings), generator=generator)
        return {"input_ids": ids.to(device)}
    values = torch.randn(batch_size, config.num_channels, *config.signal_shape, generator=generator)
    return {"input_values" if config.modality == "series" else "pixel_values": values.to(device)}


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_growth_cuda(step: Step) -> int:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


def peak_growth_cpu(step: Step) -> int:
    """As the GPU's allocator counts it. The resident set would count the compiler and what malloc does not give back."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    # Counted from the beginning of the profile.
    return max(event["args"]["Total Allocated"] for event in events if event.get("name") == "[memory]")


def measure(setting: Setting) -> dict[str, Any]:
    """The result of one file; runs in a process of its own."""
    torch.set_num_threads(setting.threads)
    # Instead of running on uncompiled with a warning after too many compilations, which would be timed as compiled.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    steps: dict[str, Step] = {}
    errors: dict[str, str] = {}
    for variant in setting.variants:
        try:
            step = Step(setting, variant)
            for _ in range(WARM_UP_STEPS):
                step()
            steps[variant] = step
        except RuntimeError as error:  # compilers' errors and exhausted memory are of this class
            errors[variant] = describe(error)
    seconds: dict[str, list[float]] = {variant: [] for variant in steps}
    order = list(steps)
    for _ in range(setting.steps):
        for variant in order:
            seconds[variant].append(steps[variant]())
        order = order[1:] + order[:1]  # nobody is always first
    variants: dict[str, Any] = {variant: {"error": error} for variant, error in errors.items()}
    for variant, step in steps.items():
        variants[variant] = {
            "seconds": summary(seconds[variant]),
            "times_baseline": compare(seconds[variant], seconds.get(BASELINE)),
            "peak_mib": step.peak_bytes() / 2**20,
        }
    return describe_setting(setting) | {"variants": variants}


def summary(values: list[float]) -> dict[str, float]:
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "lower_quartile": float(low), "upper_quartile": float(high)}


def compare(seconds: list[float], baseline: list[float] | None) -> dict[str, float] | None:
    """Ratios of steps that were taken one after the other; None where the baseline failed."""
    if baseline is None:
        return None
    return summary([one / other for one, other in zip(seconds, baseline, strict=True)])


def describe(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def describe_setting(setting: Setting) -> dict[str, Any]:
    return {
        **asdict(setting),
        "device_name": device_name(setting.device, setting.threads),
        "warm_up_steps": WARM_UP_STEPS,
        "torch": torch.__version__,
    }


def device_name(device: str, threads: int) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    name = " ".join(re.sub(r"\((R|TM)\)|CPU|Processor|@.*", " ", name).split())
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def measure_apart(setting: Setting) -> dict[str, Any]:
    """`measure` in a fresh process; one that is killed, for its memory say, is a result as well."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure, setting).result()
        except BrokenProcessPool as error:
            failed = {variant: {"error": describe(error)} for variant in setting.variants}
            return describe_setting(setting) | {"variants": failed}


# The table and the plot.


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All measurements, by device, shape, precision and mode."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    order = {name: place for place, name in enumerate([*SHAPES, *PRECISIONS, *MODES])}
    return sorted(results, key=lambda r: (r["device"], order[r["shape"]], order[r["precision"]], order[r["mode"]]))


def table_row(result: dict[str, Any]) -> list[Any]:
    found = {name: result["variants"].get(name) for name in VARIANTS}
    row = [
        result["device_name"],
        f"{SHAPES[result['shape']]} × {result['batch_size']}",
        result["precision"],
        result["mode"],
    ]
    row += [time_cell(found[name]) for name in VARIANTS]
    row += [ratio_of(found[name]) for name in VARIANTS if name != BASELINE]
    row += [round(entry["peak_mib"]) if entry and "peak_mib" in entry else None for entry in found.values()]
    return row


def time_cell(entry: dict[str, Any] | None) -> str | None:
    """Median milliseconds and the quartiles."""
    if entry is None or "error" in entry:
        return None if entry is None else textwrap.shorten(f"failed: {entry['error']}", 80, placeholder=" ...")
    quartiles = (entry["seconds"][name] for name in ("median", "lower_quartile", "upper_quartile"))
    median, low, high = (f"{1000 * value:.{0 if value >= 0.1 else 1}f}" for value in quartiles)
    return f"{median} ({low}–{high})"


def ratio_of(entry: dict[str, Any] | None) -> float | None:
    return entry["times_baseline"]["median"] if entry and entry.get("times_baseline") else None


def write_tables(output: Path) -> None:
    """step_time.json and .png in `output`, and the table on the screen."""
    results = read_results(output / "step_time")
    if not results:
        raise SystemExit(f"There is no measurement in {output / 'step_time'}: run without --tables_only first.")
    titles = [title for title, _ in VARIANTS.values()]
    columns = ["device", "shape × batch", "precision", "mode", *(f"{title}, ms" for title in titles)]
    columns += [f"{title} / {VARIANTS[BASELINE][0]}" for name, (title, _) in VARIANTS.items() if name != BASELINE]
    columns += [f"{title}, MiB" for title in titles]
    rows = [table_row(result) for result in results]
    ratios = [ratio_of(result["variants"].get("metamae")) for result in results]
    reached = sum(ratio is not None and ratio <= GOAL for ratio in ratios)
    write_json(
        output / "step_time.json",
        {
            "what": "a training step: median milliseconds (quartiles), median ratio of neighbouring steps, peak memory",
            "goal": {"metamae_over_mae_at_most": GOAL, "paper": PAPER, "reached": reached, "of": len(ratios)},
            "table": {"columns": columns, "rows": rows},
            "measurements": results,
        },
    )
    draw(results, output / "step_time.png")
    print(markdown_table(rows, columns))
    print(f"\nMetaMAE / MAE: goal at most {GOAL} (paper {PAPER}), reached in {reached} of {len(ratios)}.")


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """A row of panels for each device: time, time over MAE's, memory."""
    devices = list(dict.fromkeys(result["device_name"] for result in results))
    figure = Figure(figsize=(16, 4.6 * len(devices)), layout="constrained")
    for device, panels in zip(devices, figure.subplots(len(devices), 3, squeeze=False), strict=True):
        chosen = [result for result in results if result["device_name"] == device]
        labels = [f"{SHAPES[result['shape']]}\n{result['precision']}\n{result['mode']}" for result in chosen]
        for axes, title in zip(panels, ("milliseconds per step", "time / MAE's", "peak memory, MiB"), strict=True):
            axes.set_xticks(range(len(chosen)), labels, fontsize=6)
            axes.set_xlim(-0.5, len(chosen) - 0.5)  # also where all bars failed
            axes.set_title(f"{device}: {title}", fontsize=9)
            axes.spines[["top", "right"]].set_visible(False)
        for number, (name, (title, _)) in enumerate(VARIANTS.items()):
            places = [place + (number - 1) * 0.27 for place in range(len(chosen))]
            entries = [result["variants"].get(name) or {} for result in chosen]
            times = [entry.get("seconds") for entry in entries]
            medians = [1000 * found["median"] if found else np.nan for found in times]
            spread = [[0.0, 0.0] if found is None else quartile_distances(found) for found in times]
            panels[0].bar(places, medians, 0.27, yerr=np.transpose(spread), label=title, capsize=1.5)
            panels[1].bar(places, [ratio_of(entry) or np.nan for entry in entries], 0.27)
            panels[2].bar(places, [entry.get("peak_mib", np.nan) for entry in entries], 0.27)
        for value, name in ((GOAL, "goal"), (PAPER, "paper")):
            panels[1].axhline(value, color="black", linewidth=0.8, linestyle="--" if name == "goal" else ":")
            panels[1].annotate(f"{name} {value}", (len(chosen) - 0.5, value), fontsize=7, va="center")
        panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def quartile_distances(found: dict[str, float]) -> list[float]:
    median = found["median"]
    return [1000 * (median - found["lower_quartile"]), 1000 * (found["upper_quartile"] - median)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch_size", type=int, help=f"default: the paper's on a GPU, {CPU_BATCH_SIZE} on a CPU")
    parser.add_argument("--steps", type=int, help="timed steps of each model; default: 50 on a GPU, 10 on a CPU")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of a CPU")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    parser.add_argument("--tables_only", action="store_true", help="make the table and the plot of what was measured")
    options = parser.parse_args()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler of the processes to come: no lines of its own
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU here")
    combinations = [(s, p, m) for s in options.shapes for p in options.precisions for m in options.modes]
    for shape, precision, mode in [] if options.tables_only else combinations:
        paper_batch_size = load_recipe(shape, BASELINE).training.batch_size
        setting = Setting(
            device=options.device,
            shape=shape,
            precision=precision,
            mode=mode,
            batch_size=options.batch_size or (paper_batch_size if options.device == "cuda" else CPU_BATCH_SIZE),
            steps=options.steps or (50 if options.device == "cuda" else 10),
            threads=options.threads,
        )
        started = time.perf_counter()
        result = measure_apart(setting)
        write_json(options.output / "step_time" / f"{setting.name}.json", result)
        found = {name: ratio_of(entry) or entry.get("error") for name, entry in result["variants"].items()}
        print(f"{setting.name}: {found} ({time.perf_counter() - started:.0f} s)", flush=True)
    write_tables(options.output)


if __name__ == "__main__":
    main()
