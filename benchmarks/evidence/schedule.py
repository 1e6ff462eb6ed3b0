"""Which of the missing runs is worth most: the widest undecided interval for a minute of work."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from .claim import Claim
from .runs import Run
from .verdict import Difference, Ledger

# How a run's time on a GPU compares with that on a CPU core until some have been timed there.
GPU_SPEED_UP = 10.0
# A pair that waits for another one of the same comparison is worth less by this factor.
LATER_PAIR = 0.8
UNKNOWN_WIDTH = 4.0  # half width of an interval of fewer than two pairs, in margins


@dataclass(frozen=True)
class Candidate:
    """A run that can be begun now.

    Attributes:
        run: what is to be done.
        worth: margins of undecided width for a minute, of the pair that it belongs to.
        minutes: that it will take.
    """

    run: Run
    worth: float
    minutes: float


class Schedule:
    """Candidates of a ledger on one device."""

    def __init__(self, ledger: Ledger, device: str) -> None:
        self.ledger = ledger
        self.device = device
        self._seconds: dict[tuple[str, str, str, bool], list[float]] = {}
        for (run, where), result in ledger.found.items():
            if where == device:
                key = (run.claim, run.data_set, run.arm, run.trial is not None)
                self._seconds.setdefault(key, []).append(result["seconds"])

    def candidates(self) -> list[Candidate]:
        """Every run that is missing and can be begun, the one that is worth most first; each run once."""
        best: dict[Run, Candidate] = {}
        for claim in self.ledger.claims.values():
            for difference in self.ledger.differences(claim):
                if not difference.is_final:
                    for candidate in self._of_difference(claim, difference):
                        if candidate.run not in best or candidate.worth > best[candidate.run].worth:
                            best[candidate.run] = candidate
        return sorted(best.values(), key=lambda candidate: -candidate.worth)

    def missing(self, claim: Claim, data_set: str) -> list[Run]:
        """Every run, trials among them, that undecided comparisons on a data set still want."""
        found: dict[Run, None] = {}
        for difference in self.ledger.differences(claim):
            if difference.data_set != data_set or difference.is_final:
                continue
            done = {seed for seed, _ in difference.pairs}
            for arm in (difference.comparison.arm, difference.comparison.against):
                for seed in set(range(claim.seeds)) - done:
                    found |= dict.fromkeys(self._missing(claim, data_set, arm, seed))
        return list(found)

    def _of_difference(self, claim: Claim, difference: Difference) -> Iterator[Candidate]:
        margin = claim.scores[difference.comparison.score].margin
        width = UNKNOWN_WIDTH if difference.half_width is None else min(UNKNOWN_WIDTH, difference.half_width / margin)
        done = {seed for seed, _ in difference.pairs}
        value = claim.weight * width / (1 + len(done))
        arms = (difference.comparison.arm, difference.comparison.against)
        for seed in self._seeds(claim):
            if seed in done:
                continue
            missing = [run for arm in arms for run in self._missing(claim, difference.data_set, arm, seed)]
            minutes = sum(self.minutes(claim, run) for run in missing)
            for run in missing:
                if self.ledger.chosen(run) is not None:
                    yield Candidate(run, value / max(minutes, 0.05), self.minutes(claim, run))
            value *= LATER_PAIR

    def _seeds(self, claim: Claim) -> list[int]:
        """GPUs begin with the last seed: pairs are of one device, and each seed is drawn on one alone."""
        seeds = list(range(claim.seeds))
        return seeds[::-1] if self.device == "cuda" else seeds

    def _missing(self, claim: Claim, data_set: str, arm: str, seed: int) -> list[Run]:
        """The arm's run of a seed, with the trials that must come first."""
        if claim.arms[arm].start in ("raw_inputs", "majority"):
            run = Run(claim.name, data_set, arm, 0)
            return [] if self.ledger.of(run) else [run]
        run = Run(claim.name, data_set, arm, seed)
        if (run, self.device) in self.ledger.found:
            return []
        return [trial for trial in self.ledger.trials(claim, data_set, arm) if not self.ledger.of(trial)] + [run]

    def minutes(self, claim: Claim, run: Run) -> float:
        """As timed before; else of other seeds' or arms' runs; else what the claim's file says."""
        is_trial = run.trial is not None
        known = self._seconds.get((run.claim, run.data_set, run.arm, is_trial))
        if known:
            return median(known) / 60
        if claim.arms[run.arm].start != "pretrained" and claim.measure == "probe":
            return 0.1
        guess = claim.sets[run.data_set].minutes or claim.minutes
        if is_trial and claim.trials is not None and claim.trials.steps is not None:
            guess *= min(1.0, claim.trials.steps / (claim.sets[run.data_set].steps or claim.steps))
        return guess / (GPU_SPEED_UP if self.device == "cuda" else 1.0)
