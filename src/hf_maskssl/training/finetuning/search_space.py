"""The ranges of a search for hyper-parameters, and how values are drawn from them: by optuna, or at random without it."""

import dataclasses
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np

from ...checks import shown
from ...extras import missing_extra
from ...files import JsonObject, JsonView
from ...recipes import nearest

# Fields of the finetuning section that a search may choose.
SEARCHED = (
    "learning_rate",
    "weight_decay",
    "layer_decay",
    "warmup_ratio",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "batch_size",
    "gradient_accumulation_steps",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "min_learning_rate",
    "lr_scheduler_type",
    "freeze_encoder",
)
WHOLE = ("warmup_steps", "max_steps", "batch_size", "gradient_accumulation_steps")
NAMED = ("lr_scheduler_type", "freeze_encoder")  # fields of names, which have no range
Value = float | int | str | bool
Sampler = Literal["optuna", "random"]
SAMPLERS = get_args(Sampler)


class Trial(Protocol):
    """What draws the values of a trial; optuna's trials are one."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...  # Any: as optuna has it


@dataclass(frozen=True)
class SearchRange:
    """The values that a field may get.

    Attributes:
        choices: Values, one of which is drawn; empty for a range of numbers.
        low, high: Ends of the range, both included.
        log: Whether to draw the logarithm evenly.
        whole: Whether the numbers are whole.
    """

    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def draw(self, trial: Trial, name: str) -> Value:
        """The value of a trial."""
        if self.choices:
            return trial.suggest_categorical(name, list(self.choices))
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def __str__(self) -> str:
        if self.choices:
            return f"one of {list(self.choices)}"
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


class RandomTrial:
    """A trial that draws every value at random, without regard to the trials before it."""

    def __init__(self, seed: int, number: int) -> None:
        self.random = np.random.default_rng([seed, number])

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        if log:
            return float(np.exp(self.random.uniform(np.log(low), np.log(high))))
        return float(self.random.uniform(low, high))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        if log:
            return min(high, int(np.exp(self.random.uniform(np.log(low), np.log(high + 1)))))
        return int(self.random.integers(low, high, endpoint=True))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[int(self.random.integers(len(choices)))]


def parse_space(section: JsonView) -> dict[str, SearchRange]:
    """The ranges of a recipe's `finetuning.search`.

    Args:
        section: Name of a field -> [low, high], [low, high, log] or {choices: [...]}.

    Raises:
        ValueError: A field that is not searched, or a range that is none.
    """
    if not section:
        raise ValueError(
            "finetuning.search: expected a range for at least one field, such as {learning_rate: [1e-5, 1e-3, log]}."
        )
    found = {}
    for name, given in section.items():
        if name not in SEARCHED:
            raise ValueError(
                f"finetuning.search.{name}: no field that is searched{nearest(name, SEARCHED)}; these are: {', '.join(SEARCHED)}."
            )
        found[name] = _parse_range(name, given)
    return found


def default_space(fields: JsonView) -> dict[str, SearchRange]:
    """The ranges that are searched where a recipe names none: around its learning rate, and of decay and warm-up.

    Args:
        fields: Recipe's finetuning section.
    """
    rate = fields["learning_rate"]
    space = {
        "learning_rate": SearchRange(low=rate / 10, high=rate * 10, log=True),
        "weight_decay": SearchRange(low=0.0, high=0.1),
    }
    if not fields["warmup_steps"]:
        space["warmup_ratio"] = SearchRange(low=0.0, high=0.2)
    if fields["layer_decay"] is not None:
        space["layer_decay"] = SearchRange(low=0.5, high=1.0)
    return space


def space_to_json(space: Mapping[str, SearchRange]) -> JsonObject:
    """The ranges as files hold them."""
    return {name: dataclasses.asdict(each) for name, each in space.items()}


def chosen_sampler() -> Sampler:
    """Optuna where it is installed, otherwise draws at random."""
    return "optuna" if importlib.util.find_spec("optuna") is not None else "random"


def draw_values(
    space: Mapping[str, SearchRange], earlier: Sequence[JsonView], seed: int, maximizes: bool, sampler: Sampler
) -> JsonObject:
    """The values of the next trial; the same arguments give the same values.

    Args:
        space: Range of each field.
        earlier: Trials that have ended, each with "values" and "score".
        seed: Seed of the search.
        maximizes: Whether a higher score is better.
        sampler: "optuna" learns from the earlier trials (its tree-structured Parzen estimator), "random" does not.
    """
    if sampler == "random":
        trial: Trial = RandomTrial(seed, len(earlier))
        return {name: each.draw(trial, name) for name, each in space.items()}
    try:
        optuna: Any = importlib.import_module("optuna")
    except ImportError as error:  # the trials before this one had it
        raise missing_extra("This search", "search", error) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize" if maximizes else "minimize", sampler=optuna.samplers.TPESampler(seed=seed + len(earlier))
    )
    distributions = {name: _distribution(optuna, each) for name, each in space.items()}
    for record in earlier:
        study.add_trial(
            optuna.trial.create_trial(params=record["values"], distributions=distributions, value=record["score"])
        )
    trial = study.ask()
    return {name: each.draw(trial, name) for name, each in space.items()}


def _distribution(optuna: Any, each: SearchRange) -> Any:  # Any: optuna's, which may be absent
    if each.choices:
        return optuna.distributions.CategoricalDistribution(list(each.choices))
    if each.whole:
        return optuna.distributions.IntDistribution(int(each.low), int(each.high), log=each.log)
    return optuna.distributions.FloatDistribution(each.low, each.high, log=each.log)


def _parse_range(name: str, given: object) -> SearchRange:
    if isinstance(given, Mapping):
        choices = given.get("choices")
        if list(given) != ["choices"] or not isinstance(choices, list) or len(choices) < 2:
            raise ValueError(
                f"finetuning.search.{name}: expected {{choices: [two values or more]}}, got {shown(given)}."
            )
        return SearchRange(choices=tuple(choices))
    form = "[low, high], [low, high, log] or {choices: [...]}"
    if name in NAMED:
        raise ValueError(f"finetuning.search.{name}: expected {{choices: [two values or more]}}, got {shown(given)}.")
    if not isinstance(given, list) or len(given) not in (2, 3) or given[2:] not in ([], ["log"]):
        raise ValueError(f"finetuning.search.{name}: expected {form}, got {shown(given)}.")
    try:
        low, high = (float(value) for value in given[:2])  # YAML reads 1e-5 as a word
    except (TypeError, ValueError) as error:
        raise ValueError(f"finetuning.search.{name}: expected {form}, got {shown(given)}.") from error
    log, whole = len(given) == 3, name in WHOLE
    if not low < high or (log and low <= 0) or (whole and not (low.is_integer() and high.is_integer())):
        kind = "whole numbers" if whole else "numbers"
        raise ValueError(
            f"finetuning.search.{name}: expected two {kind}, the lower one first{' and above 0' * log}, got {shown(given)}."
        )
    return SearchRange(low=low, high=high, log=log, whole=whole)
