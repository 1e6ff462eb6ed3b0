"""What pre-training begins with: another model's weights, or in a resumed run what the checkpoint says of them."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from ...checkpoint_folders import checkpoint_folder
from ...data.kept_statistics import KeptStatistics
from ...data.processors import Processor, load_processor
from ...files import nearest_path
from ...methods import METHODS
from ...models.pretraining import pretraining_hooks
from ...models.task_balancing import TaskPretraining
from ...recipes import build_config
from .arguments import PretrainingArguments
from .checkpoints import newest_sound_checkpoint, read_state
from .continuing import check_encoder, names_of, take_weights
from .start_report import StartReport, StartWeight

if TYPE_CHECKING:
    from .loop import Pretrainer

logger = logging.getLogger(__name__)


class Start:
    """Where the weights of a run come from, where `training.init_from` names another model.

    Args:
        args: The recipe's training section, which names the model.
        config: Configuration of the model that is trained.

    Attributes:
        processor: Processor of a checkpoint of this package, None of other models.
        report: What was taken, once `give` has given it.

    Raises:
        ValueError: No readable model has that name, it is one of another method, or its encoder has other sizes.
    """

    def __init__(self, args: PretrainingArguments, config: PreTrainedConfig) -> None:
        assert args.init_from is not None
        self.args, self.name = args, args.init_from
        self.report: StartReport | None = None
        self.processor: Processor = None
        former = read_start(self.name)
        self.is_own = former.model_type == config.model_type
        if self.is_own:
            try:
                check_encoder(config, former)
                self.folder = checkpoint_folder(self.name, "training.init_from")
            except FileNotFoundError as error:
                raise ValueError(str(error)) from error
            except ValueError as error:
                raise self._refused(error) from error
            self.processor = load_processor(self.folder)
        elif former.model_type in METHODS:
            raise ValueError(
                f"training.init_from={self.name!r} is a checkpoint of {former.model_type!r}, but model.model_type is "
                f"{config.model_type!r}: the methods have no layers in common; name a checkpoint of {config.model_type!r}."
            )

    def give(self, model: PreTrainedModel, processor: Processor) -> PreTrainedModel:
        """Give a new model the other one's weights.

        Args:
            model: New pre-training model.
            processor: Processor of the data of now.

        Returns:
            The model to train, which may be another object.

        Raises:
            ValueError: The weights do not fit; the error says why.
        """
        if not self.is_own:
            return self._give_foreign(model)
        try:
            names = names_of(processor, self.processor)
            self.report = take_weights(model, str(self.folder), names, self.args.init_positions, self.name)
        except ValueError as error:
            raise self._refused(error) from error
        if self.args.init_freeze:
            self._freeze(model, self.report)
        return model

    def _give_foreign(self, model: PreTrainedModel) -> PreTrainedModel:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        try:
            started = pretraining_hooks(model).warm_start(self.name, self.args.init_positions)
        except OSError as error:
            raise _unreadable(self.name, error) from error
        except ValueError as error:
            raise self._refused(error) from error
        if started is None:
            raise ValueError(
                f"training.init_from={self.name!r} is no checkpoint of {model.config.model_type!r}. A MultiMAE also starts from "
                f"a ViT, a PoS-BERT from a BERT; {type(model).__name__} cannot: name a checkpoint of its own method."
            )
        logger.info("The model begins with the weights of %s; what that lacks is random.", self.name)
        self.report = StartReport(self.name, read_start(self.name).model_type)
        if started is model:  # another object has random weights of its own, which nobody can tell from taken ones
            for name, value in model.state_dict().items():
                found = self.report.new if torch.equal(value, before[name]) else self.report.taken
                found.append(StartWeight(name, list(value.shape)))
        if self.args.init_freeze:
            self._freeze(started, self.report)
        return started

    def _freeze(self, model: PreTrainedModel, report: StartReport) -> None:
        """Train only what is new, in whole or in part."""
        found = {weight.name for weight in (*report.taken, *report.interpolated)}
        freeze(model, [name for name, _ in model.named_parameters() if name in found], report)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError(
                f"training.init_freeze: every weight was taken from {self.name!r}, so nothing would be trained: set it to false, "
                "or add to the model what is to be learnt."
            )
        balancer = model.balancer if isinstance(model, TaskPretraining) else None
        if balancer is not None and balancer.needs_gradients:
            raise ValueError(
                f"training.init_freeze: model.task_balancing {balancer.name!r} looks at gradients of the last encoder layer, "
                "which is not trained then: set one of the two otherwise."
            )

    def tell(self, statistics: KeptStatistics | None) -> None:
        """Complete the report and log it."""
        if self.report is None:
            return
        if statistics is not None:
            self.report.statistics = {"kept": statistics.kept, "measured": statistics.measured}
        for line in self.report.lines():
            logger.info("%s", line)
        if self.report.columns.get("moved"):
            logger.warning(
                "columns %s stand in other places than in %s; a model without learned positions tells columns by their places.",
                self.report.columns["moved"],
                self.name,
            )

    def _refused(self, error: ValueError) -> ValueError:
        how = f", training.init_positions={self.args.init_positions!r}" if self.args.init_positions != "same" else ""
        return ValueError(f"training.init_from={self.name!r}{how}: {error}")


class ResumedStart(Start):
    """The start of a run that is resumed: its weights are those of its own checkpoint, which knows what was taken.

    Args:
        args: The recipe's training section.
        folder: Checkpoint that is resumed.
    """

    def __init__(self, args: PretrainingArguments, folder: Path) -> None:
        assert args.init_from is not None
        self.args, self.name, self.is_own = args, args.init_from, False
        saved = read_state(folder).get("start")
        self.report = None if saved is None else StartReport.from_json(saved)
        has_kept = self.report is not None and bool(self.report.statistics.get("kept") or self.report.columns)
        self.processor = load_processor(folder) if has_kept else None

    def give(self, model: PreTrainedModel, processor: Processor) -> PreTrainedModel:
        """Freeze what the run has frozen; `resume` loads the weights."""
        if self.report is not None and self.report.frozen:
            freeze(model, self.report.frozen, self.report)
        return model

    def tell(self, statistics: KeptStatistics | None) -> None:
        """Say nothing: the run has said it."""


def find_start(run: "Pretrainer") -> Start | None:
    """The start of a run, read before its data, which may take hours to prepare; None where its weights are random.

    Raises:
        ValueError: `training.init_from` names no model that fits.
    """
    if run.args.init_from is None:
        return None
    resumed = newest_sound_checkpoint(run.output_dir) if run.args.resume else None
    if resumed is not None:
        return ResumedStart(run.args, resumed)
    return Start(run.args, build_config(run.recipe.model))


def note_start(run: "Pretrainer", start: Start | None) -> None:
    """Log what a run began with, and write it into its state."""
    if start is None:
        return
    start.tell(run.prepared.statistics)
    if start.report is not None:
        run.state.start = start.report.to_json()


def freeze(model: PreTrainedModel, names: list[str], report: StartReport) -> None:
    """Keep parameters as they are; the report lists them."""
    parameters = dict(model.named_parameters())
    for name in names:
        parameters[name].requires_grad_(False)
    report.frozen = list(names)


def read_start(name: str) -> PreTrainedConfig:
    """The configuration of the model to start from.

    Raises:
        ValueError: No readable model has that name.
    """
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> ValueError:
    """A one-line error that names the field; transformers' message fills several lines."""
    path = Path(name)
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    if not path.exists():
        # What transformers says of such a name ends in advice about the internet connection.
        reason = f"there is no such folder{nearest_path(path)}, and the Hub gives no model of that name"
    elif not (path / "config.json").is_file():
        inside = sorted(path.glob("*/config.json"))
        reason = "it holds no config.json" + (f"; did you mean {str(inside[-1].parent)!r}?" if inside else "")
    return ValueError(
        f"training.init_from={name!r} is neither a folder nor a Hub name from which a model can be read: {reason.rstrip('.')}."
    )
