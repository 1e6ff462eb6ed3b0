"""A run: one arm of a claim on one data set with one seed; what it is made of, and the file that holds its result."""

import dataclasses
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_maskssl.data.arguments import DataArguments, data_arguments
from hf_maskssl.training import PretrainingRecipe, load_pretraining_recipe
from hf_maskssl.training.digests import encoder_settings, portable, settings_digest
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe

from .claim import Claim, Settings

ROOT = Path(__file__).resolve().parent.parent.parent
RECIPES = ROOT / "examples" / "recipes"
# Environment variables that hold folders of data, which differ between machines.
PLACES = ("HF_MASKSSL_SHARED", "HF_MASKSSL_CLAIMS_DATA")
# Raised when the way in which encoders are measured changes: older runs are stale then.
MEASURE_VERSIONS = {"probe": 1, "finetune": 1, "modality_losses": 1, "word_losses": 1}


@dataclass(frozen=True)
class Run:
    """What a result file is about.

    Attributes:
        claim, data_set, arm: names.
        seed: of initial weights, data order, masks, downstream task.
        trial: number of the tried settings; None in a run that counts.
    """

    claim: str
    data_set: str
    arm: str
    seed: int
    trial: int | None = None

    def path(self, results: Path, device: str) -> Path:
        """Its file for runs on "cpu" or "cuda"."""
        what = f"trial{self.trial}" if self.trial is not None else f"seed{self.seed}"
        return results / self.claim / self.data_set / f"{self.arm}-{what}-{device}.json"

    def __str__(self) -> str:
        what = f"trial {self.trial}" if self.trial is not None else f"seed {self.seed}"
        return f"{self.claim}/{self.data_set}/{self.arm}, {what}"


@dataclass(frozen=True)
class Plan:
    """All settings of a run.

    Attributes:
        pretraining: the recipe of its encoder; the model and data sections alone count where nothing is pre-trained.
        is_pretrained: whether the encoder is pre-trained or has random weights.
        finetuning: the sections data, model and finetuning of the downstream task, or None.
        probed: the data section that probes read.
        digest: of everything that the numbers depend on.
        encoder_digest: of what the encoder depends on.
    """

    pretraining: PretrainingRecipe
    is_pretrained: bool
    finetuning: dict[str, Any] | None
    probed: DataArguments
    digest: str
    encoder_digest: str


def plan_run(claim: Claim, run: Run, chosen: Settings) -> Plan:
    """Settings of a run: recipe, claim, data set, arm and chosen trial, each over those before it.

    Raises:
        ValueError: a setting that its section does not know.
    """
    data_set, arm = claim.sets[run.data_set], claim.arms[run.arm]
    settings = claim.settings | data_set.settings | arm.settings | chosen
    steps = data_set.steps or claim.steps
    if run.trial is not None and claim.trials is not None and claim.trials.steps is not None:
        steps = min(steps, claim.trials.steps)
    encoder_seed = run.seed
    if claim.encoder_seeds is not None:
        encoder_seed = run.seed % claim.encoder_seeds
    timing = {"training.seed": encoder_seed, "training.max_steps": steps}
    if "training.warmup_steps" not in settings:
        timing["training.warmup_steps"] = steps // 10
    recipe = load_pretraining_recipe(RECIPES / f"{data_set.recipe or claim.recipe}.yaml")
    recipe = with_settings(recipe, {**settings, **timing})
    finetuning = None
    if claim.measure == "finetune":
        fields = data_set.finetuning["finetuning"] | {
            name.removeprefix("finetuning."): value
            for name, value in settings.items()
            if name.startswith("finetuning.")
        }
        drawn = {name: first + run.seed for name, first in data_set.seeded.items()}
        data = data_set.finetuning["data"] | drawn
        finetuning = {**data_set.finetuning, "data": data, "finetuning": fields | {"seeds": [run.seed]}}
    is_pretrained = arm.start == "pretrained"
    of_encoder = encoder_settings(recipe, is_pretrained, PLACES)
    everything = {
        "revision": claim.revision,
        "measure": claim.measure,
        "start": arm.start,
        "seed": run.seed,
        "encoder": of_encoder,
        "measured_by": MEASURE_VERSIONS[claim.measure],
        "metric": recipe.probe.metric,
        "finetuning": portable(finetuning, PLACES),
    }
    if data_set.probed:  # left out elsewhere, so that older digests stay
        everything["probed"] = portable(data_set.probed, PLACES)
    probed = with_settings(recipe, {f"data.{name}": value for name, value in data_set.probed.items()}).data
    encoder_digest = settings_digest([claim.revision, of_encoder])
    return Plan(recipe, is_pretrained, finetuning, probed, settings_digest(everything), encoder_digest)


def with_settings(recipe: PretrainingRecipe, settings: Settings) -> PretrainingRecipe:
    """The recipe with `section.field` -> value; fields of other sections, such as finetuning, are passed over."""
    sections: dict[str, Settings] = {"model": {}, "data": {}, "probe": {}, "training": {}}
    for name, value in settings.items():
        section, _, field = name.partition(".")
        if section in sections:
            sections[section][field] = value
    model = {name: value for name, value in {**recipe.model, **sections["model"]}.items() if value is not None}
    try:
        return PretrainingRecipe(
            model=model,
            data=dataclasses.replace(recipe.data, **sections["data"]),
            probe=dataclasses.replace(recipe.probe, **sections["probe"]),
            training=dataclasses.replace(recipe.training, **sections["training"]),
        )
    except TypeError as error:  # a field that the dataclass does not have
        raise ValueError(f"settings {sorted(settings)}: {error}") from error


def finetuning_recipe(plan: Plan, checkpoint: Path, output: Path) -> FinetuningRecipe:
    """The downstream task on a checkpoint, whose weights are taken only where they were pre-trained."""
    assert plan.finetuning is not None
    fields = plan.finetuning["finetuning"] | {"output_dir": str(output), "save_model": False}
    fields |= {"checkpoint": str(checkpoint), "from_scratch": not plan.is_pretrained}
    model = dict(plan.finetuning.get("model", {}))
    return FinetuningRecipe(model, data_arguments(**plan.finetuning["data"]), FinetuningArguments(**fields))


def read_results(folder: Path) -> dict[Path, dict[str, Any]]:
    """Every result below a folder, by its path relative to it.

    Raises:
        ValueError: a file that is no result; it names the file.
    """
    found = {}
    for path in sorted(folder.glob("*/*/*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if not {"claim", "data_set", "arm", "seed", "trial", "digest", "scores", "device"} <= result.keys():
                raise ValueError("fields are missing")
            if result["claim"] != path.parent.parent.name or result["data_set"] != path.parent.name:
                raise ValueError(f"it is a result of {result['claim']}/{result['data_set']}")
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{path} is not a run of this folder: {error}; move it away") from error
        found[path.relative_to(folder)] = result
    return found


def commit() -> str:
    """The code's commit, with "+" when files differ from it; "unknown" in a copy that does not say."""
    if "HF_MASKSSL_COMMIT" in os.environ:  # a copy without Git
        return os.environ["HF_MASKSSL_COMMIT"]
    found = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        return "unknown"
    changed = subprocess.run(
        ["git", "status", "--porcelain", "src", "benchmarks"], cwd=ROOT, capture_output=True, text=True
    )
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "")
