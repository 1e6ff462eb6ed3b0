"""A claim of a paper as a YAML file: what is compared, on which data, and how it is decided."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from hf_maskssl.recipes import RecipeLoader, coerce, nearest

MeasureName = Literal["probe", "finetune", "modality_losses", "word_losses"]
Section = Literal["model", "data", "probe", "training", "finetuning"]
Settings = dict[str, Any]
SECTIONS: tuple[str, ...] = get_args(Section)


@dataclass(frozen=True)
class Arm:
    """One of the things that are compared.

    Attributes:
        title: as tables and pictures call it.
        start: "pretrained", "untrained" (the same configuration with random weights), or a model without any encoder:
            "raw_inputs" (logistic or ridge regression) or "majority" (the majority class or the mean).
        settings: `section.field` -> value, over those of the claim and of the data set.
        trials: the settings tried for this arm, where they are not the claim's; equally many for every trained arm.
    """

    title: str
    start: Literal["pretrained", "untrained", "raw_inputs", "majority"] = "pretrained"
    settings: Settings = field(default_factory=dict)
    trials: list[Settings] | None = None


@dataclass(frozen=True)
class DataSet:
    """Data on which every arm is measured.

    Attributes:
        recipe: of pre-training, in examples/recipes; None is the claim's.
        settings: over the recipe's and the claim's.
        steps: of pre-training; None is the claim's.
        finetuning: the data, finetuning and model sections of the downstream task (measure "finetune").
        probed: fields of the data section that probes read in place of pre-training's (measure "probe"), such as its texts.
        seeded: fields of the downstream data section whose value is this number plus the run's seed, such as that of scenes.
        minutes: that one pre-trained run takes on one CPU core, until runs have been timed; None is the claim's.
        arms: names of the arms that are run here; None means all.
    """

    recipe: str | None = None
    settings: Settings = field(default_factory=dict)
    steps: int | None = None
    finetuning: dict[str, Any] = field(default_factory=dict)
    probed: Settings = field(default_factory=dict)
    seeded: dict[str, int] = field(default_factory=dict)
    minutes: float | None = None
    arms: list[str] | None = None


@dataclass(frozen=True)
class Comparison:
    """A difference that decides.

    Attributes:
        arm, against: names of arms; the claim is that `arm` is better.
        score: name of a score of the measure, such as "linear".
        sets: names of data sets; None means all.
        paper: the paper's difference, where it gives numbers, in per cent points.
    """

    arm: str
    against: str
    score: str
    sets: list[str] | None = None
    paper: str | None = None


@dataclass(frozen=True)
class Score:
    """How a score is read.

    Attributes:
        title: as tables call it, with its unit.
        margin: differences inside of +- margin count as none, in shown units.
        factor: from the stored to the shown unit; 100 for shares.
        lower_is_better: of losses and errors.
    """

    title: str
    margin: float
    factor: float = 100.0
    lower_is_better: bool = False


@dataclass(frozen=True)
class Trials:
    """How settings are chosen: every arm tries equally many, with a seed of its own, on validation rows.

    Attributes:
        settings: what is tried.
        scores: names of validation scores; the first that a run has chooses.
        seed: of the trial runs; no seed of the claim's runs.
        steps: of a trial's pre-training; None is as many as the runs take.
    """

    settings: list[Settings]
    scores: list[str]
    seed: int = 1000
    steps: int | None = None


@dataclass(frozen=True)
class Claim:
    """See benchmarks/claims/README.md for the file's form.

    Attributes:
        name: the file's.
        title, says: in words.
        paper, source: key of the paper and the place in it (table, figure, equation).
        paper_numbers: the paper's table, as {row: {column: number}}; shown, not used.
        measure: how an encoder is measured.
        recipe, settings, steps: of pre-training, for all data sets and arms.
        seeds: runs of each arm on each data set; an arm's and another's run of one seed are a pair.
        encoder_seeds: pre-trained encoders of each arm, when a measure's seeds share them (fine-tuning); None: one a seed.
        minutes: that one run takes on one CPU core, until runs have been timed.
        weight: how much a decision is worth beside other claims'.
        speed: fields of the training section that make a run faster or not, over those of the device: {cuda_graphs: false} where
            the model cannot be captured.
        revision: raised by hand when a change of the code changes the numbers; runs of other revisions are stale.
        notes: what was varied and what that shows, where the claim fails; shown under the verdict.
    """

    name: str
    title: str
    says: str
    paper: str
    source: str
    measure: MeasureName
    recipe: str
    arms: dict[str, Arm]
    sets: dict[str, DataSet]
    scores: dict[str, Score]
    comparisons: list[Comparison]
    steps: int
    settings: Settings = field(default_factory=dict)
    trials: Trials | None = None
    seeds: int = 8
    encoder_seeds: int | None = None
    minutes: float = 5.0
    weight: float = 1.0
    speed: Settings = field(default_factory=dict)
    revision: int = 1
    paper_numbers: dict[str, dict[str, float | str]] = field(default_factory=dict)
    notes: str = ""

    def arms_of(self, name: str) -> list[str]:
        """Names of the arms that are run on a data set."""
        return self.sets[name].arms or list(self.arms)

    def trials_of(self, arm: str) -> list[Settings]:
        """What is tried for an arm; nothing where there is nothing to choose."""
        if self.trials is None or self.arms[arm].start in ("raw_inputs", "majority"):
            return []
        own = self.arms[arm].trials
        chosen = self.trials.settings if own is None else own
        if self.arms[arm].start == "untrained":
            # Only what the downstream task does with it can be chosen.
            chosen = [{name: value for name, value in one.items() if name.startswith("finetuning.")} for one in chosen]
            chosen = [one for position, one in enumerate(chosen) if one and one not in chosen[:position]]
        return chosen


def load_claim(path: Path) -> Claim:
    """Read one file.

    Raises:
        ValueError: an unknown or missing field, a value of the wrong type, or names that do not fit each other; the message
            names file and field.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=RecipeLoader)
        if not isinstance(content, dict):
            raise ValueError(f"expected fields such as 'title:', got {content!r}")
        claim: Claim = _build(Claim, {"name": path.stem, **content}, "")
        _check(claim)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"claim {path}: {error}") from error
    return claim


def load_claims(folder: Path, only: list[str] | None = None) -> list[Claim]:
    """All files of a folder, or those named: `CLAIM`, or `CLAIM/SET` for one of its data sets.

    Raises:
        ValueError: as `load_claim`; or a name has no file, or no such data set in it.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    wanted: dict[str, set[str]] = {name: set() for name in paths} if not only else {}
    for entry in only or []:
        name, _, data_set = entry.partition("/")
        if name not in paths:
            raise ValueError(f"--only {entry}: there is no such claim{nearest(name, paths)}; known: {list(paths)}")
        wanted.setdefault(name, set()).add(data_set)
    claims = []
    for name in (name for name in paths if name in wanted):
        claim, sets = load_claim(paths[name]), wanted[name]
        for data_set in sets - set(claim.sets) - {""}:
            raise ValueError(
                f"--only {name}/{data_set}: the claim has no such data set{nearest(data_set, claim.sets)}; "
                f"known: {list(claim.sets)}"
            )
        for data_set in [] if not sets or "" in sets else set(claim.sets) - sets:
            del claim.sets[data_set]
        claims.append(claim)
    return claims


_NESTED: dict[str, type] = {"arms": Arm, "sets": DataSet, "scores": Score}


def _build(kind: Any, values: Any, place: str) -> Any:
    """A dataclass from a mapping, nested ones too."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{place or 'the file'}: expected fields, got {values!r}")
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            raise ValueError(f"unknown field {place}{name}{nearest(str(name), fields)}")
    missing = [
        name
        for name, entry in fields.items()
        if name not in values and entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{place}{missing[0]} is missing")
    built: dict[str, Any] = {}
    for name, value in values.items():
        if kind is Claim and name in _NESTED:
            if not isinstance(value, Mapping) or not value:
                raise ValueError(f"{name}: expected at least one entry with a name, got {value!r}")
            built[name] = {key: _build(_NESTED[name], entry or {}, f"{name}.{key}.") for key, entry in value.items()}
        elif kind is Claim and name == "comparisons":
            built[name] = [_build(Comparison, entry, f"comparisons[{n}].") for n, entry in enumerate(value)]
        elif kind is Claim and name == "trials":
            built[name] = _build(Trials, value, "trials.")
        else:
            built[name] = coerce(value, fields[name].type, f"{place}{name}")
    return kind(**built)


def _check(claim: Claim) -> None:
    """Names fit each other; every arm has equally many trials; settings name known sections."""
    places = {"settings": claim.settings}
    places |= {f"sets.{name}.settings": one.settings for name, one in claim.sets.items()}
    places |= {f"arms.{name}.settings": arm.settings for name, arm in claim.arms.items()}
    if claim.trials is not None:
        places |= {f"trials.settings[{n}]": one for n, one in enumerate(claim.trials.settings)}
        for name in claim.trials.scores:
            if name not in claim.scores:
                raise ValueError(f"trials.scores: {name!r} is no score{nearest(name, claim.scores)}")
        if claim.trials.seed < claim.seeds:
            raise ValueError(
                f"trials.seed={claim.trials.seed} is one of the {claim.seeds} seeds of the runs: take another"
            )
    for place, settings in places.items():
        for name in settings:
            if name.partition(".")[0] not in SECTIONS or "." not in name:
                raise ValueError(f"{place}.{name}: expected section.field with a section of {list(SECTIONS)}")
    for name, arm in claim.arms.items():
        if arm.trials is not None and (claim.trials is None or len(arm.trials) != len(claim.trials.settings)):
            raise ValueError(
                f"arms.{name}.trials: every arm tries equally many settings; make it as long as trials.settings"
            )
    for name, one in claim.sets.items():
        for arm_name in one.arms or []:
            if arm_name not in claim.arms:
                raise ValueError(f"sets.{name}.arms: {arm_name!r} is no arm{nearest(arm_name, claim.arms)}")
        if one.probed and claim.measure != "probe":
            raise ValueError(f"sets.{name}.probed: measure {claim.measure!r} has no probes: remove it")
        if claim.measure == "finetune" and not {"data", "finetuning"} <= one.finetuning.keys():
            raise ValueError(f"sets.{name}.finetuning: measure 'finetune' needs its sections data and finetuning")
    for number, comparison in enumerate(claim.comparisons):
        known: dict[str, Mapping[str, Any]] = {"arm": claim.arms, "against": claim.arms, "score": claim.scores}
        for field_name, names in known.items():
            value = getattr(comparison, field_name)
            if value not in names:
                raise ValueError(f"comparisons[{number}].{field_name}: {value!r} is unknown{nearest(value, names)}")
        for value in comparison.sets or []:
            if value not in claim.sets:
                raise ValueError(f"comparisons[{number}].sets: {value!r} is unknown{nearest(value, claim.sets)}")
