"""The evidence machine: claims are checked, digests tell settings apart, verdicts follow from pairs, runs are made once."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from claims import main as run_claims
from evidence.claim import Claim, load_claim, load_claims
from evidence.execute import execute
from evidence.runs import Run, plan_run, read_results
from evidence.schedule import Schedule
from evidence.verdict import NO_DIFFERENCE, OPPOSITE, SHOWN, UNDECIDED, Ledger, decide
from hypothesis import given
from hypothesis import strategies as st

from hf_maskssl.scripts import run_script

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"
CLAIM: dict[str, Any] = {
    "title": "A toy",
    "says": "MetaMAE is better than nothing.",
    "paper": "metamae",
    "source": "Table 1",
    "measure": "probe",
    "recipe": "digits",
    "steps": 6,
    "seeds": 2,
    "settings": {"training.batch_size": 16, "model.num_hidden_layers": 1, "data.validation_fraction": 0.2},
    "sets": {"digits": {}},
    "arms": {
        "untrained": {"title": "untrained", "start": "untrained"},
        "metamae": {"title": "MetaMAE"},
    },
    "scores": {"linear": {"title": "linear, %", "margin": 1.0}},
    "comparisons": [{"arm": "metamae", "against": "untrained", "score": "linear"}],
}


def write(folder: Path, changes: dict[str, Any] | None = None, name: str = "toy") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**CLAIM, **(changes or {})}, sort_keys=False), encoding="utf-8")
    return path


def toy(tmp_path: Path, changes: dict[str, Any] | None = None) -> Claim:
    return load_claim(write(tmp_path, changes))


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "claims").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_claim_can_be_planned(path: Path) -> None:
    """Every arm on every data set gives settings that its recipe knows, and arms and seeds differ in their digests."""
    claim = load_claim(path)
    digests = set()
    for name in claim.sets:
        for arm in claim.arms_of(name):
            for settings in claim.trials_of(arm) or [{}]:
                digests.add(plan_run(claim, Run(claim.name, name, arm, 0), settings).digest)
    expected = sum(len(claim.trials_of(arm) or [{}]) for name in claim.sets for arm in claim.arms_of(name))
    # A trial may try what an arm has anyway.
    assert expected - len(claim.sets) * len(claim.arms) <= len(digests) <= expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sedes": 3}, ["unknown field sedes", "seeds"]),
        ({"arms": {"a": {"titel": "x"}}}, ["unknown field arms.a.titel", "title"]),
        ({"arms": {"a": {"start": "untrained"}}}, ["arms.a.title is missing"]),
        ({"seeds": "many"}, ["seeds", "int", "many"]),
        ({"measure": "probes"}, ["measure", "probe", "probes"]),
        ({"settings": {"learning_rate": 1e-3}}, ["settings.learning_rate", "section.field"]),
        ({"comparisons": [{"arm": "metamea", "against": "untrained", "score": "linear"}]}, ["metamea", "metamae"]),
        ({"comparisons": [{"arm": "metamae", "against": "untrained", "score": "lineal"}]}, ["comparisons[0].score"]),
        ({"trials": {"scores": ["linear"], "settings": [{}], "seed": 1}}, ["trials.seed=1"]),
        (
            {
                "trials": {"scores": ["linear"], "settings": [{}, {"training.learning_rate": 1e-2}]},
                "arms": {"untrained": {"title": "x"}, "metamae": {"title": "y", "trials": [{}]}},
            },
            ["arms.metamae.trials", "equally many"],
        ),
        ({"measure": "finetune"}, ["sets.digits.finetuning", "data and finetuning"]),
        (
            {"measure": "word_losses", "sets": {"digits": {"probed": {"label_column": "label"}}}},
            ["sets.digits.probed", "'word_losses' has no probes"],
        ),
    ],
)
def test_a_bad_file_is_told_in_words(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        toy(tmp_path, changes)
    for word in ["toy.yaml", *words]:
        assert word in str(caught.value)


def test_only_names_claims_that_exist(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match="did you mean 'toy'"):
        load_claims(tmp_path, ["tox"])


def test_only_may_name_one_data_set_of_a_claim(tmp_path: Path) -> None:
    write(tmp_path, {"sets": {"digits": {"recipe": "digits"}, "vowels": {"recipe": "japanese_vowels"}}})
    (whole,), (part,) = load_claims(tmp_path, ["toy"]), load_claims(tmp_path, ["toy/vowels"])
    assert (set(whole.sets), set(part.sets)) == ({"digits", "vowels"}, {"vowels"})
    with pytest.raises(ValueError, match="--only toy/digit: the claim has no such data set.*did you mean 'digits'"):
        load_claims(tmp_path, ["toy/digit"])


def test_a_setting_that_the_recipe_does_not_know_is_an_error(tmp_path: Path) -> None:
    claim = toy(tmp_path, {"settings": {"training.learning_rat": 1.0}})
    with pytest.raises(ValueError, match="learning_rat"):
        plan_run(claim, Run("toy", "digits", "metamae", 0), {})


def test_digest_follows_what_changes_numbers(tmp_path: Path) -> None:
    run = Run("toy", "digits", "metamae", 0)
    claim = toy(tmp_path)
    digest = plan_run(claim, run, {}).digest
    for speed in ("training.output_dir", "training.num_workers", "training.mixed_precision"):
        value: Any = {"training.num_workers": 2, "training.mixed_precision": "bf16"}.get(speed, "elsewhere")
        assert (
            plan_run(dataclasses.replace(claim, settings={**claim.settings, speed: value}), run, {}).digest == digest
        )
    others = [
        plan_run(claim, dataclasses.replace(run, seed=1), {}),
        plan_run(claim, run, {"training.learning_rate": 0.5}),
        plan_run(claim, run, {"model.mask_ratio": 0.7}),
        plan_run(dataclasses.replace(claim, steps=7), run, {}),
        plan_run(dataclasses.replace(claim, revision=2), run, {}),
    ]
    assert len({digest, *(plan.digest for plan in others)}) == 6


def test_sets_that_are_probed_otherwise_share_their_encoder(tmp_path: Path) -> None:
    """What probes read is part of a run, not of its encoder; a set without it keeps the digest that it had before."""
    sets = {"plain": {}, "statements": {"probed": {"text_column": "statement", "label_column": "truth"}}}
    claim = toy(tmp_path, {"recipe": "captioned_scenes", "settings": {}, "sets": sets})
    plain, statements = (plan_run(claim, Run("toy", name, "metamae", 0), {}) for name in sets)
    assert plain.encoder_digest == statements.encoder_digest and plain.digest != statements.digest
    assert (plain.probed.text_column, plain.probed.label_column) == ("caption", None)
    assert (statements.probed.text_column, statements.probed.label_column) == ("statement", "truth")
    assert statements.pretraining.data.text_column == "caption"
    toys = toy(tmp_path, {"sets": {"digits": {"probed": {"labels": "x"}}}})
    with pytest.raises(ValueError, match="labels"):
        plan_run(toys, Run("toy", "digits", "metamae", 0), {})


def test_digest_does_not_depend_on_where_the_data_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = toy(tmp_path, {"recipe": "japanese_vowels", "settings": {}})
    digests = set()
    for place in ("/one/place", "/another"):
        monkeypatch.setenv("HF_MASKSSL_SHARED", place)
        digests.add(plan_run(claim, Run("toy", "digits", "metamae", 0), {}).digest)
    assert len(digests) == 1


@given(st.floats(-10, 10), st.floats(0.01, 10), st.floats(0.01, 5))
def test_verdict_follows_from_the_interval(mean: float, half_width: float, margin: float) -> None:
    low, high = mean - half_width, mean + half_width
    verdict = decide(mean, half_width, margin)
    assert (verdict == SHOWN) == (low > 0)
    assert (verdict == OPPOSITE) == (high < 0)
    assert (verdict == NO_DIFFERENCE) == (low <= 0 <= high and -margin <= low and high <= margin)
    assert decide(mean, None, margin) == decide(None, None, margin) == UNDECIDED


def result(
    claim: Claim, run: Run, score: float, device: str = "cpu", chosen: dict[str, Any] | None = None
) -> dict[str, Any]:
    plan = plan_run(claim, run, chosen or {})
    scores = {"test": {"linear": score}, "validation": {"linear": score}}
    names = ("claim", "data_set", "arm", "seed", "trial")
    return {name: getattr(run, name) for name in names} | {
        "digest": plan.digest,
        "scores": scores,
        "device": device,
        "seconds": 60.0,
        "pretraining": {},
    }


def ledger_of(claim: Claim, results: list[dict[str, Any]]) -> Ledger:
    names = ("claim", "data_set", "arm", "seed", "trial")
    found = {}
    for one in results:
        run = Run(*(one[name] for name in names))
        found[run.path(Path(), one["device"])] = one
    return Ledger([claim], found)


def test_pairs_are_of_one_seed_and_one_device(tmp_path: Path) -> None:
    claim = toy(tmp_path, {"seeds": 3})
    runs = [
        result(claim, Run("toy", "digits", "metamae", 0), 0.9),
        result(claim, Run("toy", "digits", "untrained", 0), 0.8),
        result(claim, Run("toy", "digits", "metamae", 1), 0.9, "cuda"),
        result(claim, Run("toy", "digits", "untrained", 1), 0.7),
        result(claim, Run("toy", "digits", "metamae", 2), 0.6),
        result(claim, Run("toy", "digits", "untrained", 2), 0.4),
    ]
    (difference,) = ledger_of(claim, runs).differences(claim)
    assert difference.pairs == [(0, "cpu"), (2, "cpu")]
    assert difference.mean == pytest.approx(15.0)
    # Student's t for two differences of 10 and 20: 12.706 * 5
    assert difference.half_width == pytest.approx(63.53, abs=0.01)
    assert difference.verdict == UNDECIDED


def test_a_lower_loss_is_better(tmp_path: Path) -> None:
    scores = {"linear": {"title": "loss", "margin": 0.1, "factor": 1.0, "lower_is_better": True}}
    claim = toy(tmp_path, {"scores": scores})
    runs = [result(claim, Run("toy", "digits", "metamae", seed), 1.0 + 0.01 * seed) for seed in range(2)]
    runs += [result(claim, Run("toy", "digits", "untrained", seed), 2.0) for seed in range(2)]
    (difference,) = ledger_of(claim, runs).differences(claim)
    assert difference.mean == pytest.approx(0.995)
    assert (difference.verdict, difference.is_final) == (SHOWN, True)


def test_results_of_other_settings_are_stale(tmp_path: Path) -> None:
    claim = toy(tmp_path)
    runs = [result(claim, Run("toy", "digits", "metamae", 0), 0.9)]
    changed = dataclasses.replace(claim, steps=9)
    ledger = ledger_of(changed, runs)
    assert [path.name for path in ledger.stale] == ["metamae-seed0-cpu.json"]
    assert not ledger.found
    gone = dataclasses.replace(claim, arms={"untrained": claim.arms["untrained"]}, comparisons=[])
    assert ledger_of(gone, runs).strange


def test_trials_choose_and_come_first(tmp_path: Path) -> None:
    trials = {"scores": ["linear"], "settings": [{"training.learning_rate": rate} for rate in (1e-3, 1e-2)]}
    claim = toy(tmp_path, {"trials": trials})
    run = Run("toy", "digits", "metamae", 0)
    candidates = [candidate.run for candidate in Schedule(ledger_of(claim, []), "cpu").candidates()]
    assert run not in candidates
    assert {one for one in candidates if one.arm == "metamae"} == {
        Run("toy", "digits", "metamae", 1000, n) for n in (0, 1)
    }
    done = [
        result(claim, Run("toy", "digits", "metamae", 1000, n), score, chosen=settings)
        for n, (score, settings) in enumerate(zip((0.5, 0.6), trials["settings"], strict=True))
    ]
    ledger = ledger_of(claim, done)
    assert ledger.chosen(run) == {"training.learning_rate": 1e-2}
    assert run in [candidate.run for candidate in Schedule(ledger, "cpu").candidates()]


def test_the_widest_interval_for_a_minute_is_next(tmp_path: Path) -> None:
    """Of two data sets with equally many pairs the undecided one is next, and a decided one is left alone."""
    claim = toy(tmp_path, {"sets": {"digits": {}, "again": {"settings": {"model.mask_ratio": 0.6}}}, "seeds": 12})
    runs = []
    for seed in range(6):
        runs += [result(claim, Run("toy", "digits", "metamae", seed), 0.9 + 0.001 * seed)]
        runs += [result(claim, Run("toy", "digits", "untrained", seed), 0.8)]
        runs += [result(claim, Run("toy", "again", "metamae", seed), 0.8 + 0.1 * (-1) ** seed)]
        runs += [result(claim, Run("toy", "again", "untrained", seed), 0.8)]
    ledger = ledger_of(claim, runs)
    first, second = ledger.differences(claim)
    assert (first.verdict, first.is_final) == (SHOWN, True)
    assert (second.verdict, second.is_final) == (UNDECIDED, False)
    assert {candidate.run.data_set for candidate in Schedule(ledger, "cpu").candidates()} == {"again"}
    # The GPU begins with the last seed: no seed is drawn on two devices.
    assert Schedule(ledger, "cpu").candidates()[0].run.seed == 6
    assert Schedule(ledger, "cuda").candidates()[0].run.seed == 11


def test_a_file_of_another_claim_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other" / "digits" / "metamae-seed0-cpu.json"
    path.parent.mkdir(parents=True)
    claim = toy(tmp_path / "claims")
    path.write_text(json.dumps(result(claim, Run("toy", "digits", "metamae", 0), 0.5)), encoding="utf-8")
    with pytest.raises(ValueError, match="result of toy/digits.*move it away"):
        read_results(tmp_path)


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """claims.py on the toy claim of the folder."""
    words = [sys.executable, str(BENCHMARKS / "claims.py"), "--claims", str(folder / "claims")]
    words += ["--work_dir", str(folder / "work"), "--results", str(folder / "results"), *options]
    environment = os.environ | {"HF_MASKSSL_CLAIMS_DATA": str(folder)}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


@pytest.mark.slow
def test_a_run_is_written_down_whole_and_its_encoder_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, run = toy(tmp_path), Run("toy", "digits", "metamae", 0)
    result = execute(claim, run, {}, tmp_path / "results", tmp_path / "work", "cpu", {})
    path = Path("toy/digits/metamae-seed0-cpu.json")
    assert read_results(tmp_path / "results") == {path: json.loads(json.dumps(result))}
    assert result["pretraining"]["steps"] == 6 and result["digest"] == plan_run(claim, run, {}).digest
    curve = result["pretraining"]["curve"]
    assert [point["step"] for point in curve] == list(range(7))
    assert all(0 <= point["score"] <= 1 for point in curve)
    assert {"linear", "knn", "linear_5_labels"} <= result["scores"]["test"].keys()
    assert result["seconds"] > 0 and result["commit"] and result["device"] == "cpu"
    ledger = Ledger([claim], read_results(tmp_path / "results"))
    assert run not in [candidate.run for candidate in Schedule(ledger, "cpu").candidates()]
    monkeypatch.setattr("evidence.execute.pretrain_run", None)  # nothing is pre-trained again
    again = execute(claim, run, {}, tmp_path / "results", tmp_path / "work", "cpu", {})
    assert again["scores"] == result["scores"]


@pytest.mark.slow
def test_missing_runs_are_made_once_and_killed_ones_go_on(tmp_path: Path) -> None:
    """Killed in the middle of a run, the machine ends it in a second call; a third has nothing to do."""
    write(tmp_path / "claims", {"steps": 60, "seeds": 1})
    process = start(tmp_path, "--hours", "0.1", "--workers", "1")
    deadline = time.time() + 100
    encoders = tmp_path / "work" / "encoders"
    while time.time() < deadline and not list(encoders.glob("*/checkpoint-*/model.safetensors")):
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)
    assert not (tmp_path / "results" / "toy" / "digits" / "metamae-seed0-cpu.json").exists()
    printed = start(tmp_path, "--hours", "0.1", "--workers", "1").communicate(timeout=200)[0]
    log = (tmp_path / "work" / "worker0.log").read_text(encoding="utf-8")
    found = read_results(tmp_path / "results")
    assert sorted(path.name for path in found) == ["metamae-seed0-cpu.json", "untrained-seed0-cpu.json"], printed + log
    assert "Resumed from" in log
    trained = found[Path("toy/digits/metamae-seed0-cpu.json")]
    assert trained["pretraining"]["steps"] == 60
    curve = trained["pretraining"]["curve"]
    assert curve[0]["step"] == 0 and curve[-1]["step"] == 60
    assert all(0 <= point["score"] <= 1 for point in curve)
    assert {"linear", "knn", "linear_5_labels"} <= trained["scores"]["test"].keys()
    again = start(tmp_path, "--hours", "0.1", "--workers", "1").communicate(timeout=100)[0]
    assert "0 new results" in again
    status = start(tmp_path, "--status").communicate(timeout=100)[0]
    assert "1/1" in status and "0 runs can be begun" in status


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--hours", "0"], "no time is left"),
        (["--workers", "0"], "at least 1"),
        (["--only", "tyo"], "did you mean 'toy'"),
    ],
)
def test_options_that_cannot_work_are_refused(
    tmp_path: Path, options: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "claims")
    monkeypatch.setattr(sys, "argv", ["claims.py", "--claims", str(tmp_path / "claims"), *options])
    monkeypatch.setenv("HF_MASKSSL_CLAIMS_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        run_script(run_claims)
    assert words in f"{ended.value}{capsys.readouterr().err}"
