"""Tuning of supervised baselines for a data set, as those that SMA's Tables 3b and 6 quote are tuned (Gorishniy et al. 2021).

Trials are draws at random from ranges of hyper-parameters; the first is the model as it is without tuning. They are scored on
rows that choose, never on those that are reported. The ranges of "mlp", "xgboost", "resnet", "ft_transformer" and "tabnet" follow
the appendix of Gorishniy et al., the narrower ones where it gives two; those of "mlp", "resnet" and "ft_transformer" lie within
what the R package mlr3tuningspaces cites from it, those of "xgboost" and "tabnet" have not been compared with the paper's text.
scikit-learn's MLP has no dropout, and TabNet's learning rate does not decay here. The others are ours. The paper has optuna draw
a hundred trials of most models.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...evaluation.arguments import LibraryModel, Settings
from ...evaluation.metrics import LOWER_IS_BETTER
from ...files import JsonObject, JsonView, write_json
from .results import settings_words
from .search_space import RandomTrial, SearchRange, Trial, Value

logger = logging.getLogger(__name__)


class ZeroOrRange(SearchRange):
    """A range of which every second draw is 0, as Gorishniy et al. write {0, LogUniform[a, b]}."""

    def draw(self, trial: Trial, name: str) -> Value:
        """The value of a trial."""
        is_zero = trial.suggest_categorical(f"{name} is 0", [True, False])
        return 0.0 if is_zero else super().draw(trial, name)

    def __str__(self) -> str:
        return f"0 or {super().__str__()}"


def _between(low: float, high: float) -> SearchRange:
    return SearchRange(low=low, high=high)


def _log(low: float, high: float) -> SearchRange:
    return SearchRange(low=low, high=high, log=True)


def _whole(low: int, high: int, log: bool = False) -> SearchRange:
    return SearchRange(low=low, high=high, log=log, whole=True)


_PENALTY = ZeroOrRange(low=1e-8, high=1e2, log=True)
_DECAY = ZeroOrRange(low=1e-6, high=1e-3, log=True)
SPACES: Mapping[LibraryModel, Mapping[str, SearchRange]] = {
    "mlp": {
        "n_layers": _whole(1, 8),
        "layer_size": _whole(1, 512),
        "learning_rate_init": _log(1e-5, 1e-2),
        "alpha": _DECAY,
    },
    "hist_gradient_boosting": {
        "learning_rate": _log(1e-2, 0.5),
        "max_leaf_nodes": _whole(7, 255, log=True),
        "min_samples_leaf": _whole(2, 200, log=True),
        "l2_regularization": _PENALTY,
        "max_features": _between(0.3, 1.0),
    },
    "random_forest": {
        "max_features": _between(0.05, 1.0),
        "min_samples_leaf": _whole(1, 50, log=True),
        "max_samples": _between(0.5, 1.0),
    },
    "xgboost": {
        "max_depth": _whole(3, 10),
        "min_child_weight": _log(1e-8, 1e5),
        "subsample": _between(0.5, 1.0),
        "learning_rate": _log(1e-5, 1.0),
        "colsample_bylevel": _between(0.5, 1.0),
        "colsample_bytree": _between(0.5, 1.0),
        "gamma": _PENALTY,
        "reg_lambda": _PENALTY,
        "reg_alpha": _PENALTY,
    },
    "resnet": {
        "n_blocks": _whole(1, 8),
        "d_block": _whole(64, 512),
        "d_hidden_multiplier": _between(1.0, 4.0),
        "dropout1": _between(0.0, 0.5),
        "dropout2": ZeroOrRange(low=0.0, high=0.5),
        "learning_rate": _log(1e-5, 1e-2),
        "weight_decay": _DECAY,
    },
    "ft_transformer": {
        "n_blocks": _whole(1, 4),
        "d_block": SearchRange(choices=tuple(range(64, 513, 8))),  # a multiple of its 8 heads
        "residual_dropout": ZeroOrRange(low=0.0, high=0.2),
        "attention_dropout": _between(0.0, 0.5),
        "ffn_dropout": _between(0.0, 0.5),
        "ffn_d_hidden_multiplier": _between(2 / 3, 8 / 3),
        "learning_rate": _log(1e-5, 1e-3),
        "weight_decay": _log(1e-6, 1e-3),
    },
    "tabnet": {
        "n_steps": _whole(3, 10),
        "n_d": SearchRange(choices=(8, 16, 32, 64, 128)),
        "gamma": _between(1.0, 2.0),
        "lambda_sparse": _log(1e-6, 1e-1),
        "learning_rate": _log(1e-3, 1e-2),
    },
}


@dataclass(frozen=True)
class BaselineSearch:
    """The trials of one baseline, kept in a file; those that have ended are never repeated.

    Attributes:
        name: Name of the model.
        trials: Number of trials, the untuned one with them.
        seed: Seed of the draws; it also is that of the fits.
        metric: Name of the metric that chooses.
        rows: Rows that choose, in words.
        path: File of the trials.
        fit: Function that fits the model with some settings and gives its scores on the rows that choose, by metric.
    """

    name: LibraryModel
    trials: int
    seed: int
    metric: str
    rows: str
    path: Path
    fit: Callable[[Settings], Mapping[str, float]]

    def run(self) -> JsonObject:
        """Run the trials that are missing and choose the best, the first of equally good ones.

        Returns:
            {"trials", "seed", "metric", "rows", "space": ranges in words, "best": number of the best trial, "settings": its
            hyper-parameters (none of the untuned one), "score" and "untuned_score" on the rows that choose, "failed": number of
            trials without a score}.

        Raises:
            ValueError: The untuned model cannot be fitted or scored.
        """
        trials = self._stored()
        for number in range(self.trials):
            settings = self._draw(number)
            # Another version may have had other ranges.
            if number < len(trials) and trials[number]["settings"] == settings:
                continue
            trials[number:] = [self._try(number, settings)]
            self._write(trials)
        ended = trials[: self.trials]
        sign = -1 if self.metric in LOWER_IS_BETTER else 1
        scored = [trial for trial in ended if trial["score"] is not None]
        best = max(scored, key=lambda trial: sign * trial["score"])
        return {
            "trials": self.trials,
            "seed": self.seed,
            "metric": self.metric,
            "rows": self.rows,
            "space": {name: str(each) for name, each in SPACES[self.name].items()},
            "best": best["number"],
            "settings": best["settings"],
            "score": best["score"],
            "untuned_score": trials[0]["score"],
            "failed": len(ended) - len(scored),
        }

    def _draw(self, number: int) -> JsonObject:
        """The settings of a trial, which no other trial has a part in."""
        if number == 0:
            return {}
        trial = RandomTrial(self.seed, number)
        drawn = {name: each.draw(trial, name) for name, each in SPACES[self.name].items()}
        settings: JsonObject = json.loads(json.dumps(drawn))  # as a file of it is read
        return settings

    def _try(self, number: int, settings: JsonView) -> JsonObject:
        """A trial with its score; None where hyper-parameters let a fit fail, with the reason."""
        start = time.perf_counter()
        found: JsonObject = {"score": None}
        try:
            score = self.fit(settings).get(self.metric)
            if score is None or not math.isfinite(score):
                raise ValueError(f"{self.metric} cannot be computed on {self.rows}")
            found = {"score": score}
        except ValueError as error:  # outputs that are no numbers, say
            if number == 0:
                raise
            found["reason"] = str(error)
        words = f"failed: {found['reason']}" if found["score"] is None else f"{self.metric} {found['score']:.4f}"
        logger.info("%s, trial %d: %s (%s)", self.name, number, words, settings_words(settings) or "untuned")
        return {
            "number": number,
            "settings": dict(settings),
            **found,
            "seconds": round(time.perf_counter() - start, 1),
        }

    def _stored(self) -> list[JsonObject]:
        found: list[JsonObject] = []
        if self.path.is_file():
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if (content["metric"], content["rows"]) == (self.metric, self.rows):
                found = content["trials"]
        return found

    def _write(self, trials: list[JsonObject]) -> None:
        write_json(self.path, {"metric": self.metric, "rows": self.rows, "seed": self.seed, "trials": trials})
