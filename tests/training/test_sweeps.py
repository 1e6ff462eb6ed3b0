"""Sweeps: the file's mistakes, the runs that it means, their processes, and what is written of them."""

import copy
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from forked import IMPORTED_ONCE, Script
from hf_maskssl.commands import main
from hf_maskssl.files import write_json
from hf_maskssl.scripts import UserError
from hf_maskssl.training.sweeps import pool
from hf_maskssl.training.sweeps.execute import FAILURE, RESULT, RunInterrupted, execute
from hf_maskssl.training.sweeps.plan import SweepRun, command_line_overrides, plan_runs, with_overrides
from hf_maskssl.training.sweeps.report import collect, score_names
from hf_maskssl.training.sweeps.run import dry_lines, run_sweep
from hf_maskssl.training.sweeps.sweep_file import Sweep, load_sweep, sweep_names

TINY = {
    "training.max_steps": 4,
    "training.warmup_steps": 0,
    "training.batch_size": 16,
    "model.num_hidden_layers": 1,
    "model.decoder_num_hidden_layers": 1,
    "data.max_train_samples": 100,
}
FILE: dict[str, Any] = {
    "recipe": "digits",
    "seeds": [0],
    "overrides": TINY,
    "grid": {"model.mask_ratio": [0.5, 0.75]},
}


def write(folder: Path, changes: dict[str, Any] | None = None, without: str | None = None) -> Path:
    content = copy.deepcopy({**FILE, **(changes or {})})
    content.pop(without or "", None)
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def toy(folder: Path, changes: dict[str, Any] | None = None, without: str | None = None) -> Sweep:
    return load_sweep(write(folder, changes, without))


def call(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    monkeypatch.setattr("sys.argv", ["hf-maskssl", "sweep", *map(str, words)])
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(pool, "IMPORTED_ONCE", [*IMPORTED_ONCE, *pool.IMPORTED_ONCE])
    main()


# The file


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sedes": [0]}, ["unknown field sweep.sedes", "did you mean 'seeds'"]),
        ({"grid": {}}, ["grid: expected at least one field"]),
        ({"grid": None}, ["expected one of the fields 'grid' and 'cases', got neither"]),
        ({"cases": [{"name": "a"}]}, ["expected one of the fields 'grid' and 'cases', got both"]),
        ({"grid": None, "cases": []}, ["cases: expected at least one setting"]),
        ({"grid": None, "cases": [{"model.mask_ratio": 0.5}]}, ["cases[0]: expected a 'name'"]),
        ({"grid": None, "cases": [{"name": "a"}, {"name": "a"}]}, ["cases[1].name: 'a' is there twice"]),
        ({"grid": {"model.mask_ratio": []}}, ["grid.model.mask_ratio: expected a list of values, got an empty one"]),
        ({"grid": {"model.mask_ratio": [0.5, 0.5]}}, ["grid.model.mask_ratio: expected different values"]),
        ({"grid": {"model.mask_ratio": 0.5}}, ["sweep.grid.model.mask_ratio", "0.5"]),
        ({"verbs": ["probe"]}, ["verbs: expected [pretrain, probe]", "got ['probe']"]),
        ({"verbs": ["pretrian"]}, ["sweep.verbs[0]", "did you mean 'pretrain'"]),
        ({"verbs": ["pretrain", "finetune"]}, ["finetune_recipe: expected the recipe of fine-tuning"]),
        ({"finetune_recipe": "finetune_digits"}, ["finetune_recipe: expected nothing"]),
        ({"seeds": []}, ["seeds"]),
        ({"seeds": [-1]}, ["seeds: expected", "-1"]),
        ({"recipe": []}, ["recipe: expected a recipe or a list"]),
        ({"paper": {"source": "x", "what": "y", "values": {"a": {0.9: 1.0}}}}, ["paper.values.a: '0.9' is no setting"]),
        ({"paper": {"source": "x", "what": "y", "values": {"a": {0.5: "b"}}}}, ["paper.values.a.0.5: expected a number"]),
        ({"paper": {"sauce": "x"}}, ["unknown field paper.sauce", "did you mean 'source'"]),
    ],
)  # fmt: skip
def test_mistakes_of_the_file(changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        toy(tmp_path, changes)
    assert [word for word in words if word not in str(error.value)] == [], str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid": {"model.mask_rato": [0.5]}}, ["mask_rato=0.5, recipe digits", "did you mean 'mask_ratio'"]),
        ({"grid": {"modl.mask_ratio": [0.5]}}, ["expected section.field", "did you mean 'model'"]),
        ({"grid": {"training.max_steps": ["many"]}}, ["training.max_steps", "'many'"]),
        ({"grid": {"model.mask_ratio": [1.5]}}, ["mask_ratio=1.5", "`mask_ratio`"]),
        ({"grid": {"model.patch_size.height": [2]}}, ["model.patch_size is no table of this recipe"]),
        ({"recipe": "digitz"}, ["did you mean 'digits'"]),
    ],
)
def test_mistakes_in_recipes_are_found_before_anything_runs(
    changes: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        plan_runs(toy(tmp_path, changes))
    assert [word for word in words if word not in str(error.value)] == [], str(error.value)


def test_a_grid_is_all_combinations(tmp_path: Path) -> None:
    sweep = toy(tmp_path, {"grid": {"model.mask_ratio": [0.5, 0.75], "training.batch_size": [8, 16, 32]}})
    settings = sweep.settings()
    assert len(settings) == 6 and settings[1].name == "mask_ratio=0.5, batch_size=16"
    assert settings[1].overrides == {"model.mask_ratio": 0.5, "training.batch_size": 16}
    assert sweep.numbers_of_axis() is None and toy(tmp_path).numbers_of_axis() == [0.5, 0.75]


def test_overrides_reach_into_tables_and_remove_entries() -> None:
    sections = {"model": {"modalities": {"rgb": {"loss": "mse"}, "depth": {"loss": "l1"}}}}
    changed = with_overrides(sections, {"model.modalities.rgb.loss": "l1", "model.modalities.depth": None})
    assert changed == {"model": {"modalities": {"rgb": {"loss": "l1"}}}}
    assert sections["model"]["modalities"]["rgb"] == {"loss": "mse"}, "the recipe stays as it is"
    with pytest.raises(ValueError, match=r"no entry 'dept' to remove \(did you mean 'depth'"):
        with_overrides(sections, {"model.modalities.dept": None})


def test_settings_come_over_what_all_runs_share_and_the_command_line(tmp_path: Path) -> None:
    sweep = toy(tmp_path)
    words = ["--max_steps", "7", "--probe.k", "3"]
    assert command_line_overrides(sweep, words) == {"training.max_steps": 7, "probe.k": 3}
    sweep = load_sweep(tmp_path / "toy.yaml", {"overrides": {"training.max_steps": 7, "model.mask_ratio": 0.25}})
    (first, _) = plan_runs(sweep)
    assert first.pretraining is not None
    assert (first.pretraining["training"]["max_steps"], first.pretraining["model"]["mask_ratio"]) == (7, 0.5)
    with pytest.raises(ValueError, match="does not fine-tune"):
        command_line_overrides(sweep, ["--finetuning.batch_size", "2"])
    with pytest.raises(ValueError, match="override --model.mask_ratio: the sweep's grid sets it in every run"):
        command_line_overrides(sweep, ["--mask_ratio", "0.4"])


def test_what_is_reduced_belongs_to_the_recipe_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"reduced": {"training.max_steps": 3}, "overrides": {"training.warmup_steps": 0}})
    assert load_sweep(path).common_overrides == {"training.max_steps": 3, "training.warmup_steps": 0}
    assert load_sweep(path, {"recipe": ["sma_digits"]}).common_overrides == {"training.warmup_steps": 0}


def test_digests_tell_runs_apart_and_encoders_are_shared(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "verbs": ["pretrain", "finetune"],
        "finetune_recipe": "finetune_digits",
        "seeds": [0, 1],
        "grid": {"finetuning.learning_rate": [1e-3, 1e-2], "training.mixed_precision": ["no", "bf16"]},
    }
    runs = plan_runs(toy(tmp_path, changes))
    assert len({run.digest for run in runs}) == 8
    # Fine-tuning shares an encoder; a precision, which digests pass over elsewhere, is here what is varied.
    assert len({run.encoder_digest for run in runs}) == 4
    again = plan_runs(toy(tmp_path, changes))
    assert [run.digest for run in runs] == [run.digest for run in again]
    paper = {"source": "x", "what": "y", "values": {}}
    told = plan_runs(toy(tmp_path, {**changes, "title": "another", "paper": paper, "score": "finetune/accuracy"}))
    assert [run.digest for run in told] == [run.digest for run in runs], "words change no run"
    longer = plan_runs(toy(tmp_path, {**changes, "overrides": TINY | {"training.max_steps": 5}}))
    assert {run.digest for run in longer}.isdisjoint({run.digest for run in runs})


def test_probes_may_read_other_rows(tmp_path: Path) -> None:
    probe = {"data": {"source": "digits", "kind": "image", "label_column": "label", "validation_fraction": 0.5}}
    (tmp_path / "probe.yaml").write_text(yaml.safe_dump(probe | {"probe": {"k": 7}}))
    path = str(tmp_path / "probe.yaml")
    (run, _) = plan_runs(toy(tmp_path, {"probe_recipe": path, "overrides": TINY | {"probe.knn_max_samples": 50}}))
    assert run.probing is not None and run.pretraining is not None
    assert run.probing["data"] == probe["data"] and run.pretraining["data"]["test_split"] == "test"
    assert run.probing["probe"] == {"k": 7, "knn_max_samples": 50, "baselines": False, "seeds": [0]}
    with pytest.raises(ValueError, match="probe_recipe: expected one for each of the recipes"):
        toy(tmp_path, {"probe_recipe": [path, path]})


# Results


def result_of(run: SweepRun, value: float) -> dict[str, Any]:
    return {
        "setting": run.setting.name,
        "overrides": run.setting.overrides,
        "recipe": run.recipe,
        "seed": run.seed,
        "digest": run.digest,
        "scores": {"probe/linear_accuracy": value, "probe/rankme": 3.0, "train/loss": 0.5},
        "headline": ["probe/linear_accuracy"],
        "curve": [
            {"step": step, "seconds": 1.0 * step, "name": "probe/linear_accuracy", "score": value / 2}
            for step in (0, 2, 4)
        ],
        "seconds": 10.0,
        "pretraining_seconds": 4.0,
        "device": "CPU",
        "versions": {},
    }


def test_the_table_has_intervals_differences_and_the_papers_numbers(tmp_path: Path) -> None:
    paper = {"source": "A paper, Table 1", "what": "accuracy (%)", "values": {"PAMAP2": {0.5: 89.3}}}
    sweep = toy(tmp_path, {"seeds": [0, 1], "paper": paper, "title": "Ratios"})
    runs, output = plan_runs(sweep), tmp_path / "out"
    for run, value in zip(runs, (0.5, 0.75, 0.625, 0.875), strict=True):  # seed by seed
        write_json(run.folder(output) / RESULT, result_of(run, value))
    write_json(output / "sweep.json", {"name": "toy", "recipes": ["digits"], "verbs": ["pretrain", "probe"]})
    ended = run_sweep("toy", sweep, runs, output)
    assert ended.failed == {} and ended.missing == 0
    table = ended.results["table"]
    assert table["columns"] == [
        "mask_ratio",
        "probe/linear_accuracy (%)",
        "minus mask_ratio=0.5",
        "paper: PAMAP2",
        "seconds",
        "runs",
    ]
    first, second = table["rows"]
    assert (first[0], first[1]["mean"], first[2:]) == ("0.5", 56.25, [None, 89.3, 10.0, 2])
    # Student's t with one degree of freedom: 12.7062 standard errors.
    assert first[1]["half_width"] == pytest.approx(12.7062 * 6.25, rel=1e-4)
    assert second[2] == {"mean": 25.0, "half_width": 0.0} and second[3] is None
    stored = json.loads((output / "results.json").read_text(encoding="utf-8"))
    assert [run["seed"] for run in stored["settings"][0]["runs"]] == [0, 1]
    assert stored["settings"][0]["scores"]["probe/rankme"]["mean"] == 3.0
    text = (output / "results.md").read_text(encoding="utf-8")
    assert (
        text.startswith("# Ratios\n")
        and "A paper, Table 1" in text
        and "| 0.75 | 81.25 ± 79.41 | 25.00 ± 0.00 |" in text
    )
    assert (output / "results.png").stat().st_size > 1000


def test_curves_over_time_and_bars(tmp_path: Path) -> None:
    cases = [{"name": "MAE", "model.num_adaptation_steps": 0, "model.contrastive_weight": 0.0}, {"name": "MetaMAE"}]
    for number, changes in enumerate(
        [{"curve_points": 2}, {"recipe": ["digits", "sma_digits"], "cases": [{"name": "a"}]}]
    ):
        sweep = toy(tmp_path, {"grid": None, "cases": cases, "seeds": [0, 1], "overrides": {}, **changes})
        runs, output = plan_runs(sweep), tmp_path / f"out{number}"
        for run in runs:
            write_json(run.folder(output) / RESULT, result_of(run, 0.5 + 0.1 * run.seed))
        identity = {"name": "toy", "recipes": sweep.recipes, "verbs": ["pretrain", "probe"]}
        write_json(output / "sweep.json", identity)
        columns = run_sweep("toy", sweep, runs, output).results["table"]["columns"]
        assert (output / "results.png").is_file()
    assert columns[1:3] == ["digits, probe/linear_accuracy (%)", "sma_digits, probe/linear_accuracy (%)"]


def test_a_score_that_no_run_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sweep = toy(tmp_path, {"score": "probe/acuracy"})
    runs, output = plan_runs(sweep), tmp_path / "out"
    write_json(runs[0].folder(output) / RESULT, result_of(runs[0], 0.5))
    write_json(runs[1].folder(output) / RESULT, result_of(runs[1], 0.5))
    write_json(output / "sweep.json", {"name": "toy", "recipes": ["digits"], "verbs": ["pretrain", "probe"]})
    names = score_names(sweep, collect(runs, output))
    assert names[0] == "probe/linear_accuracy"
    assert (
        "score: no run has 'probe/acuracy', so 'probe/linear_accuracy' leads the table; expected one of" in caplog.text
    )


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    sweep = toy(tmp_path)
    runs, output = plan_runs(sweep), tmp_path / "out"
    output.mkdir()
    (output / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="something that is no sweep"):
        run_sweep("toy", sweep, runs, output)
    (output / "letter.txt").unlink()
    write_json(output / "sweep.json", {"name": "other", "recipes": ["digits"], "verbs": ["pretrain", "probe"]})
    with pytest.raises(ValueError, match="holds another sweep .name was 'other', is now 'toy'.*--overwrite"):
        run_sweep("toy", sweep, runs, output)


def test_what_would_be_run_is_listed(tmp_path: Path) -> None:
    sweep = toy(tmp_path)
    runs, output = plan_runs(sweep), tmp_path / "out"
    write_json(runs[0].folder(output) / RESULT, result_of(runs[0], 0.5))
    lines = dry_lines(sweep, runs, output, 1)
    assert lines[1] == "mask_ratio=0.5, digits, seed 0: model.mask_ratio=0.5 [done, 10 s]"
    assert lines[2].endswith("[to do]") and lines[-1].startswith("about 10 s with 1 worker")


# Processes


def test_runs_are_processes_and_a_failed_one_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [{"name": "good"}, {"name": "bad", "training.init_from": str(tmp_path / "nowhere")}]
    path, output = write(tmp_path, {"grid": None, "cases": cases, "verbs": ["pretrain"]}), tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, path, "--output_dir", output, "--workers", "2")
    assert end.value.code == 1
    printed = capsys.readouterr().out
    assert "failed: bad, digits, seed 0:" in printed and "nowhere" in printed
    good, bad = plan_runs(load_sweep(path))
    result = json.loads((good.folder(output) / RESULT).read_text(encoding="utf-8"))
    assert result["headline"] == ["train/loss"] and result["scores"]["train/loss"] > 0
    assert (bad.folder(output) / FAILURE).is_file() and "nowhere" in (output / "results.md").read_text(
        encoding="utf-8"
    )
    assert (good.folder(output) / "pretrain.yaml").is_file() and not list(output.glob("encoders/*/checkpoint-*"))

    # The file is corrected: what has ended is kept, as are the words of what is new.
    write(tmp_path, {"grid": None, "cases": [{"name": "good"}], "verbs": ["pretrain"]})
    before = (good.folder(output) / RESULT).stat().st_mtime_ns
    call(monkeypatch, path, "--output_dir", output)
    assert (good.folder(output) / RESULT).stat().st_mtime_ns == before
    assert "nowhere" not in (output / "results.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_stopped_sweep_goes_on(tmp_path: Path) -> None:
    steps = {"training.max_steps": 600, "training.save_steps": 10}
    path, output = write(tmp_path, {"overrides": TINY | steps, "verbs": ["pretrain"]}), tmp_path / "out"
    words = ["-m", "hf_maskssl", "sweep", str(path), "--output_dir", str(output)]
    script = Script(words)
    until = time.monotonic() + 120
    while not list(output.glob("encoders/*/checkpoint-*")) and time.monotonic() < until:
        time.sleep(0.1)
    os.kill(script.pid, signal.SIGTERM)  # the sweep alone: it tells its runs
    ended = script.wait()
    assert "stopped; the same command goes on" in ended.stderr, ended.stderr
    assert "2 runs have no result yet" in ended.stdout
    again = Script(words)
    ended = again.wait()
    assert ended.returncode == 0, ended.stderr
    run = plan_runs(load_sweep(path))[0]
    assert "resumed" in (run.folder(output) / "log.txt").read_text(encoding="utf-8").lower()


# The sweeps of the package

SMALL = {
    "training.max_steps": 2,
    "training.warmup_steps": 0,
    "training.eval_steps": 0,
    "training.batch_size": 8,
    "model.num_hidden_layers": 1,
}
SMALL_FINETUNING = {"finetuning.max_steps": 2, "finetuning.num_train_epochs": 1, "finetuning.learning_rate": 1e-3}


@pytest.mark.parametrize("name", sweep_names())
def test_a_sweep_of_the_package_can_be_planned(name: str) -> None:
    sweep = load_sweep(name, {"seeds": [0]})
    runs = plan_runs(sweep)
    assert len(runs) >= 2 and len({run.digest for run in runs}) == len(runs)
    assert sweep.title and sweep.reduced, "it says what it is, and that it is small"


def small_sweep(name: str) -> Sweep:
    """A sweep of the package at a size of seconds."""
    sweep = load_sweep(name)
    changes: dict[str, Any] = dict(SMALL)
    if sweep.recipe == "multimae_scenes":
        changes |= {"data.num_scenes": {"train": 8, "validation": 4, "test": 4}, "model.num_hidden_layers": 4}
    if sweep.recipe in ("multimae_scenes", "pos_bert_pydoc"):
        changes |= {"training.eval_steps": 2, "training.eval_batches": 1}
    if sweep.finetune_recipe is not None:
        changes |= SMALL_FINETUNING
        if sweep.recipe == "multimae_scenes":
            changes["finetune.data.num_scenes"] = {"train": 8, "validation": 4, "test": 4}
    return load_sweep(name, {"seeds": [0], "overrides": changes})


@pytest.mark.parametrize(
    "name",
    [name if name == "metamae_figure2" else pytest.param(name, marks=pytest.mark.slow) for name in sweep_names()],
)
def test_a_sweep_of_the_package_runs_at_reduced_size(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Callable[[str], Path]
) -> None:
    sweep = small_sweep(name)
    if sweep.recipe == "pos_bert_pydoc":
        monkeypatch.setenv("NLTK_DATA", str(shared_data("nltk_data")))
    runs = plan_runs(sweep)
    first_and_last = [runs[0], runs[-1]]
    for run in first_and_last:
        result = execute(run, tmp_path, sweep.curve_points)
        assert set(result["headline"]) <= set(result["scores"]) and result["headline"]
        assert sweep.score is None or sweep.score in result["scores"]
    write_json(tmp_path / "sweep.json", {"name": name, "recipes": sweep.recipes, "verbs": list(sweep.verbs)})
    few = [run for run in runs if (run.folder(tmp_path) / RESULT).is_file()]
    ended = run_sweep(name, sweep, few, tmp_path)
    assert len(few) == 2 and ended.missing == 0 and (tmp_path / "results.png").is_file()


def test_seconds_of_a_run_are_those_of_all_its_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by 10 s in pre-training and 3 s in probing; two calls are stopped, and one is ended in its probe."""
    run, now = plan_runs(toy(tmp_path))[0], [1000.0]
    ends: list[type[BaseException] | None] = [RunInterrupted, KeyboardInterrupt, None]

    def pretrain(*words: Any) -> dict[str, Any] | None:
        now[0] += 10.0
        error = ends[0]
        return None if error is RunInterrupted else {"losses": {"train/loss": 1.0}, "validation": {}, "seconds": 9.0}

    def probe(*words: Any, **options: Any) -> tuple[dict[str, float], list[str]]:
        now[0] += 3.0
        if ends[0] is not None:
            raise ends[0]
        return {"probe/knn_accuracy": 0.5}, ["probe/knn_accuracy"]

    monkeypatch.setattr("hf_maskssl.training.sweeps.execute.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("hf_maskssl.training.sweeps.execute.pretrain_encoder", pretrain)
    monkeypatch.setattr("hf_maskssl.training.sweeps.execute.probe_scores", probe)
    for error in (RunInterrupted, KeyboardInterrupt):
        with pytest.raises(error):
            execute(run, tmp_path, 0)
        ends.pop(0)
        now[0] += 500.0  # between two calls
    assert execute(run, tmp_path, 0)["seconds"] == 10.0 + 13.0 + 13.0
    assert execute(run, tmp_path, 0)["seconds"] == 13.0, "what has ended is not counted for what begins anew"


def test_the_packages_sweeps_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(monkeypatch, "--list")
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in sweep_names())
    assert max(map(len, printed.splitlines())) <= 80
    with pytest.raises(UserError):
        call(monkeypatch, "metamae_tabel6")
    assert "did you mean 'metamae_table6'" in capsys.readouterr().err
    with pytest.raises(UserError):
        call(monkeypatch)
    assert "SWEEP: expected a file or the name of a sweep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"overrides": {"training.seed": 7}}, "training.seed is set for each run by the sweep: name seeds"),
        ({"overrides": {"finetuning.learning_rate": 1e-3}}, r"has no effect: the verbs \['pretrain', 'probe'\]"),
        ({"score": "validation/loss"}, "score: validation/loss needs validation losses: set training.eval_steps"),
    ],
)
def test_changes_without_effect_are_refused(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        plan_runs(toy(tmp_path, fields))


def test_an_empty_section_takes_overrides() -> None:
    assert with_overrides({"probe": None}, {"probe.k": 3}) == {"probe": {"k": 3}}
