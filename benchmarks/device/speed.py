"""Training steps at the papers' sizes and batches, and at the claims', on one card; one JSON line a combination.

    python benchmarks/device/speed.py [--device cuda|cpu] [--seconds 180] [--output FILE] [--steps N] [--rows N] [--only NAME ...]

Beside our models stand transformers' ViTMAEForPreTraining (ViT-B/16, 224 x 224) and BertForMaskedLM, in the same run. A line
gives the median milliseconds of a step (forward, backward, fused AdamW, zero_grad; between CUDA events that the host does not
wait for), samples a second, peak memory, how often the host waits for the card in a step and where, and the model-FLOP
utilisation: operations of matrix products in a forward and backward pass, counted by torch's FlopCounterMode, over the step's
time and the rate that this card reached on an 8192 x 8192 x 8192 product in the same precision. Combinations are measured in
order of value; what no longer fits into the time is named. Each runs in a worker process that is replaced when it fails or
takes too long.
"""

import argparse
import contextlib
import gc
import json
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from common import RECIPES, ROOT
from records import append
from step_time import Setting, Step, default_batch_size, describe, summary
from step_time_methods import METHODS, Trial, build_trial, make_batch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForPreTraining, ViTMAEConfig, ViTMAEForPreTraining

from hf_maskssl import MetaMAEConfig
from hf_maskssl.data import build_config
from hf_maskssl.training import load_pretraining_recipe

STEPS = 20
WARM_UP_STEPS = 4
MATRIX = {"cuda": 8192, "cpu": 256}
PRECISIONS = {"bf16": torch.bfloat16, "tf32": torch.float32, "float32": torch.float32}
LONGEST = {"eager": 40.0, "compiled": 100.0}  # seconds a combination may take, start of the worker not counted
NEEDED = {"eager": 4.0, "compiled": 25.0}  # seconds that must be left for one to be begun
START_SECONDS = 120.0  # that a worker may take to import and find the card
VIT_B16_ROWS = 128
VIT_B16 = {
    "modality": "image",
    "image_size": 224,
    "patch_size": 16,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "qkv_bias": True,
    "decoder_hidden_size": 512,
    "decoder_num_hidden_layers": 8,
    "decoder_num_attention_heads": 16,
    "decoder_intermediate_size": 2048,
    "mask_ratio": 0.75,
    "num_adaptation_steps": 0,
    "contrastive_weight": 0.0,
}


@dataclass(frozen=True)
class Combination:
    """A model, a batch, and how it is computed.

    Attributes:
        model: "METHOD/SHAPE/VARIANT" of step_time_methods.py, "vit_b16/ours", "vit_b16/transformers", or "recipe/NAME".
    """

    model: str
    precision: str
    mode: str

    @property
    def name(self) -> str:
        return f"{self.model}-{self.precision}-{self.mode}"


def combinations() -> list[Combination]:
    """In order of value."""
    paper = [
        "metamae/pamap2/metamae",
        "metamae/pamap2/mae",
        "sma/pfam/guided",
        "multimae/imagenet1k/none",
        "pos_bert/length128/minimax",
        "pos_bert/length128/bert",
        "vit_b16/ours",
        "vit_b16/transformers",
    ]
    claims = ["recipe/spoken_digits", "recipe/sma_smiles_corpus", "recipe/pos_bert_brown", "recipe/multimae_scenes"]
    more = [
        "metamae/pfam/metamae",
        "metamae/pfam/mae",
        "metamae/eurosat/metamae",
        "metamae/eurosat/mae",
        "pos_bert/length512/minimax",
        "pos_bert/length512/bert",
        "sma/pfam/random",
        "sma/imagenet100/guided",
        "multimae/imagenet1k/minimax",
    ]
    compiled = [
        "pos_bert/length128/minimax",
        "pos_bert/length128/bert",
        "metamae/pamap2/metamae",
        "vit_b16/ours",
        "vit_b16/transformers",
        "multimae/imagenet1k/none",
        "sma/pfam/guided",
        "recipe/spoken_digits",
    ]
    order = [Combination(model, "bf16", "eager") for model in [*paper, *claims]]
    order += [Combination(model, "tf32", "eager") for model in [*paper[:6], *claims]]
    order += [Combination(model, "bf16", "compiled") for model in compiled[:3]]
    order += [Combination(model, "bf16", "eager") for model in more]
    order += [Combination(model, "bf16", "compiled") for model in compiled[3:]]
    order += [Combination(model, "float32", "eager") for model in paper]
    order += [Combination(model, "tf32", "eager") for model in more]
    return order


# ---- one combination


def build(model: str, rows: int | None, device: str) -> tuple[Trial, int]:
    """Model and batch on the CPU, and the batch's rows: the paper's or the recipe's, unless `rows` says otherwise."""
    torch.manual_seed(0)
    kind, _, rest = model.partition("/")
    if kind == "vit_b16":
        rows = rows or VIT_B16_ROWS
        generator = torch.Generator().manual_seed(0)
        batch = {"pixel_values": torch.randn(rows, 3, 224, 224, generator=generator)}
        network: Any = AutoModelForPreTraining.from_config(MetaMAEConfig(**VIT_B16)) if rest == "ours" else None
        return Trial(network or ViTMAEForPreTraining(ViTMAEConfig()), batch, 1.5e-4, 0.05), rows
    if kind == "recipe":
        recipe = load_pretraining_recipe(RECIPES / f"{rest}.yaml")
        rows = rows or recipe.training.batch_size
        config: Any = build_config(fill_in(recipe))
        network = AutoModelForPreTraining.from_config(config)
        batch = random_words(config, rows) if config.model_type == "pos_minimax_bert" else make_batch(config, rows)
        return Trial(network, batch, recipe.training.learning_rate, recipe.training.weight_decay), rows
    shape, _, variant = rest.partition("/")
    rows = rows or default_batch_size(METHODS[kind], shape, device)
    return build_trial(METHODS[kind], shape, variant, rows), rows


def fill_in(recipe: Any) -> dict[str, Any]:
    """What the data would decide of the model."""
    settings = dict(recipe.model)
    if settings.get("modality") == "tokens" or settings["model_type"] == "pos_minimax_bert":
        settings.setdefault("vocab_size", 262)
        if settings["vocab_size"] is None:
            settings["vocab_size"] = 262
    return settings


def random_words(config: Any, rows: int) -> dict[str, torch.Tensor]:
    """Pieces of any vocabulary, 15 % of them masked, of tasks at random."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, config.vocab_size, (rows, config.max_position_embeddings), generator=generator)
    is_masked = torch.rand(ids.shape, generator=generator) < 0.15
    is_masked[:, 1] = True
    tasks = torch.randint(len(config.tasks), ids.shape, generator=generator)
    return {"input_ids": ids.masked_fill(is_masked, 4), "labels": ids.masked_fill(~is_masked, -100), "tasks": tasks}


class Whole(contextlib.nullcontext[None]):
    """In place of FlopCounterMode's tracker of modules: everything belongs to the whole."""

    parents = frozenset({"Global"})


class DeviceStep(Step):
    """A step of any trial, which the host does not wait for."""

    def __init__(self, combination: Combination, trial: Trial, rows: int, device: str) -> None:
        name = combination.model.partition("/")[0]
        self.setting = Setting(
            name, device, combination.model, combination.precision, combination.mode, rows, STEPS, 0
        )
        self.model = trial.model.to(device).train()
        self.batch = send_to_device(trial.batch, device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=trial.learning_rate, weight_decay=trial.weight_decay, fused=True
        )

    def compile(self) -> None:
        """As the training loop does; another library's model as a whole."""
        known = hasattr(self.model, "compilable_modules")
        for module in self.model.compilable_modules() if known else [self.model]:
            module.compile()

    def launch(self) -> None:
        self._backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def operations(self) -> int:
        """Floating-point operations of the matrix products of a forward and backward pass."""
        counter = FlopCounterMode(display=False)
        # What it counts with by module cannot follow a module whose output needs no gradient, as in SMA's choice of masks.
        counter.mod_tracker = Whole()  # type: ignore[assignment]
        with counter:
            self._backward()
        self.optimizer.zero_grad()
        return counter.get_total_flops()


def measure(combination: Combination, options: argparse.Namespace, rates: dict[str, float]) -> dict[str, Any]:
    """A result; runs in the worker."""
    device = options.device
    torch.set_float32_matmul_precision("high" if combination.precision == "tf32" else "highest")
    trial, rows = build(combination.model, options.rows, device)
    step = DeviceStep(combination, trial, rows, device)
    del trial
    operations = step.operations()  # before it is compiled: the counter sees every operation
    if combination.mode == "compiled":
        step.compile()
    began = time.perf_counter()
    for _ in range(WARM_UP_STEPS):
        step.launch()
    synchronize(device)
    warm_up = time.perf_counter() - began
    seconds = timed(step.launch, options.steps, device)
    found: dict[str, Any] = {
        "rows": rows,
        "milliseconds": {name: 1000 * value for name, value in summary(seconds).items()},
        "samples_per_second": rows / summary(seconds)["median"],
        "gigaflop_per_step": operations / 1e9,
        "warm_up_seconds": warm_up,
        "parameters": sum(parameter.numel() for parameter in step.model.parameters()),
    }
    found["teraflop_per_second"] = operations / summary(seconds)["median"] / 1e12
    found["utilisation"] = found["teraflop_per_second"] / rates[combination.precision]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step.launch()
        torch.cuda.synchronize()
        found["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        found["host_waits"] = host_waits(step.launch)
    return found


def timed(launch: Callable[[], None], steps: int, device: str) -> list[float]:
    """Seconds of each step."""
    if device != "cuda":
        seconds = []
        for _ in range(steps):
            began = time.perf_counter()
            launch()
            seconds.append(time.perf_counter() - began)
        return seconds
    events = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    events[0].record()
    for event in events[1:]:
        launch()
        event.record()
    torch.cuda.synchronize()
    return [first.elapsed_time(second) / 1000 for first, second in zip(events[:-1], events[1:], strict=True)]


def host_waits(launch: Callable[[], None]) -> dict[str, Any]:
    """How often the host waited for the card in a step, and at which lines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            launch()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = Counter(
        f"{'/'.join(Path(warning.filename).parts[-2:])}:{warning.lineno}"
        for warning in caught
        if "synchroniz" in str(warning.message)
    )
    torch.cuda.synchronize()
    return {"count": sum(places.values()), "places": dict(places.most_common(12))}


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def matrix_rate(precision: str, device: str) -> float:
    """10^12 operations a second of a square matrix product of random numbers: the median of ten."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    size = MATRIX[device]
    one, other = (torch.randn(size, size, device=device, dtype=PRECISIONS[precision]) for _ in range(2))
    result = torch.empty_like(one)

    def multiply() -> None:
        torch.mm(one, other, out=result)

    timed(multiply, 3, device)
    seconds = timed(multiply, 10, device)
    return 2 * size**3 / summary(seconds)["median"] / 1e12


def work(options: argparse.Namespace) -> None:
    """The worker: measures the combinations whose numbers come in, and answers with a line for each."""
    rates = {}
    for precision in PRECISIONS:
        try:
            rates[precision] = matrix_rate(precision, options.device)
        except RuntimeError as error:
            answer({"error": describe(error)})
            raise
    answer({"ready": True, "rates": rates})
    todo = combinations()
    for line in sys.stdin:
        combination = todo[int(line)]
        try:
            result = measure(combination, options, rates)
        except Exception as error:  # the next combination is still worth measuring
            result = {"error": f"{type(error).__name__}: {error}"[:600]}
        answer(result)
        gc.collect()
        torch._dynamo.reset()
        if options.device == "cuda":
            torch.cuda.empty_cache()


def answer(result: dict[str, Any]) -> None:
    print("ANSWER " + json.dumps(result), flush=True)


# ---- all of them


class Worker:
    """The process that measures; started anew when it broke."""

    def __init__(self, options: argparse.Namespace) -> None:
        words = ["--device", options.device, "--steps", str(options.steps), "--worker"]
        words += [] if options.rows is None else ["--rows", str(options.rows)]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                self.answers.put(json.loads(line.removeprefix("ANSWER ")))
            else:
                print(line, end="", flush=True)
        self.answers.put({"error": "the worker process ended", "is_over": True})

    def ask(self, number: int) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{number}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its end is in the queue

    def answer(self, seconds: float) -> dict[str, Any]:
        try:
            return self.answers.get(timeout=max(0.1, seconds))
        except queue.Empty:
            return {"error": f"cut off after {seconds:.0f} s", "is_over": True}

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def measure_all(options: argparse.Namespace) -> None:
    """In order of value until the time is up; a line for each combination, also for those that are left out."""
    deadline = time.monotonic() + (options.seconds if options.until is None else options.until - time.time())
    worker: Worker | None = None
    failed_starts = 0
    for number, combination in enumerate(combinations()):
        if options.only and not any(part in combination.name for part in options.only):
            continue
        record = {
            "stage": "speed",
            "name": combination.name,
            "model": combination.model,
            "precision": combination.precision,
            "mode": combination.mode,
            "device": options.device,
        }
        if worker is None and failed_starts < 3 and deadline - time.monotonic() > NEEDED[combination.mode]:
            worker, rates = start(options, deadline)
            failed_starts += worker is None
            if rates:
                append(options.output, {"stage": "speed", "name": "matrix product", "teraflop_per_second": rates})
                print(f"matrix product, TFLOP/s: {rates}", flush=True)
        left = deadline - time.monotonic()
        if worker is None or left < NEEDED[combination.mode]:
            append(options.output, {**record, "skipped": f"{max(left, 0):.0f} s were left"})
            print(f"{combination.name}: left out, {max(left, 0):.0f} s were left", flush=True)
            continue
        began = time.monotonic()
        worker.ask(number)
        result = worker.answer(min(left, LONGEST[combination.mode]))
        if result.pop("is_over", False):
            worker.end()
            worker = None
        append(options.output, {**record, **result, "seconds": time.monotonic() - began})
        print(f"{combination.name}: {shown(result)} ({time.monotonic() - began:.0f} s)", flush=True)
    if worker is not None:
        worker.end()


def start(options: argparse.Namespace, deadline: float) -> tuple[Worker | None, dict[str, float]]:
    worker = Worker(options)
    first = worker.answer(min(START_SECONDS, deadline - time.monotonic()))
    if "ready" in first:
        return worker, first["rates"]
    print(f"the worker did not start: {first.get('error')}", flush=True)
    worker.end()
    return None, {}


def shown(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"failed: {result['error'][:300]}"
    text = f"{result['milliseconds']['median']:.2f} ms, {result['samples_per_second']:.0f} samples/s, "
    text += f"{100 * result['utilisation']:.1f} % of the matrix product"
    if "peak_mib" in result:
        text += f", {result['peak_mib']:.0f} MiB, {result['host_waits']['count']} waits"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--until", type=float, help="seconds since 1970, instead of --seconds")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "device" / "speed.jsonl")
    parser.add_argument("--steps", type=int, default=STEPS, help="timed steps of each combination")
    parser.add_argument("--rows", type=int, help="of every batch, instead of the paper's: for a rehearsal")
    parser.add_argument("--only", nargs="+", help="combinations with one of these texts in their names")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
    else:
        measure_all(options)


if __name__ == "__main__":
    main()
