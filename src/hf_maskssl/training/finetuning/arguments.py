"""The fields of a recipe's `finetuning` section, and the whole recipe of a fine-tuning run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from huggingface_hub.utils import HFValidationError, validate_repo_id

from ...checks import ABOVE_0, AT_LEAST_0, AT_LEAST_1, SEED, SHARE, SHARE_BELOW_1, Range, check_numbers, check_seeds
from ...data.arguments import DataArguments
from ...evaluation.arguments import LibraryModel
from ...evaluation.metrics import METRICS, metrics_of_outputs
from ...files import JsonObject
from ...recipes import load_recipe
from .adapter_types import check_adapter
from .mixing import Mixing
from .search_space import parse_space


@dataclass
class FinetuningArguments:
    """Settings of fine-tuning: the training of a task on an encoder, its seeds, and what is kept.

    Attributes:
        checkpoint: Folder or Hub name of an encoder or a pre-training checkpoint, whose configuration the fields of the `model`
            section change (dropout, say). None means random weights of the model that the section describes.
        from_scratch: Whether to take the checkpoint's configuration and processor, but random weights: the arm of a comparison
            without pre-training.
        inputs: Names of the modalities that a model of several reads, such as ["rgb", "depth"]; on the command line `--inputs
            rgb depth` or `--inputs rgb,depth`. None means those of `data.input_column`, or all that the model reads. A modality
            that the checkpoint was not pre-trained with is described under `model.modalities` and gets a new input projection.
        output_dir: Folder of results.json, results.md, the runs (one file each) and the model.
        overwrite: Whether to throw away the runs of another recipe in `output_dir` (or of other weights, rows or another
            configuration); otherwise they are an error. Runs of the same recipe that have ended are never repeated; one that was
            interrupted starts anew.
        seeds: Seeds of the runs, one run each; a seed draws the head's initial weights, the order of the rows and the labelled
            rows.
        learning_rate: Learning rate of AdamW, or a list of them: all are then tried on every seed, and the one with the best
            mean validation score is scored on the test split.
        freeze_encoder: Whether to train the task's head alone; the encoder then works as in evaluation, without dropout.
        peft: Adapter that is trained with the head in place of the encoder's weights, by the package peft: {type: lora, r: 8,
            target_modules: all-linear}. The type is "lora", "dora", "loha" or "lokr"; `target_modules` is "all-linear" for every
            linear layer behind the embeddings, or a list of the last parts of names, such as [qkv, mlp.up]; other entries are
            options of peft's class. What is saved is adapter and head. None means no adapter.
        merge_adapter: Whether to save a plain model, into whose weights the adapter is merged.
        num_train_epochs: Number of passes over the training rows, where `max_steps` is 0.
        max_steps: Number of optimiser steps; 0 means `num_train_epochs` epochs.
        eval_steps: Number of steps between two validations; 0 means one validation after each epoch.
        batch_size: Number of rows per process and forward pass.
        eval_batch_size: Number of rows per process and forward pass in scoring.
        gradient_accumulation_steps: Number of forward passes per optimiser step.
        weight_decay, adam_beta1, adam_beta2, adam_epsilon: Options of AdamW; biases and norms are not decayed.
        layer_decay: Factor between the learning rates of two layers: the head has `learning_rate`, the last layer that times
            `layer_decay`, and so on down to the embeddings (the minimax paper's Table 7: 0.65 for classification, 0.75 for dense
            tasks). Then global tokens and tensors of one dimension are not decayed either. None means one learning rate for all.
        warmup_ratio, warmup_steps: Length of the linear warm-up from 0, as a share of all steps or in steps; one of them at
            most.
        lr_scheduler_type: Shape of the learning rate's schedule after the warm-up.
        min_learning_rate: Learning rate at which "cosine" ends; `layer_decay` scales it too.
        max_grad_norm: Largest l2 norm of the gradient, which is clipped to it; None means no clipping.
        gradient_checkpointing: Whether to recompute the encoder's activations in the backward pass: less memory, more time.
        torch_compile: Whether to compile the model, by Trainer.
        early_stopping_patience: Number of validations in a row without a better score after which a run stops; 0 means never.
        metric: Name of the metric that chooses epochs and the learning rate and is shown first; None means "accuracy",
            "mean_roc_auc" (several tasks), "spearman", "token_accuracy", "mean_iou" or "delta_1", by the task. Of several columns
            of values the metrics are means over the columns.
        standardize_labels: Whether a regression learns labels with mean 0 and standard deviation 1 over its training rows.
            Scores, and the model that is kept, are in the labels' own unit either way.
        mixup: Concentration of the Beta distribution from which the share of one of two rows is drawn that a training batch's
            pictures and labels are mixed of (Zhang et al. 2018), such as 0.8; 0 means no mixup.
        cutmix: Concentration of that of cutmix (Yun et al. 2019), where a rectangle is taken from another row, such as 1.0; 0
            means no cutmix.
        mixing_probability: Probability that a batch is mixed.
        mixing_switch: Probability of cutmix, not mixup, where both are set.
        label_smoothing: Share of every training label that is spread evenly over all classes.
        labelled_samples: Number of rows to train on, drawn by the seed; None means all.
        mixed_precision: "no", "bf16" or "fp16", whatever `accelerate launch` says; None means what that says.
        num_workers: Number of processes that load batches.
        logging_steps: Number of steps between two training losses.
        quiet: Whether the runs say nothing but their warnings.
        json_log: Whether to print a line of JSON on stdout for the start, each logged step and validation, and the end.
        report_to: Names of the trackers of transformers' Trainer: "tensorboard", "wandb", ...
        push_to_hub: Whether to upload the model that is kept to `hub_model_id`.
        hub_model_id: Name of the Hub repository, `organisation/name`.
        hub_private: Whether a repository that the upload creates is private.
        save_model: Whether to keep the model of the best seed (by its validation score; the first seed where there is no
            validation split) in `output_dir`/model, with its processor.
        predict_test: Whether the model that is kept also predicts GLUE's test sets, whose labels are not public, into
            `output_dir`/glue: a file for each as its server takes it (CoLA.tsv, ...), which examples/glue_submission.py packs.
            The task is `data.config_name` or the last part of `data.data_dir`; of local files `data.data_files` names the split
            test, or for MNLI test_matched, test_mismatched and ax.
        search_trials: Number of trials of a search for hyper-parameters, on the command line `--search N`: each trains the first
            seed with values drawn from `search`, and the best on the validation split are trained on every seed. 0 means no
            search. Trials that have ended are never repeated. Drawn by optuna where it is installed, otherwise at random.
        search: Ranges of the search by field, [low, high], [low, high, log] or {choices: [...]}: {learning_rate: [1e-5, 1e-3,
            log], weight_decay: [0, 0.1]}. None means a tenth to ten times the learning rate, a weight decay of 0 to 0.1 and a
            warm-up of up to a fifth of the steps.
        compare_with: Table of name -> `output_dir` of other runs on the same rows, whose predictions the picture of a dense
            task's maps shows beside this run's, such as {uncertainty: outputs/a, gradnorm: outputs/b} (the minimax paper's
            Figure 3). None compares none.
        baselines: Whether to score baselines beside the runs, on the same rows: the same training without
            pre-training (the same seeds, and the same learning rates to choose from; in `output_dir`/from_scratch), the most
            frequent class or the mean label, and a plain model on the raw inputs. Differences are paired by seed.
        baseline_models: Names of further baselines of `baselines`, supervised models of the raw inputs, one a seed: "mlp",
            "hist_gradient_boosting", "random_forest", and with the extra `baselines` "xgboost", "resnet", "ft_transformer",
            "tabnet" (`evaluation.library_baselines`). For classification and regression.
        baseline_trials: Number of trials by which each of `baseline_models` is tuned: hyper-parameters drawn at random with the
            first seed (`baseline_search`), of which those with the best `metric` on the validation split, or on a tenth of the
            training rows where that split is scored or absent, are fitted with every seed. The first trial is the untuned model.
            Trials that have ended are never repeated. 0 means no tuning.
    """

    checkpoint: str | None = None
    from_scratch: bool = False
    inputs: list[str] | None = None
    output_dir: str = "outputs/finetune"
    overwrite: bool = False
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    learning_rate: float | list[float] = 1e-4
    freeze_encoder: bool = False
    peft: JsonObject | None = None
    merge_adapter: bool = False
    num_train_epochs: float = 30.0
    max_steps: int = 0
    eval_steps: int = 0
    batch_size: int = 32
    eval_batch_size: int = 128
    gradient_accumulation_steps: int = 1
    weight_decay: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    layer_decay: float | None = None
    warmup_ratio: float = 0.0
    warmup_steps: int = 0
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "linear"
    min_learning_rate: float = 0.0
    max_grad_norm: float | None = 1.0
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    early_stopping_patience: int = 0
    metric: str | None = None
    standardize_labels: bool = True
    mixup: float = 0.0
    cutmix: float = 0.0
    mixing_probability: float = 1.0
    mixing_switch: float = 0.5
    label_smoothing: float = 0.0
    labelled_samples: int | None = None
    mixed_precision: Literal["no", "bf16", "fp16"] | None = None
    num_workers: int = 0
    logging_steps: int = 50
    quiet: bool = False
    json_log: bool = False
    report_to: list[str] = field(default_factory=list)
    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_private: bool = False
    save_model: bool = True
    predict_test: bool = False
    search_trials: int = 0
    search: JsonObject | None = None
    compare_with: dict[str, str] | None = None
    baselines: bool = False
    baseline_models: list[LibraryModel] = field(default_factory=list)
    baseline_trials: int = 0

    RANGES: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("batch_size", "eval_batch_size", "gradient_accumulation_steps", "logging_steps"), AT_LEAST_1),
        **dict.fromkeys(("max_steps", "eval_steps", "weight_decay", "warmup_steps"), AT_LEAST_0),
        **dict.fromkeys(("early_stopping_patience", "num_workers", "search_trials", "baseline_trials"), AT_LEAST_0),
        **dict.fromkeys(("num_train_epochs", "max_grad_norm", "labelled_samples", "adam_epsilon"), ABOVE_0),
        **dict.fromkeys(("warmup_ratio", "adam_beta1", "adam_beta2"), SHARE_BELOW_1),
        **dict.fromkeys(("mixup", "cutmix"), AT_LEAST_0),
        **dict.fromkeys(("mixing_probability", "mixing_switch"), SHARE),
        "label_smoothing": SHARE_BELOW_1,
        "layer_decay": Range(0, 1, excludes_low=True),
        "learning_rate": ABOVE_0,
        "min_learning_rate": AT_LEAST_0,
        "seeds": SEED,
    }

    def __post_init__(self) -> None:
        """Refuse values that no run can work with.

        Raises:
            ValueError: A value cannot work; the error names field, expectation and value.
        """
        check_seeds("finetuning.seeds", self.seeds)
        check_numbers("finetuning.", self, self.RANGES)
        if self.from_scratch and self.checkpoint is None:
            raise ValueError(
                "finetuning.from_scratch takes the configuration of finetuning.checkpoint, which is not set: name it, or "
                "leave from_scratch out, since a run without a checkpoint starts from random weights."
            )
        rates = self.learning_rates
        if not rates or len(set(rates)) != len(rates) or min(rates) <= 0:
            raise ValueError(
                f"finetuning.learning_rate: expected a positive number or several different ones, got "
                f"{self.learning_rate}."
            )
        if self.warmup_ratio and self.warmup_steps:
            raise ValueError(
                f"finetuning.warmup_ratio={self.warmup_ratio} and finetuning.warmup_steps={self.warmup_steps} are both "
                "set: keep one of them."
            )
        if self.max_steps and self.warmup_steps > self.max_steps:
            raise ValueError(
                f"finetuning.warmup_steps={self.warmup_steps} is more than finetuning.max_steps={self.max_steps}: the run would "
                "end before the learning rate is reached."
            )
        self._check_decays()
        self._check_adapter()
        self._check_upload()
        if self.predict_test and not self.save_model:
            raise ValueError(
                "finetuning.predict_test is done by the model that save_model keeps: set save_model to true."
            )
        self._check_search()
        if self.inputs is not None and (not self.inputs or len(set(self.inputs)) != len(self.inputs)):
            raise ValueError(f"finetuning.inputs: expected different modalities, at least one, got {self.inputs}.")
        _check_baselines(self)
        if self.metric is not None and self.metric not in METRICS:
            raise ValueError(f"finetuning.metric: expected one of {list(METRICS)} or nothing, got {self.metric!r}.")

    def _check_decays(self) -> None:
        if self.layer_decay is not None and self.freeze_encoder:
            raise ValueError(
                f"finetuning.layer_decay={self.layer_decay} is for the layers of an encoder that is trained, but "
                "finetuning.freeze_encoder is true: keep one of them."
            )
        if not 0 <= self.min_learning_rate <= min(self.learning_rates):
            raise ValueError(
                f"finetuning.min_learning_rate: expected 0 to finetuning.learning_rate ({self.learning_rate}), got "
                f"{self.min_learning_rate}."
            )
        if self.min_learning_rate and self.lr_scheduler_type != "cosine":
            raise ValueError(
                f"finetuning.min_learning_rate={self.min_learning_rate} is where lr_scheduler_type 'cosine' ends, which is "
                f"{self.lr_scheduler_type!r}: set one of them anew."
            )

    def _check_adapter(self) -> None:
        if self.peft is None:
            if self.merge_adapter:
                raise ValueError("finetuning.merge_adapter: there is no adapter to merge: set finetuning.peft.")
            return
        check_adapter(self.peft)
        if self.checkpoint is None:
            raise ValueError(
                "finetuning.peft adapts the encoder of finetuning.checkpoint, which is not set: name it, or leave peft out."
            )
        for name in ("freeze_encoder", "layer_decay"):
            value = vars(self)[name]
            if value:
                raise ValueError(
                    f"finetuning.{name}={value} is for an encoder without an adapter, but finetuning.peft is set: keep one "
                    "of them."
                )

    def _check_search(self) -> None:
        if self.search is not None:
            parse_space(self.search)
        if self.search_trials and isinstance(self.learning_rate, list):
            raise ValueError(
                f"finetuning.learning_rate={self.learning_rate} is a list to try, but finetuning.search_trials is "
                f"{self.search_trials}: give one learning rate, and its range in finetuning.search."
            )

    def _check_upload(self) -> None:
        if not self.push_to_hub:
            return
        if self.hub_model_id is None or self.hub_model_id.count("/") != 1:
            raise ValueError(
                "finetuning.push_to_hub needs finetuning.hub_model_id, 'organisation/name', such as 'org/sma-smiles', got "
                f"{self.hub_model_id!r}."
            )
        try:
            validate_repo_id(self.hub_model_id)
        except HFValidationError as error:
            raise ValueError(f"finetuning.hub_model_id: {error}") from error
        if not self.save_model:
            raise ValueError("finetuning.push_to_hub uploads the model that save_model keeps: set save_model to true.")
        if self.peft is not None and not self.merge_adapter:
            raise ValueError(
                "finetuning.push_to_hub uploads a whole model: set merge_adapter to true, which merges finetuning.peft into it."
            )

    def mixing(self, num_labels: int) -> Mixing | None:
        """How training batches are mixed, None where they are left as they are."""
        if not (self.mixup or self.cutmix or self.label_smoothing):
            return None
        shares = (self.mixing_probability, self.mixing_switch, self.label_smoothing)
        return Mixing(self.mixup, self.cutmix, *shares, num_labels)

    @property
    def learning_rates(self) -> list[float]:
        """Every learning rate to try."""
        return self.learning_rate if isinstance(self.learning_rate, list) else [self.learning_rate]

    def headline_metric(self, task: str, num_labels: int | None = None) -> str:
        """Name of the metric that selects and is shown first.

        Args:
            task: Task that is learnt.
            num_labels: Number of outputs; None while it is not known, when metrics of two classes are taken to fit.

        Raises:
            ValueError: `metric` does not measure this task.
        """
        known = metrics_of_outputs(task, 2 if num_labels is None else num_labels)
        outputs = "" if num_labels is None else f" with {num_labels} output(s)"
        if self.metric is not None and self.metric not in known:
            raise ValueError(
                f"finetuning.metric: {self.metric!r} does not measure a {task} task{outputs}; expected "
                f"one of {list(known)} or nothing."
            )
        return self.metric or known[0]


def _check_baselines(args: FinetuningArguments) -> None:
    names = args.baseline_models
    if names and (not args.baselines or len(set(names)) != len(names)):
        raise ValueError(
            f"finetuning.baseline_models: expected different names, and finetuning.baselines true, got {names} and "
            f"{args.baselines}."
        )
    if args.baseline_trials and not names:
        raise ValueError(
            f"finetuning.baseline_trials={args.baseline_trials} tunes finetuning.baseline_models, of which there are none: "
            "name some, or set it to 0."
        )


@dataclass
class FinetuningRecipe:
    """A whole fine-tuning run: `model` holds configuration fields, with `model_type` unless a checkpoint has it."""

    model: JsonObject
    data: DataArguments
    finetuning: FinetuningArguments


def load_finetuning_recipe(path: str | Path, overrides: Sequence[str] = ()) -> FinetuningRecipe:
    """Read a recipe and the command line's `--field value` overrides; errors as in `load_recipe`.

    A bare field name that several sections know means the finetuning section's. `--inputs` takes several words, or names with
    commas between them.
    """
    sections = {"model": dict, "data": DataArguments, "finetuning": FinetuningArguments}
    words = _search_as_trials(_inputs_as_one_word(overrides))
    return FinetuningRecipe(**load_recipe(path, words, sections, primary="finetuning"))


def _search_as_trials(words: Sequence[str]) -> list[str]:
    """`--search 20` and `--search=20` -> `--search_trials 20`; ranges stay what they are."""
    found: list[str] = []
    for word in words:
        option, _, value = word.partition("=")
        if option in ("--search", "--finetuning.search") and value.isdigit():
            found += ["--search_trials", value]
        elif found and found[-1] in ("--search", "--finetuning.search") and word.isdigit():
            found[-1:] = ["--search_trials", word]
        else:
            found.append(word)
    return found


def _inputs_as_one_word(words: Sequence[str]) -> list[str]:
    """`--inputs rgb depth` and `--inputs rgb,depth` -> `--inputs [rgb, depth]`, as every other list is written."""
    joined: list[str] = []
    names: list[str] | None = None  # the inputs' names so far
    for word in words:
        option, _, value = word.partition("=")
        if word.startswith("--"):
            names = [] if option in ("--inputs", "--finetuning.inputs") else None
        if names is None:
            joined.append(word)
            continue
        if word.startswith("--"):
            joined += [option] if not value else [option, value]
            word = value
        elif not names:
            joined.append(word)
        names += word.strip("[]").replace(",", " ").split()
        if len(names) > 1:
            joined[-1] = f"[{', '.join(names)}]"
    return joined
