"""The evidence machine: does the missing run of a claim that is worth most, again and again, as long as there is time.

    PYTHONPATH=src nice -n 19 python benchmarks/claims.py [--hours H] [--only CLAIM ...] [--workers N] [--device cuda]
    python benchmarks/claims.py --status

Claims are files in benchmarks/claims (benchmarks/claims/README.md says how to write one). A run is one arm of a claim on one
data set with one seed; its result is a small file below benchmarks/results/claims. Which run is next follows from what has been
decided: the widest interval that decides nothing yet, for a minute of work. Settings are chosen by trial runs on validation rows.
Each worker is a process with one thread. SIGTERM, Ctrl-C or the end of the time stop the workers; a stopped run goes on
from its checkpoint in --work_dir. Results of other settings are called stale, named, and not looked at. Run it from a clone of
its own, so that work on the code does not change what runs: benchmarks/claims/README.md has the commands.
"""

import argparse
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import datasets
import torch
from common import RESULTS, ROOT
from evidence.claim import Claim, load_claims
from evidence.execute import InterruptedRun, execute, pretrain
from evidence.runs import Run, plan_run, read_results
from evidence.schedule import Candidate, Schedule
from evidence.slices import write_slices
from evidence.verdict import Ledger
from filelock import FileLock, Timeout

import hf_maskssl
from hf_maskssl.evaluation.reports import markdown_table
from hf_maskssl.scripts import OneLineErrors, run_script
from hf_maskssl.training.sweeps.encoders import DONE

CLAIMS = Path(__file__).resolve().parent / "claims"
RUNS = RESULTS / "claims"
# On a GPU small models are bound by launching kernels: the steps are replayed from a CUDA graph, on data that lie there.
GPU_SPEED = {"cuda_graphs": True, "data_on_device": True, "tf32": True}
CPU_SPEED = {"data_on_device": True}
GRACE_SECONDS = 30  # between asking workers to stop and ending them
PAUSE_SECONDS = 10  # when everything that is missing is being done by others

logger = logging.getLogger("claims")


def main() -> None:
    options = parse_arguments()
    code = Path(hf_maskssl.__file__).resolve()
    if not code.is_relative_to(ROOT):
        raise ValueError(
            f"PYTHONPATH: this would run the code in {code.parent}, not that of this clone: set PYTHONPATH=src"
        )
    os.environ.setdefault("HF_MASKSSL_SHARED", str(ROOT.parent / "shared"))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in (logger.name, "hf_maskssl"):
        logging.getLogger(name).setLevel(logging.INFO)
    datasets.disable_progress_bars()
    claims = load_claims(options.claims, options.only)
    if "HF_MASKSSL_CLAIMS_DATA" not in os.environ:
        os.environ["HF_MASKSSL_CLAIMS_DATA"] = str(options.work_dir / "data")
        write_slices(options.work_dir / "data")
    if options.status:
        print_status(claims, options)
        return
    available = [claim for claim in claims if not report_missing_data(claim)]
    if options.worker:
        work(available, options)
    elif not available:
        raise ValueError(
            "HF_MASKSSL_SHARED: no data of any claim is here: set HF_MASKSSL_SHARED to the folder that holds data/"
        )
    else:
        run_workers(options)


def parse_arguments() -> argparse.Namespace:
    parser = OneLineErrors(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0, help="how long to go on; default: %(default)s")
    parser.add_argument(
        "--only", nargs="+", metavar="CLAIM[/SET]", help="names of claims, or of a data set of one; default: all"
    )
    parser.add_argument(
        "--claims", type=Path, default=CLAIMS, help="folder of the claims' files; default: %(default)s"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, help="processes; default: one a core, but for two on a GPU machine")
    parser.add_argument("--threads", type=int, default=1, help="of a worker; one is fastest for models of this size")
    parser.add_argument(
        "--work_dir", type=Path, default=ROOT / "outputs" / "claims", help="encoders and unfinished runs"
    )
    parser.add_argument("--results", type=Path, default=RUNS, help="result files; default: %(default)s")
    parser.add_argument("--eager", action="store_true", help="on a GPU: no CUDA graphs")
    parser.add_argument("--whole_runs", action="store_true", help="begin nothing that will not end in time")
    parser.add_argument(
        "--status", action="store_true", help="print what has been decided and what is missing, and end"
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hours <= 0:
        parser.error(f"--hours: expected more than 0, got {options.hours}: no time is left to run anything")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no GPU that torch can use; leave it out")
    if options.workers is not None and options.workers < 1:
        parser.error(f"--workers: expected at least 1, got {options.workers}")
    options.work_dir, options.results = options.work_dir.resolve(), options.results.resolve()
    return options


def report_missing_data(claim: Claim) -> list[str]:
    """Data sets whose files are not here; they are named and left out, and a claim with none left is passed over."""
    missing = []
    for name in claim.sets:
        plan = plan_run(claim, Run(claim.name, name, claim.arms_of(name)[0], 0), {})
        folders = [plan.pretraining.data.data_dir, (plan.finetuning or {}).get("data", {}).get("data_dir")]
        absent = [folder for folder in folders if folder and not Path(os.path.expandvars(folder)).exists()]
        if absent:
            logger.warning("%s/%s is left out: there is no folder %s", claim.name, name, absent[0])
            missing.append(name)
    for name in missing:
        del claim.sets[name]
    return [] if claim.sets else missing


# Workers.


def run_workers(options: argparse.Namespace) -> None:
    """Start the workers, wait for them, and stop them in time."""
    cores = os.cpu_count() or 1
    count = options.workers or (max(1, cores - 2) if options.device == "cuda" else cores)
    options.work_dir.mkdir(parents=True, exist_ok=True)
    until = time.time() + 3600 * options.hours
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", "--until", str(until)]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(options.threads),
        "MKL_NUM_THREADS": str(options.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_MININTERVAL": "60",  # a log is no terminal
    }
    workers: list[subprocess.Popen[bytes]] = []
    before = len(read_results(options.results))
    with contextlib.ExitStack() as stack:
        for number in range(count):
            log = stack.enter_context(open(options.work_dir / f"worker{number}.log", "ab"))
            workers.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        for name in ("SIGTERM", "SIGINT"):
            signal.signal(getattr(signal, name), lambda number, frame: stop(workers))
        logger.info(
            "%d workers until %s; their logs: %s", count, time.strftime("%H:%M", time.localtime(until)), log.name
        )
        while time.time() < until and any(worker.poll() is None for worker in workers):
            time.sleep(1)
        stop(workers)
        deadline = time.time() + GRACE_SECONDS
        for worker in workers:
            try:
                worker.wait(max(0.1, deadline - time.time()))
            except subprocess.TimeoutExpired:
                worker.kill()
    failed = Counter(worker.returncode for worker in workers if worker.returncode)
    logger.info("%d new results in %s", len(read_results(options.results)) - before, options.results)
    if failed:
        logger.warning("exit codes of workers that failed: %s; see %s", dict(failed), options.work_dir / "worker0.log")
        raise SystemExit(1)


def stop(workers: list[subprocess.Popen[bytes]]) -> None:
    """Ask all workers to save and end."""
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()


class Stopped(Exception):
    """SIGTERM came between two runs, or in a part of one that has nothing to save."""


def work(claims: list[Claim], options: argparse.Namespace) -> None:
    """One worker: run after run until the time is up or nothing is missing."""
    torch.set_num_threads(options.threads)

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        raise Stopped

    signal.signal(signal.SIGTERM, on_sigterm)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent passes it on as SIGTERM
    speed = CPU_SPEED if options.device == "cpu" else {} if options.eager else GPU_SPEED
    failures: Counter[Run] = Counter()
    with contextlib.suppress(Stopped, InterruptedRun):
        while time.time() < options.until:
            ledger = Ledger(claims, read_results(options.results))
            missing = [one for one in Schedule(ledger, options.device).candidates() if not failures[one.run]]
            if options.whole_runs:
                left = (options.until - time.time()) / 60
                missing = [candidate for candidate in missing if candidate.minutes < left]
            if not missing:
                logger.info("nothing is missing that can be done here")
                break
            for candidate in missing:
                with reserved(candidate, ledger, options) as is_ours:
                    if is_ours:
                        done = run_one(candidate.run, ledger, options, speed)
                        failures[candidate.run] += not done
                        break
            else:
                if not prefetch(claims, options, speed):
                    time.sleep(PAUSE_SECONDS)
    if failures.total():
        raise SystemExit(1)


def prefetch(claims: list[Claim], options: argparse.Namespace, speed: dict[str, bool]) -> bool:
    """Pre-train an encoder that runs to come will share, while trials of the task on top of it are being done by others.

    Returns:
        Whether there was one.
    """
    for claim in claims:
        if claim.encoder_seeds is None:
            continue
        for arm in claim.arms:
            runs = [Run(claim.name, name, arm, seed) for name in claim.sets for seed in range(claim.encoder_seeds)]
            trials = claim.trials_of(arm)
            if claim.arms[arm].start != "pretrained" or not all(is_of_task(settings) for settings in trials):
                continue  # which encoder it will be is not known before its trials have ended
            for run in runs:
                plan = plan_run(claim, run, {})
                name = f"{options.device}-{plan.encoder_digest}"
                folder = options.work_dir / "encoders" / name
                if (folder / DONE).is_file():
                    continue
                with (
                    contextlib.suppress(Timeout),
                    FileLock(options.work_dir / "locks" / f"encoder-{name}.lock", timeout=0),
                ):
                    logger.info("%s: its encoder is pre-trained beforehand", run)
                    fields = {field: value for field, value in {**speed, **claim.speed}.items() if field in speed}
                    pretrain(plan, claim, folder, options.device, fields)
                    return True
    return False


def is_of_task(settings: dict[str, Any]) -> bool:
    """Whether settings leave the encoder as it is."""
    return all(name.startswith("finetuning.") for name in settings)


def run_one(run: Run, ledger: Ledger, options: argparse.Namespace, speed: dict[str, bool]) -> bool:
    """Do a run; whether it gave a result. What cannot work is logged with its reason, and the others go on."""
    chosen = ledger.chosen(run)
    assert chosen is not None
    logger.info("%s: begins", run)
    try:
        claim = ledger.claims[run.claim]
        fields = {name: value for name, value in {**speed, **claim.speed}.items() if name in speed}
        result = execute(claim, run, chosen, options.results, options.work_dir, options.device, fields)
    except (Stopped, InterruptedRun):
        raise
    except Exception as error:  # settings, a device, data or a package that do not work; the worker has others to do
        logger.exception("%s: %s", run, error)
        return False
    logger.info("%s: %s in %.0f s", run, result["scores"].get("test") or result["scores"], result["seconds"])
    return True


@contextlib.contextmanager
def reserved(candidate: Candidate, ledger: Ledger, options: argparse.Namespace) -> Iterator[bool]:
    """Whether this process alone may do a run now: no other does it, or pre-trains the encoder that it needs."""
    claim, chosen = ledger.claims[candidate.run.claim], ledger.chosen(candidate.run)
    assert chosen is not None
    plan = plan_run(claim, candidate.run, chosen)
    folder = options.work_dir / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"run-{options.device}-{plan.digest}"]
    if not (options.work_dir / "encoders" / f"{options.device}-{plan.encoder_digest}" / DONE).is_file():
        names.append(f"encoder-{options.device}-{plan.encoder_digest}")
    with contextlib.ExitStack() as stack:
        try:
            for name in names:
                stack.enter_context(FileLock(folder / f"{name}.lock", timeout=0))
        except Timeout:
            yield False
            return
        # Another worker may have ended it since the results were read.
        yield not candidate.run.path(options.results, options.device).is_file() or is_stale(candidate, ledger, options)


def is_stale(candidate: Candidate, ledger: Ledger, options: argparse.Namespace) -> bool:
    """Whether the file that is there is of other settings, as the ledger said."""
    return candidate.run.path(options.results, options.device).relative_to(options.results) in ledger.stale


# What has been decided.


def print_status(claims: list[Claim], options: argparse.Namespace) -> None:
    ledger = Ledger(claims, read_results(options.results))
    rows = []
    for claim in claims:
        for one in ledger.differences(claim):
            name = f"{one.comparison.arm} - {one.comparison.against}, {one.comparison.score}"
            cell = None if one.mean is None else {"mean": one.mean, "half_width": one.half_width}
            verdict = one.verdict if one.is_final or one.verdict.startswith("not") else f"{one.verdict} (so far)"
            rows.append([claim.name, one.data_set, name, f"{len(one.pairs)}/{claim.seeds}", cell, verdict])
    print(markdown_table(rows, ["claim", "data set", "difference", "pairs", "mean, 95 % interval", "verdict"]))
    schedule = Schedule(ledger, options.device)
    missing = schedule.candidates()
    print("\n" + plan_table(claims, schedule))
    print(f"\n{len(ledger.found)} results count. {len(missing)} runs can be begun now.")
    for paths, word in (
        (ledger.stale, "stale: of other settings"),
        (ledger.strange, "of no arm or data set any more"),
    ):
        if paths:
            print(f"{len(paths)} results are {word}: " + ", ".join(str(path) for path in paths[:5]))
    if missing:
        print("next: " + "; ".join(f"{one.run} ({one.minutes:.1f} min)" for one in missing[:3]))


def plan_table(claims: list[Claim], schedule: Schedule) -> str:
    """What is missing until every comparison has all its seeds: runs, minutes each, and minutes in all on one core."""
    rows: list[list[Any]] = []
    for claim in claims:
        for name in claim.sets:
            missing = schedule.missing(claim, name)
            if missing:
                minutes = [schedule.minutes(claim, run) for run in missing]
                rows.append([claim.name, name, len(missing), sum(minutes) / len(minutes), round(sum(minutes))])
    total = ["all", "", sum(row[2] for row in rows), None, sum(row[4] for row in rows)]
    return markdown_table([*rows, total], ["claim", "data set", "missing runs", "minutes each", "minutes in all"])


if __name__ == "__main__":
    run_script(main)
