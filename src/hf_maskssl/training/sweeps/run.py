"""A sweep from its file to its table: finished runs are kept, the others are run, and what has failed is said."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ...checks import changes
from ...evaluation.reports import significant
from ...files import JsonObject, remove_folder, write_json
from ...locks import FolderLock
from ...terminal import counted, duration
from .execute import FAILURE, LOG, RESULT, STOPPED, stored
from .plan import SweepRun
from .pool import Pool
from .report import Collected, collect, write_report
from .sweep_file import Sweep

IDENTITY = "sweep.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ended:
    """The state of a sweep when a call ends.

    Attributes:
        results: Content of results.json.
        failed: Titles of the runs that have failed -> error and log, in words.
        missing: Number of runs that have no result.
    """

    results: JsonObject
    failed: dict[str, str]
    missing: int


def run_sweep(
    name: str, sweep: Sweep, runs: Sequence[SweepRun], output: Path, workers: int = 1, overwrite: bool = False
) -> Ended:
    """Do the runs that have no result yet, and write results.json, results.md and results.png.

    Args:
        name: Name of the sweep, by which its folder is known.
        sweep: The sweep.
        runs: `plan_runs(sweep)`.
        output: Folder of the sweep. Runs of an earlier call with the same settings are kept; those of other settings stay where
            they are and are not looked at.
        workers: Number of runs at a time, each a process; they share torch's threads.
        overwrite: Whether to throw away what another sweep, or an earlier call, has left in the folder.

    Raises:
        ValueError: The folder holds another sweep, is in use, or cannot be written; or no run has `score`.
    """
    with FolderLock(output, "--output_dir"):
        claim_folder(name, sweep, output, overwrite)
        say_former_runs(runs, output)
        missing = [run for run in runs if not (run.folder(output) / RESULT).is_file()]
        number = len(runs) - len(missing)

        def on_end(run: SweepRun, code: int) -> None:
            nonlocal number
            number += code == 0
            say_end(run, output, code, f"{number} of {len(runs)}")

        Pool(output, sweep.curve_points, workers, on_end).run(missing)
        collected = collect(runs, output)
        results = write_report(name, sweep, collected, output)
        return Ended(results, failures(collected), sum(one.result is None for one in collected))


def claim_folder(name: str, sweep: Sweep, output: Path, overwrite: bool) -> None:
    """Make the folder this sweep's.

    Raises:
        ValueError: It is another sweep's, or holds something else.
    """
    path = output / IDENTITY
    own: JsonObject = {"name": name, "recipes": sweep.recipes, "verbs": list(sweep.verbs)}
    former = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if overwrite and former is not None:
        for entry in ("runs", "encoders"):
            remove_folder(output / entry)
    elif former is not None and former != own:
        raise ValueError(
            f"--output_dir {output} holds another sweep ({'; '.join(changes(former, own))}): name another folder, or give "
            "--overwrite to throw its runs away."
        )
    elif former is None and any(entry.name[:1] != "." for entry in output.iterdir()):
        raise ValueError(
            f"--output_dir {output} holds files of something that is no sweep: name a new or an empty folder."
        )
    write_json(path, own)


def say_former_runs(runs: Sequence[SweepRun], output: Path) -> None:
    """Tell which runs are there, and which are of settings that the sweep does not have any more."""
    known = {run.folder(output).name for run in runs}
    ended = [path.parent.name for path in (output / "runs").glob(f"*/{RESULT}")]
    kept, others = [name for name in ended if name in known], [name for name in ended if name not in known]
    if kept:
        logger.info("%s of %d stored already", counted(len(kept), "run"), len(runs))
    if others:
        logger.warning(
            "The sweep or a recipe has changed: %s in %s of other settings, not looked at, such as %s",
            counted(len(others), "run"),
            output / "runs",
            others[0],
        )


def say_end(run: SweepRun, output: Path, code: int, number: str) -> None:
    """Tell how a run has ended."""
    folder = run.folder(output)
    if code == 0:
        result = stored(folder / RESULT)
        assert result is not None, "a run that ends well has written its result"
        words = ", ".join(f"{name} {significant(result['scores'][name], 4)}" for name in result["headline"])
        logger.info("%s: %s: %s, %s", number, run.title, words, duration(result["seconds"]))
        shutil.rmtree(folder / "finetune", ignore_errors=True)  # its scores are in the result
    elif code == STOPPED or code in (-2, -15):
        logger.info("%s: stopped; the same command goes on with it", run.title)
    else:
        if code < 0:
            write_json(folder / FAILURE, {"error": f"the process was ended by signal {-code}", "kind": "signal"})
        logger.warning("%s: failed: %s", run.title, failure_words(folder))


def failure_words(folder: Path) -> str:
    """The error of a failed run, and where the rest of it stands."""
    found = stored(folder / FAILURE) or {"error": "the process ended without a word"}
    return f"{found['error']} ({folder / LOG})"


def failures(collected: Sequence[Collected]) -> dict[str, str]:
    """Title -> error of the runs that have failed."""
    return {
        one.run.title: failure_words(one.folder)
        for one in collected
        if one.result is None and (one.folder / FAILURE).is_file()
    }


def dry_lines(sweep: Sweep, runs: Sequence[SweepRun], output: Path, workers: int) -> list[str]:
    """What a call would do, in lines: each run with what its setting changes and its state; the time, once runs have ended."""
    lines: list[str] = []
    seconds: list[float] = []
    missing = 0
    if sweep.common_overrides:
        lines.append(f"in all runs: {override_words(sweep.common_overrides)}")
    for run in runs:
        result = stored(run.folder(output) / RESULT)
        missing += result is None
        if result is not None:
            seconds.append(float(result["seconds"]))
        state = "to do" if result is None else f"done, {duration(result['seconds'])}"
        lines.append(f"{run.title}: {override_words(run.setting.overrides) or 'the recipe as it is'} [{state}]")
    lines.append(f"{counted(len(runs), 'run')}, {missing} to do, into {output}")
    if seconds and missing:
        lines.append(
            f"about {duration(median(seconds) * missing / workers)} with {counted(workers, 'worker')}, by the runs that are done"
        )
    return lines


def override_words(overrides: JsonObject) -> str:
    """Changes in a line."""
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in overrides.items())
