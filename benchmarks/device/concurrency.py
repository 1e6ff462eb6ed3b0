"""How many small runs at a time a card does fastest: steps a second of 1, 4, 8, ... training processes together.

    python benchmarks/device/concurrency.py --output FILE.jsonl [--best FILE.json] [--workers 1 4 8 14] [--phase_seconds 3]

Every process trains the MetaMAE of examples/recipes/spoken_digits.yaml on its own data, once with CUDA graphs and once without,
with and without NVIDIA's multi-process service where the machine has it. All processes are started and warmed up first; then
more and more of them run together. Each combination is a JSON line; `--best` is the fastest, as options of claims.py.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hf_maskssl.training import Pretrainer, load_pretraining_recipe

RECIPE = Path(__file__).resolve().parent.parent.parent / "examples" / "recipes" / "spoken_digits.yaml"
START_SECONDS = 60  # in which all processes must have warmed up
WARM_UP_STEPS = 10
SYNCHRONISED_STEPS = 10  # counted together, after the device has done them


class PhasedPretrainer(Pretrainer):
    """Trains while its number is below `running`, and counts its steps."""

    def __init__(self, recipe: Any, number: int, running: Any, counts: Any) -> None:
        super().__init__(recipe)
        self.number, self.running, self.counts = number, running, counts

    def _after_step(self, progress: Any) -> None:
        super()._after_step(progress)
        step = self.state.step
        if step % SYNCHRONISED_STEPS == 0:
            if self.accelerator.device.type == "cuda":
                torch.cuda.synchronize()
            self.counts[self.number] = step
        while step >= WARM_UP_STEPS and 0 <= self.running.value <= self.number:
            time.sleep(0.001)
        self.stop_requested = self.running.value < 0


def train(number: int, graphs: bool, running: Any, counts: Any) -> None:
    """One process."""
    torch.set_num_threads(1)
    speed = ["--training.data_on_device", "true"]
    if torch.cuda.is_available():
        speed += ["--training.cuda_graphs", str(graphs).lower(), "--training.tf32", "true"]
    with tempfile.TemporaryDirectory() as folder:
        words = ["--training.output_dir", folder, "--training.max_steps", "1000000", "--training.save_steps", "0"]
        words += ["--probe.every_steps", "0", "--training.logging_steps", "1000", "--training.seed", str(number)]
        PhasedPretrainer(load_pretraining_recipe(RECIPE, [*words, *speed]), number, running, counts).run()


def measure(workers: list[int], graphs: bool, phase_seconds: float) -> dict[int, float]:
    """Number of processes -> steps a second of all together; only those that could be measured."""
    context = multiprocessing.get_context("spawn")
    running: Any
    counts: Any
    running, counts = context.Value("i", 0), context.Array("l", max(workers))
    processes = [context.Process(target=train, args=(k, graphs, running, counts)) for k in range(max(workers))]
    for process in processes:
        process.start()
    deadline = time.time() + START_SECONDS
    while min(counts) < WARM_UP_STEPS and time.time() < deadline and all(process.is_alive() for process in processes):
        time.sleep(0.1)
    found = {}
    if min(counts) >= WARM_UP_STEPS:
        for number in workers:
            running.value = number
            time.sleep(phase_seconds / 4)
            before, started = sum(counts), time.perf_counter()
            time.sleep(phase_seconds)
            found[number] = (sum(counts) - before) / (time.perf_counter() - started)
            print(f"{number} processes, graphs {graphs}: {found[number]:.0f} steps/s", flush=True)
    else:
        print(f"graphs {graphs}: the processes did not warm up: steps {list(counts)}", flush=True)
    running.value = -1
    for process in processes:
        process.join(5)
        process.kill()
    return found


@contextlib.contextmanager
def multi_process_service(wanted: bool) -> Iterator[bool]:
    """NVIDIA's multi-process service for the processes started inside; whether it is there."""
    if not wanted:
        yield True
        return
    if shutil.which("nvidia-cuda-mps-control") is None:
        yield False
        return
    with tempfile.TemporaryDirectory() as folder:
        places = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for place in places.values():
            Path(place).mkdir()
        environment = os.environ | places
        begun = subprocess.run(["nvidia-cuda-mps-control", "-d"], env=environment, timeout=20)
        os.environ.update(places)
        try:
            yield begun.returncode == 0
        finally:
            for name in places:
                del os.environ[name]
            subprocess.run(["nvidia-cuda-mps-control"], input=b"quit\n", env=environment, timeout=20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--best", type=Path)
    cores = os.cpu_count() or 1
    default = sorted({1, 4, 8, max(1, cores - 2)} & set(range(1, cores + 1)))
    parser.add_argument("--workers", type=int, nargs="+", default=default)
    parser.add_argument("--phase_seconds", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, default=120.0, help="no combination is begun after so many")
    options = parser.parse_args()
    until = time.time() + options.seconds
    lines: list[dict[str, Any]] = []
    for shared, graphs in ((False, True), (True, True), (True, False), (False, False)):
        if time.time() + START_SECONDS / 2 > until:
            print(f"left out for want of time: multi-process service {shared}, graphs {graphs}", flush=True)
            continue
        with multi_process_service(shared) as is_there:
            if not is_there:
                print("there is no multi-process service on this machine", flush=True)
                continue
            rates = measure(options.workers, graphs, options.phase_seconds)
        for number, rate in rates.items():
            lines.append(
                {"workers": number, "graphs": graphs, "multi_process_service": shared, "steps_per_second": rate}
            )
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"stage": "concurrency", **lines[-1]}) + "\n")
    if lines and options.best:
        best = max(lines, key=lambda line: line["steps_per_second"])
        options.best.write_text(json.dumps(best), encoding="utf-8")
        print(f"fastest: {best}", flush=True)


if __name__ == "__main__":
    main()
