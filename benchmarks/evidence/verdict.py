"""What the runs of a claim say: paired differences, their intervals, and a verdict that follows from them alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_maskssl.evaluation.statistics import paired_interval

from .claim import Claim, Comparison, Settings
from .runs import Run, plan_run

Results = Mapping[Path, dict[str, Any]]
SHOWN = "shown"
OPPOSITE = "the opposite is shown"
NO_DIFFERENCE = "no difference"
UNDECIDED = "not yet decided"
# A verdict before all planned seeds asks for more: each look at a growing set of runs is a chance to be wrong.
EARLY_PAIRS, EARLY_CONFIDENCE, CONFIDENCE = 5, 0.99, 0.95


@dataclass(frozen=True)
class Difference:
    """One comparison on one data set.

    Attributes:
        comparison, data_set: what is compared, and where.
        pairs: (seed, device) of the pairs.
        first, second: scores of `arm` and `against` in the pairs, in shown units.
        mean, half_width: of the differences, positive where `arm` is better; None without pairs, or with a single one.
        verdict: one of this module's four.
        is_final: whether all planned pairs are there, or the verdict stood at 99 % before.
    """

    comparison: Comparison
    data_set: str
    pairs: list[tuple[int, str]]
    first: list[float]
    second: list[float]
    mean: float | None
    half_width: float | None
    verdict: str
    is_final: bool


class Ledger:
    """The results of all claims, with what has been chosen from trials and which results still count."""

    def __init__(self, claims: list[Claim], results: Results) -> None:
        self.claims = {claim.name: claim for claim in claims}
        self.found: dict[tuple[Run, str], dict[str, Any]] = {}
        self.stale: list[Path] = []
        self.strange: list[Path] = []
        self._by_run: dict[Run, list[dict[str, Any]]] = {}
        self._read(results, is_trial=True)
        self._read(results, is_trial=False)

    def _read(self, results: Results, is_trial: bool) -> None:
        """Trials first: what they choose is part of the digest of the runs that count."""
        for path, result in results.items():
            if (result["trial"] is not None) != is_trial or result["claim"] not in self.claims:
                continue
            run = Run(*(result[name] for name in ("claim", "data_set", "arm", "seed", "trial")))
            claim = self.claims[run.claim]
            if run.data_set not in claim.sets or run.arm not in claim.arms_of(run.data_set):
                self.strange.append(path)
                continue
            chosen = self.chosen(run)
            if chosen is None or plan_run(claim, run, chosen).digest != result["digest"]:
                self.stale.append(path)
                continue
            self.found[run, result["device"]] = result
            self._by_run.setdefault(run, []).append(result)

    def of(self, run: Run) -> list[dict[str, Any]]:
        """Results of a run, one for each device that did it."""
        return self._by_run.get(run, [])

    def trials(self, claim: Claim, data_set: str, arm: str) -> list[Run]:
        """The trial runs of an arm, done or not."""
        count = len(claim.trials_of(arm))
        # One that is tried alone needs no trial.
        seed = claim.trials.seed if claim.trials is not None else 0
        return [Run(claim.name, data_set, arm, seed, trial) for trial in range(count)] if count > 1 else []

    def chosen(self, run: Run) -> Settings | None:
        """The settings that a run takes from the trials of its arm; None as long as trials are missing."""
        claim = self.claims[run.claim]
        settings = claim.trials_of(run.arm)
        if run.trial is not None:
            return settings[run.trial] if run.trial < len(settings) else None
        if len(settings) <= 1:
            return settings[0] if settings else {}
        assert claim.trials is not None
        scores = []
        name = ""
        for trial in self.trials(claim, run.data_set, run.arm):
            results = self.of(trial)
            if not results:
                return None
            found = results[0]["scores"]["validation"]
            name = next(name for name in claim.trials.scores if name in found)
            scores.append(found[name])
        best = min if claim.scores[name].lower_is_better else max
        return settings[scores.index(best(scores))]

    def differences(self, claim: Claim) -> list[Difference]:
        """Every comparison on every data set that has both arms."""
        return [
            self.difference(claim, comparison, name)
            for comparison in claim.comparisons
            for name in comparison.sets or claim.sets
            if {comparison.arm, comparison.against} <= set(claim.arms_of(name))
        ]

    def difference(self, claim: Claim, comparison: Comparison, data_set: str) -> Difference:
        score = claim.scores[comparison.score]
        pairs, first, second = [], [], []
        for seed in range(claim.seeds):
            ours = {result["device"]: result for result in self.of(Run(claim.name, data_set, comparison.arm, seed))}
            theirs = self._partners(claim, data_set, comparison.against, seed)
            for device in sorted(ours.keys() & theirs.keys()):
                values = [one[device]["scores"]["test"].get(comparison.score) for one in (ours, theirs)]
                if None not in values:
                    pairs.append((seed, device))
                    first.append(score.factor * values[0])
                    second.append(score.factor * values[1])
        sign = -1 if score.lower_is_better else 1
        mean = half_width = None
        if pairs:
            mean, half_width = paired_interval(second, first)
            mean *= sign
        is_complete = len(pairs) >= claim.seeds
        verdict = decide(mean, half_width, score.margin)
        is_final = is_complete and half_width is not None
        if not is_final and len(pairs) >= EARLY_PAIRS:
            _, wide = paired_interval(second, first, EARLY_CONFIDENCE)
            is_final = decide(mean, wide, score.margin) == verdict != UNDECIDED
        return Difference(comparison, data_set, pairs, first, second, mean, half_width, verdict, is_final)

    def _partners(self, claim: Claim, data_set: str, arm: str, seed: int) -> dict[str, dict[str, Any]]:
        """Results of the arm by device; what no seed changes, a model without an encoder, is everybody's partner."""
        if claim.arms[arm].start in ("raw_inputs", "majority"):
            results = self.of(Run(claim.name, data_set, arm, 0))
            return {device: results[0] for device in ("cpu", "cuda")} if results else {}
        return {result["device"]: result for result in self.of(Run(claim.name, data_set, arm, seed))}


def decide(mean: float | None, half_width: float | None, margin: float) -> str:
    """The verdict on a difference, positive where the claim says so.

    "shown": the interval lies above 0. "the opposite is shown": below 0. "no difference": it includes 0 and lies inside of
    +- margin. Else "not yet decided".
    """
    if mean is None or half_width is None:
        return UNDECIDED
    if mean - half_width > 0:
        return SHOWN
    if mean + half_width < 0:
        return OPPOSITE
    return NO_DIFFERENCE if max(abs(mean - half_width), abs(mean + half_width)) <= margin else UNDECIDED
