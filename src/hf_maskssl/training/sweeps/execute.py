"""One run of a sweep, in a process of its own: from its settings to the file of its scores."""

import dataclasses
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
import transformers
import yaml

from ...data.arguments import DataArguments
from ...evaluation.arguments import ProbeArguments
from ...evaluation.evaluate_checkpoint import evaluate_checkpoint
from ...files import JsonObject, JsonView, write_json, write_whole
from ...orphans import end_with_run
from ...recipes import build_recipe
from ...scripts import one_line
from ...terminal import log_to_terminal, one_voice
from ...version import __version__
from ..cost import device_name
from ..finetuning.arguments import FinetuningRecipe
from ..finetuning.stopping import RunStopped
from ..finetuning.sweep import finetune
from .encoders import pretrain_encoder
from .plan import PROBING, SweepRun, checked_finetuning, checked_pretraining

RESULT, FAILURE, LOG, SPENT = "result.json", "failure.json", "log.txt", "seconds.json"
STOPPED = 75  # exit code of a run that a signal has stopped, and that goes on when it is started again
PROBES = ("linear", "knn")


class RunInterrupted(Exception):
    """A signal has stopped the run; what there is to go on with is saved."""


class Stopwatch:
    """The seconds of a run over all calls that it took, kept in its folder between them.

    Of a call that is killed, and so cannot say how long it went on, those up to its last `save` count.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.started = folder / SPENT, time.perf_counter()
        self.earlier = float((stored(self.path) or {"seconds": 0.0})["seconds"])

    def seconds(self) -> float:
        """Seconds of earlier calls and of this one."""
        return self.earlier + time.perf_counter() - self.started

    def save(self) -> None:
        """Keep the seconds for a later call."""
        write_json(self.path, {"seconds": self.seconds()})

    def forget(self) -> None:
        """The run has ended: another one in the same folder begins at 0."""
        self.path.unlink(missing_ok=True)


def execute(run: SweepRun, output: Path, curve_points: int) -> JsonObject:
    """Do what the run's verbs say; the result is written to its folder.

    Args:
        run: The run.
        output: Folder of the sweep.
        curve_points: Number of online probes in pre-training.

    Returns:
        {"setting", "overrides", "recipe", "seed", "digest", "scores" {name: value}, "headline": names of the scores that
        tables show, the first one first, "curve" (`pretrain_encoder`), "seconds" of all calls that it took,
        "pretraining_seconds": of training alone, of an encoder that another run may have trained, "device", "versions"}.

    Raises:
        RunInterrupted: SIGTERM or Ctrl-C came; the same call goes on.
    """
    folder = run.folder(output)
    write_recipes(run, output)
    stopwatch = Stopwatch(folder)
    try:
        scores, headline, course = scores_of_verbs(run, output, curve_points, stopwatch)
    except BaseException:  # of whatever kind: the time has passed
        stopwatch.save()
        raise
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result: JsonObject = {
        "setting": run.setting.name,
        "overrides": run.setting.overrides,
        "recipe": run.recipe,
        "seed": run.seed,
        "digest": run.digest,
        "scores": scores,
        "headline": headline or ["validation/loss" if "validation/loss" in scores else "train/loss"],
        "curve": course.get("curve", []),
        "seconds": round(stopwatch.seconds(), 1),
        "pretraining_seconds": course.get("seconds"),
        "device": device_name(device),
        "versions": {"hf_maskssl": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
    }
    write_json(folder / RESULT, result)
    stopwatch.forget()
    return result


def scores_of_verbs(
    run: SweepRun, output: Path, curve_points: int, stopwatch: Stopwatch
) -> tuple[dict[str, float], list[str], JsonObject]:
    """The scores of what a run does, the names of those that tables show, and `pretrain_encoder`'s record, empty without.

    Raises:
        RunInterrupted: SIGTERM or Ctrl-C came.
    """
    scores: dict[str, float] = {}
    headline: list[str] = []
    course: JsonObject = {}
    if run.pretraining is not None:
        recipe = checked_pretraining(run.pretraining, run.recipe)
        args = dataclasses.replace(recipe.training, output_dir=str(run.encoder_folder(output)))
        record = pretrain_encoder(dataclasses.replace(recipe, training=args), curve_points)
        if record is None:
            raise RunInterrupted
        stopwatch.save()  # a signal ends a probe at once
        course = record
        scores |= {**record["losses"], **record["validation"]}
        if run.probing is not None:
            found, names = probe_scores(run.encoder_folder(output), **build_recipe(run.probing, "probe", (), PROBING))
            scores, headline = scores | found, headline + names
    if run.finetuning is not None:
        stopwatch.save()
        found, name = finetune_scores(run, output)
        scores, headline = scores | found, [*headline, name]
    return scores, headline, course


def write_recipes(run: SweepRun, output: Path) -> None:
    """Write the run's recipes, by which `hf-maskssl pretrain`, `probe` and `finetune` do the same, to its folder."""
    for name, sections in (("pretrain", run.pretraining), ("probe", run.probing), ("finetune", run.finetuning)):
        if sections is not None:
            _write_yaml(run.folder(output) / f"{name}.yaml", sections)


def _write_yaml(path: Path, sections: JsonView) -> None:
    text = yaml.safe_dump(dict(sections), sort_keys=False, allow_unicode=True, width=110)
    write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def probe_scores(encoder: Path, data: DataArguments, probe: ProbeArguments) -> tuple[dict[str, float], list[str]]:
    """ "probe/linear_METRIC" and "probe/knn_METRIC" of every metric of the task and "probe/rankme"; and the names of those of the
    headline metric."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = evaluate_checkpoint(str(encoder), data, probe, device=device)
    scores = {"probe/rankme": float(found["rankme"])}
    for kind in PROBES:
        (record,) = found[kind]  # of the run's one seed
        scores |= {
            f"probe/{kind}_{name}": float(value) for name, value in record.items() if name not in ("seed", "converged")
        }
    return scores, [f"probe/{kind}_{found['metric']}" for kind in PROBES]


def finetune_scores(run: SweepRun, output: Path) -> tuple[dict[str, float], str]:
    """ "finetune/METRIC" of every metric, on the test split, or on validation where there is none; and the headline's name.

    Raises:
        RunInterrupted: SIGTERM or Ctrl-C came.
    """
    assert run.finetuning is not None
    recipe = checked_finetuning(run.finetuning, run.recipe)
    changes: JsonObject = {"output_dir": str(run.folder(output) / "finetune"), "quiet": False}
    if run.encoder_digest is not None:
        changes["checkpoint"] = str(run.encoder_folder(output))
    args = dataclasses.replace(recipe.finetuning, **changes)
    try:
        results = finetune(FinetuningRecipe(recipe.model, recipe.data, args))
    except RunStopped as stop:
        raise RunInterrupted from stop
    split = results["scores"].get("test") or results["scores"]["validation"]
    return {f"finetune/{name}": entry["mean"] for name, entry in split.items()}, f"finetune/{results['metric']}"


def run_in_process(run: SweepRun, output: str, curve_points: int, threads: int, variables: dict[str, str]) -> None:
    """`execute` as all that a process does: its words go to a log, its end is told by its exit code.

    Args:
        run: The run.
        output: Folder of the sweep.
        curve_points: Number of online probes in pre-training.
        threads: Number of threads that torch uses.
        variables: Environment of the process that asks for it; that of the server which forks this one may be older.
    """
    end_with_run()
    # A server of processes ignores Ctrl-C, and so would what it forks.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(variables)
    folder = run.folder(Path(output))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE).unlink(missing_ok=True)
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    torch.set_num_threads(threads)
    log_to_terminal()
    try:
        with one_voice():
            execute(run, Path(output), curve_points)
    except (RunInterrupted, KeyboardInterrupt):
        sys.exit(STOPPED)
    except Exception as error:  # of whatever kind: it is this run's, and the sweep goes on
        traceback.print_exc()
        write_json(folder / FAILURE, {"error": one_line(error), "kind": type(error).__name__})
        sys.exit(1)


def stored(path: Path) -> JsonView | None:
    """The content of a run's JSON file; None where there is none."""
    if not path.is_file():
        return None
    found: JsonObject = json.loads(path.read_text(encoding="utf-8"))
    return found
