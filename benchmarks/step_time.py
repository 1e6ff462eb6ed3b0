"""Time and memory of a training step at the papers' model sizes: MetaMAE beside plain MAE, or SMA's maskings.

    python benchmarks/step_time.py [--shapes pamap2 pfam eurosat] [--device cpu|cuda] [--batch_size N] [--steps N] [--tables_only]
    python benchmarks/step_time.py --method sma [--shapes pfam imagenet100] ...
    python benchmarks/step_time.py --method multimae ...
    python benchmarks/step_time.py --method pos_bert [--shapes length128 length512] ...

A step is forward, backward, AdamW and zero_grad on a random batch of the recipe's shape; "compiled" is the training loop's
`torch_compile`. Each combination of shape, precision and mode has a process of its own, in which the models take turns step by
step, so that whatever else the machine does meets all of them. Its result is written to
benchmarks/results/step_time/DEVICE-SHAPE-PRECISION-MODE.json as it ends; step_time.json and .png are made of all that are there
(SMA: step_time_sma). Memory is the most that PyTorch's allocator holds for one model during a step: weights, optimiser state,
activations, gradients. SMA's steps are also timed without all but the choice of the mask (`sample_mask`), and on a CPU the most
memory that a fresh process with the guided model ever held is noted, Python and libraries included. MultiMAE is timed under every
task balancing; the shares of its encoder and decoders are those of their forward and backward passes in the step without
balancing, and the encoder's matrix products (`torch.utils.flop_counter`) over its time say how near the machine's peak it is.
PoS-BERT is measured in the same way, on random pieces of which 15 % are masked, beside transformers' `BertForMaskedLM`, which
projects every piece to the vocabulary and in mode "compiled" is compiled as a whole.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from common import RESULTS, device_name, read_runs, synchronize
from matplotlib.figure import Figure
from step_time_methods import METHODS, Method, build_trial, load_recipe
from torch.utils.flop_counter import FlopCounterMode

from hf_maskssl.evaluation.reports import markdown_table
from hf_maskssl.files import write_json

PRECISIONS = ("float32", "bf16")
MODES = ("eager", "compiled")
WARM_UP_STEPS = 3  # the first compiles, the second may compile again for another number of support tokens
CPU_BATCH_SIZE = 32  # on a GPU the paper's
PART_STEPS = 3
TERAFLOPS = "encoder_teraflops"
MEMORY_STEPS = 2  # the second has the optimiser's state
MEMORY_BATCH_SIZE = 4
MEMORY_GOAL = 8 * 2**10  # MiB, of the image configuration in float32


@dataclass(frozen=True)
class Setting:
    """One combination to measure; all that its process needs to know."""

    method: str
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
        return [name for name in METHODS[self.method].variants if name not in skipped]


class Step:
    """A model with its optimiser and a batch; calling it trains one step and returns the seconds that took."""

    def __init__(self, setting: Setting, variant: str) -> None:
        trial = build_trial(METHODS[setting.method], setting.shape, variant, setting.batch_size)
        self.setting = setting
        self.model = trial.model
        self.model.to(setting.device).train()
        self.batch = send_to_device(trial.batch, setting.device)
        if setting.mode == "compiled":
            known = hasattr(self.model, "compilable_modules")
            for module in self.model.compilable_modules() if known else [self.model]:
                module.compile()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=trial.learning_rate, weight_decay=trial.weight_decay, fused=True
        )

    def __call__(self) -> float:
        synchronize(self.setting.device)
        started = time.perf_counter()
        self._backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        synchronize(self.setting.device)
        return time.perf_counter() - started

    @torch.no_grad()
    def select(self) -> float:
        """Seconds that it takes to choose the masks alone."""
        synchronize(self.setting.device)
        started = time.perf_counter()
        with torch.autocast(self.setting.device, torch.bfloat16, enabled=self.setting.precision == "bf16"):
            self.model.sample_mask(**self.batch)
        synchronize(self.setting.device)
        return time.perf_counter() - started

    def peak_bytes(self) -> int:
        """The most that this model holds at any time of a step, with what it keeps between steps."""
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        kept = sum(tensor.nbytes for tensor in [*self.model.parameters(), *self.model.buffers(), *states])
        return kept + (peak_growth_cuda(self) if self.setting.device == "cuda" else peak_growth_cpu(self))

    def part_shares(self, parts: str) -> dict[str, float]:
        """Parts of the time of forward and backward passes that the encoder and the children of `parts` take.

        Also the encoder's 10^12 operations of matrix products per second.
        """
        modules = {"encoder": self.model.base_model, **dict(self.model.get_submodule(parts).named_children())}
        spent = dict.fromkeys(modules, 0.0)
        begun: dict[str, float] = {}

        def begin(name: str) -> Callable[..., None]:
            def hook(*_: Any) -> None:
                synchronize(self.setting.device)
                begun[name] = time.perf_counter()

            return hook

        def end(name: str) -> Callable[..., None]:
            def hook(*_: Any) -> None:
                synchronize(self.setting.device)
                spent[name] += time.perf_counter() - begun[name]

            return hook

        def at_gradient(module: Any, args: Any, output: Any) -> None:
            output.last_hidden_state.register_hook(begin("encoder"))

        handles = []
        for name, module in modules.items():
            handles += [module.register_forward_pre_hook(begin(name)), module.register_forward_hook(end(name))]
        # Its output is no bare tensor, so the backward pass is met at the tensor; it ends with that of the whole model.
        handles.append(modules.pop("encoder").register_forward_hook(at_gradient))
        for name, module in modules.items():
            handles.append(module.register_full_backward_pre_hook(begin(name)))
            handles.append(module.register_full_backward_hook(end(name)))
        total = 0.0
        for _ in range(PART_STEPS):
            started = time.perf_counter()
            self._backward()
            end("encoder")()
            total += time.perf_counter() - started
            self.optimizer.zero_grad()
        for handle in handles:
            handle.remove()
        with FlopCounterMode(display=False) as counter:
            self._backward()
        self.optimizer.zero_grad()
        operations = sum(
            counter.get_flop_counts()[f"{type(self.model).__name__}.{self.model.base_model_prefix}"].values()
        )
        rate = PART_STEPS * operations / spent["encoder"] / 1e12
        return {name: seconds / total for name, seconds in spent.items()} | {TERAFLOPS: rate}

    def _backward(self) -> None:
        with torch.autocast(self.setting.device, torch.bfloat16, enabled=self.setting.precision == "bf16"):
            loss = self.model(**self.batch).loss
        loss.backward()


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
    method = METHODS[setting.method]
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
    selections: dict[str, list[float]] = {variant: [] for variant in steps}
    order = list(steps)
    for number in range(setting.steps):
        for variant in order:
            torch.manual_seed(number)  # the same masks for all
            seconds[variant].append(steps[variant]())
            if method.selection_goal is not None:
                selections[variant].append(steps[variant].select())
        order = order[1:] + order[:1]  # nobody is always first
    variants: dict[str, Any] = {variant: {"error": error} for variant, error in errors.items()}
    for variant, step in steps.items():
        variants[variant] = {
            "seconds": summary(seconds[variant]),
            "times_baseline": compare(seconds[variant], seconds.get(method.baseline)),
            "peak_mib": step.peak_bytes() / 2**20,
        }
        if method.reference is not None:
            variants[variant]["times_reference"] = compare(seconds[variant], seconds.get(method.reference))
        if selections[variant]:
            variants[variant]["selection_seconds"] = summary(selections[variant])
            variants[variant]["selection_share"] = compare(selections[variant], seconds[variant])
        # Hooks would break up a reference that is compiled as a whole.
        is_whole = variant == method.reference and setting.mode == "compiled"
        if method.parts is not None and variant in (method.baseline, method.reference) and not is_whole:
            variants[variant]["part_shares"] = step.part_shares(method.parts)
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


def measure_memory(setting: Setting) -> float:
    """MiB that this process held at most, having trained the variant with the goal; runs in a process of its own."""
    torch.set_num_threads(setting.threads)
    step = Step(setting, METHODS[setting.method].claim)
    for _ in range(MEMORY_STEPS):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # Linux counts in KiB


def measure_apart(setting: Setting) -> dict[str, Any]:
    """`measure` in a fresh process; one that is killed, for its memory say, is a result as well."""
    with fresh_process() as pool:
        try:
            result = pool.submit(measure, setting).result()
        except BrokenProcessPool as error:
            failed = {variant: {"error": describe(error)} for variant in setting.variants}
            return describe_setting(setting) | {"variants": failed}
    if setting.method == "sma" and (setting.device, setting.precision, setting.mode) == ("cpu", "float32", "eager"):
        small = replace(setting, batch_size=MEMORY_BATCH_SIZE)
        with fresh_process() as pool:
            result["process_peak"] = {
                "batch_size": small.batch_size,
                "mib": pool.submit(measure_memory, small).result(),
            }
    return result


def fresh_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


# The table and the plot.


def read_results(method: Method, folder: Path) -> list[dict[str, Any]]:
    """All measurements, by device, shape, precision and mode."""
    order = {name: place for place, name in enumerate([*method.shapes, *PRECISIONS, *MODES])}
    return sorted(
        read_runs(folder), key=lambda r: (r["device"], order[r["shape"]], order[r["precision"]], order[r["mode"]])
    )


def table_columns(method: Method) -> list[str]:
    titles = [title for title, _ in method.variants.values()]
    baseline = method.variants[method.baseline][0]
    columns = ["device", "shape × batch", "precision", "mode", *(f"{title}, ms" for title in titles)]
    columns += [f"{title} / {baseline}" for title in titles if title != baseline]
    if method.selection_goal is not None:
        columns += [f"choosing the mask, {title}, %" for title in titles]
    return columns + [f"{title}, MiB" for title in titles]


def table_row(method: Method, result: dict[str, Any]) -> list[Any]:
    found = {name: result["variants"].get(name) for name in method.variants}
    row = [
        result["device_name"],
        f"{method.shapes[result['shape']]} × {result['batch_size']}",
        result["precision"],
        result["mode"],
    ]
    row += [time_cell(found[name]) for name in method.variants]
    row += [ratio_of(found[name]) for name in method.variants if name != method.baseline]
    if method.selection_goal is not None:
        shares = [share_of(found[name]) for name in method.variants]
        row += [None if share is None else 100 * share for share in shares]
    row += [round(entry["peak_mib"]) if entry and "peak_mib" in entry else None for entry in found.values()]
    return row


def time_cell(entry: dict[str, Any] | None) -> str | None:
    """Median milliseconds and the quartiles."""
    if entry is None or "error" in entry:
        return None if entry is None else textwrap.shorten(f"failed: {entry['error']}", 80, placeholder=" ...")
    quartiles = (entry["seconds"][name] for name in ("median", "lower_quartile", "upper_quartile"))
    median, low, high = (f"{1000 * value:.{0 if value >= 0.1 else 1}f}" for value in quartiles)
    return f"{median} ({low}–{high})"


def ratio_of(entry: dict[str, Any] | None, name: str = "times_baseline") -> float | None:
    return entry[name]["median"] if entry and entry.get(name) else None


def share_of(entry: dict[str, Any] | None) -> float | None:
    """The part of a step that goes into choosing the mask."""
    return entry["selection_share"]["median"] if entry and entry.get("selection_share") else None


def parts_table(method: Method, results: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Shares of a step in per cent, a row for each measurement."""
    rows, columns = [], ["device", "precision", "mode"]
    for result in results:
        # Where there is one shape and one model that has parts, they need not be named.
        head = [result["device_name"], result["precision"], result["mode"]]
        for variant in [name for name in (method.reference, method.baseline) if name is not None]:
            shares = (result["variants"].get(variant) or {}).get("part_shares")
            if not shares:
                continue
            values = {f"{name}, %": round(100 * share, 1) for name, share in shares.items() if name != TERAFLOPS}
            if method.rest is not None:
                values[f"{method.rest}, %"] = round(100 - sum(values.values()), 1)
            named = [] if method.reference is None else [method.shapes[result["shape"]], method.variants[variant][0]]
            columns = ["device", "precision", "mode", *(["shape", "model"] if named else []), *values]
            columns.append("encoder, Tflop/s")
            rows.append([*head, *named, *values.values(), round(shares[TERAFLOPS], 3)])
    return {"columns": columns, "rows": rows}


def goals(method: Method, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was aimed at, and in how many of the measurements it was reached."""
    ratios = [ratio_of(result["variants"].get(method.claim)) for result in results]
    found = [goal(f"{method.versus}, time of a step", method.goal, ratios) | {"paper": method.paper}]
    if method.reference is not None and method.speed_goal is not None:
        on_cpu = [r for r in results if (r["device"], r["precision"]) == ("cpu", "float32")]
        ratios = [ratio_of(result["variants"].get(method.claim), "times_reference") for result in on_cpu]
        titles = " / ".join(method.variants[name][0] for name in (method.claim, method.reference))
        what = f"{titles}, the same in float32 on a CPU: {method.speed_goal} times as fast"
        found.append(goal(what, 1 / method.speed_goal, ratios))
    if method.selection_goal is not None:
        shares = [share_of(result["variants"].get(method.claim)) for result in results]
        found.append(goal("choosing the mask, share of a step", method.selection_goal, shares))
        peaks = [peak_of(method, r) for r in results if (r["shape"], r["precision"]) == ("imagenet100", "float32")]
        found.append(goal(f"images, batch {MEMORY_BATCH_SIZE} in float32, MiB", MEMORY_GOAL, peaks))
    return found


def goal(what: str, at_most: float, values: list[float | None]) -> dict[str, Any]:
    measured = [value for value in values if value is not None]
    reached = sum(value <= at_most for value in measured)
    return {
        "what": what,
        "at_most": at_most,
        "worst": max(measured, default=None),
        "reached": reached,
        "of": len(measured),
    }


def peak_of(method: Method, result: dict[str, Any]) -> float | None:
    """MiB at `MEMORY_BATCH_SIZE`: of the whole process, on a GPU of its allocator."""
    if "process_peak" in result:
        return result["process_peak"]["mib"]
    entry = result["variants"].get(method.claim) or {}
    return entry.get("peak_mib") if result["batch_size"] == MEMORY_BATCH_SIZE else None


def write_tables(method: Method, output: Path) -> None:
    """step_time.json and .png in `output`, and the table on the screen."""
    results = read_results(method, output / method.results_name)
    if not results:
        raise SystemExit(
            f"There is no measurement in {output / method.results_name}: run without --tables_only first."
        )
    columns = table_columns(method)
    rows = [table_row(method, result) for result in results]
    reached = goals(method, results)
    goal_rows = [
        [entry["what"], entry["at_most"], entry["worst"], f"{entry['reached']} of {entry['of']}"] for entry in reached
    ]
    tables: dict[str, dict[str, list[Any]]] = {"times": {"columns": columns, "rows": rows}}
    if method.parts is not None:
        tables["parts"] = parts_table(method, results)
    tables["goals"] = {"columns": ["goal", "at most", "worst", "reached"], "rows": goal_rows}
    write_json(
        output / f"{method.results_name}.json",
        {
            "what": "a training step: median milliseconds (quartiles), median ratio of neighbouring steps, peak memory",
            "goals": reached,
            "table": tables["times"],
            "tables": tables,
            "measurements": results,
        },
    )
    draw(method, results, output / f"{method.results_name}.png")
    for table in tables.values():
        print(markdown_table(table["rows"], table["columns"]), end="\n\n")


def draw(method: Method, results: list[dict[str, Any]], path: Path) -> None:
    """A row of panels for each device: time, time over the baseline's, memory."""
    baseline = method.variants[method.baseline][0]
    devices = list(dict.fromkeys(result["device_name"] for result in results))
    figure = Figure(figsize=(16, 4.6 * len(devices)), layout="constrained")
    for device, panels in zip(devices, figure.subplots(len(devices), 3, squeeze=False), strict=True):
        chosen = [result for result in results if result["device_name"] == device]
        labels = [f"{method.shapes[result['shape']]}\n{result['precision']}\n{result['mode']}" for result in chosen]
        for axes, title in zip(
            panels, ("milliseconds per step", f"time / {baseline}'s", "peak memory, MiB"), strict=True
        ):
            axes.set_xticks(range(len(chosen)), labels, fontsize=6)
            axes.set_xlim(-0.5, len(chosen) - 0.5)  # also where all bars failed
            axes.set_title(f"{device}: {title}", fontsize=9)
            axes.spines[["top", "right"]].set_visible(False)
        for number, (name, (title, _)) in enumerate(method.variants.items()):
            width = 0.81 / len(method.variants)
            middle = (len(method.variants) - 1) / 2
            places = [place + (number - middle) * width for place in range(len(chosen))]
            entries = [result["variants"].get(name) or {} for result in chosen]
            times = [entry.get("seconds") for entry in entries]
            medians = [1000 * found["median"] if found else np.nan for found in times]
            spread = [[0.0, 0.0] if found is None else quartile_distances(found) for found in times]
            panels[0].bar(places, medians, width, yerr=np.transpose(spread), label=title, capsize=1.5)
            panels[1].bar(places, [ratio_of(entry) or np.nan for entry in entries], width)
            panels[2].bar(places, [entry.get("peak_mib", np.nan) for entry in entries], width)
        reference = "" if method.reference is None else method.variants[method.reference][0]
        lines = ((method.goal, "goal"), (method.paper, "paper"), (method.speed_goal, f"goal for {reference}"))
        for value, name in lines:
            if value is None:
                continue
            panels[1].axhline(value, color="black", linewidth=0.8, linestyle=":" if name == "paper" else "--")
            panels[1].annotate(f"{name} {value}", (len(chosen) - 0.5, value), fontsize=7, va="center")
        panels[0].legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    figure.savefig(path, dpi=120)


def quartile_distances(found: dict[str, float]) -> list[float]:
    median = found["median"]
    return [1000 * (median - found["lower_quartile"]), 1000 * (found["upper_quartile"] - median)]


def default_batch_size(method: Method, shape: str, device: str) -> int:
    """The method's for the device; else the recipe's on a GPU and `CPU_BATCH_SIZE` on a CPU."""
    if shape in method.batch_sizes.get(device, {}):
        return method.batch_sizes[device][shape]
    return load_recipe(method, shape, method.baseline).training.batch_size if device == "cuda" else CPU_BATCH_SIZE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=list(METHODS), default="metamae")
    parser.add_argument("--shapes", nargs="+", help="recipes without the method's name; default: all")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch_size", type=int, help="default: the paper's on a GPU, smaller on a CPU")
    parser.add_argument("--steps", type=int, help="timed steps of each model; default: 50 on a GPU, 10 on a CPU")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of a CPU")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--tables_only", action="store_true", help="make the table and the plot of what was measured")
    options = parser.parse_args()
    method = METHODS[options.method]
    shapes = options.shapes or list(method.shapes)
    if unknown := [shape for shape in shapes if shape not in method.shapes]:
        parser.error(f"--shapes {' '.join(unknown)}: {method.name} has {', '.join(method.shapes)}")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler of the processes to come: no lines of its own
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU here")
    combinations = [(s, p, m) for s in shapes for p in options.precisions for m in options.modes]
    for shape, precision, mode in [] if options.tables_only else combinations:
        setting = Setting(
            method=method.name,
            device=options.device,
            shape=shape,
            precision=precision,
            mode=mode,
            batch_size=options.batch_size or default_batch_size(method, shape, options.device),
            steps=options.steps or (50 if options.device == "cuda" else 10),
            threads=options.threads,
        )
        started = time.perf_counter()
        result = measure_apart(setting)
        write_json(options.output / method.results_name / f"{setting.name}.json", result)
        found = {name: ratio_of(entry) or entry.get("error") for name, entry in result["variants"].items()}
        print(f"{setting.name}: {found} ({time.perf_counter() - started:.0f} s)", flush=True)
    write_tables(method, options.output)


if __name__ == "__main__":
    main()
