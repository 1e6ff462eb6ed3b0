"""`mask_ratio: auto`: the share of masked tokens, chosen by short runs before the run (Jamieson and Talwalkar 2016).

Successive halving: every ratio is trained for a few steps, the better half for twice as many, until one is left. Trials are
scored on held-out rows that the run's test split has no part in: by a linear probe where there are labels, and otherwise by the
reconstruction error, averaged over all ratios so that none is scored by what it was trained for alone. The paper of MetaMAE
(section 3.1) chooses the ratio among candidates by hand.
"""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list, send_to_device
from transformers import AutoModelForPreTraining

from ...evaluation.metrics import LOWER_IS_BETTER
from ...evaluation.online import labelled_held_out, online_probe
from ...files import JsonObject, remove_folder, writable_folder, write_json
from ...recipes import build_config
from ...terminal import counted, one_voice
from .arguments import PretrainingRecipe
from .batches import validation_batches
from .checkpoints import list_checkpoints, refuse_former_run
from .loop import Pretrainer
from .watching import Watcher, whole_encoder, whole_model

AUTO = "auto"
RATIOS = (0.15, 0.3, 0.5, 0.7, 0.85)
TRIALS_FOLDER, CHOICE_FILE = "mask_ratio_trials", "mask_ratio.json"
HELD_OUT = 0.1  # share of the training rows, where the recipe holds none out
SCORE = "score"

logger = logging.getLogger(__name__)


def with_default_ratio(recipe: PretrainingRecipe) -> PretrainingRecipe:
    """The recipe with the model's default ratio where it is to be chosen, as to describe the run; or with the first of the
    candidates that goes with its other fields, where the default does not.

    Raises:
        ValueError: None does.
    """
    if not is_open(recipe):
        return recipe
    default = {name: value for name, value in recipe.model.items() if name != "mask_ratio"}
    for model in (default, *({**default, "mask_ratio": ratio} for ratio in RATIOS)):
        try:
            build_config(model)
        except ValueError as error:
            refused = _of_ratio(error)
        else:
            return dataclasses.replace(recipe, model=model)
    raise ValueError(f"model.mask_ratio: auto tries {list(RATIOS)}, and none goes with the other fields: {refused}")


def _of_ratio(error: ValueError) -> ValueError:
    """An error of a configuration, where it is about the mask ratio.

    Raises:
        ValueError: It is about something else.
    """
    if "mask_ratio" not in str(error):
        raise error
    return error


def is_open(recipe: PretrainingRecipe) -> bool:
    """Whether a recipe leaves the mask ratio to be chosen."""
    return bool(recipe.model.get("mask_ratio") == AUTO)


def with_mask_ratio(recipe: PretrainingRecipe) -> PretrainingRecipe:
    """The recipe with `model.mask_ratio: auto` replaced by the ratio that short runs choose; any other stays as it is.

    The trials, their scores and the choice are written to `mask_ratio.json` in the output folder; a run that is resumed takes
    the choice from there. Every process calls this.

    Args:
        recipe: The run.

    Raises:
        ValueError: A model without a mask ratio, a stream without a validation split, or a choice that a resumed run lacks.
        SystemExit: SIGTERM or Ctrl-C came; the trials begin anew with the next call.
    """
    if not is_open(recipe):
        return recipe
    folder = writable_folder(Path(recipe.training.output_dir), "training.output_dir")
    path = folder / CHOICE_FILE
    if recipe.training.resume and path.is_file():
        return _with_ratio(recipe, float(json.loads(path.read_text(encoding="utf-8"))["chosen"]))
    if recipe.training.resume and list_checkpoints(folder):
        raise ValueError(
            f"model.mask_ratio: auto, but {path}, which holds the choice of the run to resume, is missing: set model.mask_ratio "
            "to what config.json of its checkpoints says"
        )
    refuse_former_run(folder)
    state = PartialState()
    if state.is_main_process:
        remove_folder(folder / TRIALS_FOLDER)  # left by a call that was stopped
    state.wait_for_everyone()
    with one_voice(recipe.training.quiet):
        found = _halved(recipe)
    if state.is_main_process:
        remove_folder(folder / TRIALS_FOLDER)
        write_json(path, found)
    return _with_ratio(recipe, found["chosen"])


def _halved(recipe: PretrainingRecipe) -> JsonObject:
    """The trials and the ratio that is left, as `mask_ratio.json` has them."""
    ratios = [ratio for ratio in RATIOS if _fits(recipe, ratio)]
    scored_by = "linear probe" if recipe.data.label_column is not None else "reconstruction"
    steps, left, trials = recipe.training.auto_mask_steps, ratios, 0
    rungs: list[JsonObject] = []
    logger.info("mask ratio: one of %s, by runs of %s and more", ratios, counted(steps, "step"))
    while len(left) > 1:
        scores = {ratio: _trial(recipe, ratio, steps, ratios) for ratio in left}
        rungs.append({"steps": steps, "scores": {str(ratio): score for ratio, score in scores.items()}})
        trials += len(scores)
        # Of equal scores the ratio nearest to one half comes first.
        ranked = sorted(left, key=lambda ratio: (-scores[ratio], abs(ratio - 0.5)))
        left, steps = ranked[: len(left) // 2], 2 * steps
    logger.info("mask ratio: %s, chosen by the %s of %s", left[0], scored_by, counted(trials, "short run"))
    return {"scored_by": scored_by, "ratios": ratios, "rungs": rungs, "chosen": left[0]}


def _with_ratio(recipe: PretrainingRecipe, ratio: float) -> PretrainingRecipe:
    return dataclasses.replace(recipe, model={**recipe.model, "mask_ratio": ratio})


def _fits(recipe: PretrainingRecipe, ratio: float) -> bool:
    """Whether a ratio leaves a sample of this length something to mask and something to see.

    Raises:
        ValueError: A model without a mask ratio.
    """
    config = build_config(with_default_ratio(recipe).model)
    if not hasattr(config, "mask_ratio"):
        raise ValueError(f"model.mask_ratio: auto, but a {config.model_type} has no mask ratio: leave it out")
    try:
        build_config({**recipe.model, "mask_ratio": ratio})
    except ValueError as error:
        _of_ratio(error)
        return False
    return True


def _trial(recipe: PretrainingRecipe, ratio: float, steps: int, ratios: Sequence[float]) -> float:
    """The score of a short run with a ratio, higher is better; known to the main process."""
    folder = Path(recipe.training.output_dir) / TRIALS_FOLDER / f"{ratio}-{steps}"
    training = dataclasses.replace(
        recipe.training,
        output_dir=str(folder),
        max_steps=steps,
        warmup_steps=min(recipe.training.warmup_steps, steps // 10),
        logging_steps=steps,
        save_steps=0,
        eval_steps=0,
        picture_steps=0,
        save_best=False,
        report_to=[],
        push_to_hub=False,
        resume=False,
        quiet=True,
        json_log=False,
    )
    data = recipe.data
    if data.validation_split is None and not data.validation_fraction and data.split == "given":
        if data.streaming:
            raise ValueError("model.mask_ratio: auto needs held-out rows of the stream: name data.validation_split")
        data = dataclasses.replace(data, validation_fraction=HELD_OUT)
    # A probe may score test rows where there are no others; the choice of a hyper-parameter must not.
    data = dataclasses.replace(data, test_split=None)
    trial = dataclasses.replace(_with_ratio(recipe, ratio), data=data, training=training)
    watcher = _LinearProbe(steps) if data.label_column is not None else _Reconstruction(steps, ratios)
    state = Pretrainer(trial, watchers=[watcher]).run()
    if state.interrupted:
        raise SystemExit("stopped while the mask ratio was chosen; the same call chooses it anew")
    score = state.latest(SCORE)
    value = broadcast_object_list([score])[0]
    logger.info("mask ratio %s, %s: %s %.4g", ratio, counted(steps, "step"), watcher.title, watcher.sign * value)
    return float(value)


class _Scorer(Watcher):
    """A look at a trial after its last step.

    Attributes:
        title: Words for the score.
        sign: 1 where more is better, -1 where less is; scores are multiplied by it.
    """

    title = ""
    sign = 1.0


class _LinearProbe(_Scorer):
    title = "linear probe"

    def check(self, run: Pretrainer) -> None:
        task, _ = labelled_held_out(run.prepared)
        self.metric = run.recipe.probe.headline_metric(task)
        self.title = f"linear probe, {self.metric}"
        self.sign = -1.0 if self.metric in LOWER_IS_BETTER else 1.0

    def look(self, run: Pretrainer) -> dict[str, float]:
        encoder = whole_encoder(run)
        if encoder is None:
            return {}
        found = online_probe(encoder, run.prepared, run.recipe.probe, run.accelerator.device)
        return {SCORE: self.sign * found[f"probe/linear_{self.metric}"]}


class _Reconstruction(_Scorer):
    title, sign = "reconstruction error", -1.0

    def __init__(self, every: int, ratios: Sequence[float]) -> None:
        super().__init__(every)
        self.ratios = ratios

    @torch.no_grad()
    def look(self, run: Pretrainer) -> dict[str, float]:
        """The error of the main process's held-out rows at every ratio; the weights are those of the run.

        A model that guides its masks is scored by random ones: by its own, one that chooses easy tokens would win.
        """
        trained = whole_model(run)
        if trained is None:
            return {}
        is_guided = run.recipe.model.get("masking") == "guided"
        masks = {"masking": "random", "mask_schedule": "none"} if is_guided else {}
        errors, rows_seen = torch.zeros((), dtype=torch.float64), 0
        for number, ratio in enumerate(self.ratios):
            config = build_config({**run.recipe.model, **masks, "mask_ratio": ratio})
            model: Any = AutoModelForPreTraining.from_config(config).to(run.accelerator.device).eval()
            model.load_state_dict(trained.state_dict())
            for part, (rows, batch) in enumerate(validation_batches(run.prepared, run.args, run.accelerator)):
                run.seed(number, part)
                outputs = model(**send_to_device(run.inputs(batch), run.accelerator.device))
                error = (outputs.loss_parts or {}).get("reconstruction", outputs.loss)
                errors += error.double().cpu() * rows
                rows_seen += rows
        return {SCORE: -float(errors / rows_seen)}
