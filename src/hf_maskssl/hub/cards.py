"""Model cards: the README.md of a checkpoint, written from the run that made it."""

import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accelerate
import torch
import transformers
from accelerate.state import AcceleratorState, is_initialized
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForPreTraining, PreTrainedConfig

import hf_maskssl

from ..data import find_kind
from ..data.arguments import DataArguments, checkpoint_name, is_hub_name
from ..data.tables.report import REPORT_FILE, share_words
from ..evaluation.reports import markdown_table
from ..files import write_whole
from ..methods import Description, find_method
from ..methods.optional_fields import modality, word_tasks
from ..models.configuration_pos_minimax_bert import NEXT_SENTENCE
from ..pictures.curves import draw_curves
from ..recipes import build_config
from ..terminal import counted
from ..training.cost import device_name
from ..training.finetuning.adapters import is_adapter
from ..training.finetuning.arguments import FinetuningRecipe
from ..training.pretraining.arguments import PretrainingRecipe
from ..training.pretraining.start_report import StartReport, modules, sizes
from ..training.pretraining.state import RunState
from .card_headers import CARD
from .card_recipes import finetuned_recipe_text, pretraining_recipe_text
from .card_results import (
    ONLY_ONLINE,
    PLACEHOLDER,
    UNMEASURED,
    finetuned_results,
    online_results,
    pipeline_of,
    source_name,
)
from .snippets import adapter_snippet, fills_masks, loading_snippets, widget_examples

if TYPE_CHECKING:  # conversion writes cards
    from .conversion.official_files import Converted

CURVES = "curves.png"
Section = tuple[str, str]  # title and text


def write_model_card(folder: Path, recipe: PretrainingRecipe, state: RunState) -> None:
    """Write README.md, and curves.png beside it, for a checkpoint of a run.

    Args:
        folder: Checkpoint folder; its processor decides how the card says to prepare inputs.
        recipe: The run's recipe with all overrides.
        state: State of the run; its history gives curves, losses and probe results.

    Raises:
        ValueError: No method has the recipe's model type.
    """
    folder = Path(folder)
    config = build_config(recipe.model)
    method = find_method(config).describe(config)
    data = recipe.data
    sections = [
        ("Use", _usage(loading_snippets(folder, config, PLACEHOLDER, data))),
        ("Data", _data_table(data, Path(recipe.training.output_dir), config=config, state=state)),
        ("Training", _training(folder, recipe, state, config)),
        ("Initial weights", _initial_weights(state)),
        ("Online probe", _probe(recipe, state)),
        ("Recipe", pretraining_recipe_text(recipe)),
        ("Limitations", _limitations(recipe, state)),
        ("Citation", method.citation),
    ]
    kinds = dict.fromkeys([modality(config) or data.kind, data.kind])
    sources = list(data.sections().values()) or [data]
    header = _header(
        config, list(kinds), [one.source for one in sources if is_hub_name(one.source)], online_results(recipe, state)
    )
    header["widget"] = widget_examples(folder, config, data) or None
    if recipe.training.init_from is not None and is_hub_name(recipe.training.init_from):
        header.base_model = recipe.training.init_from
    title = f"{method.name} pre-trained on {source_name(data)}"
    _save(folder, header, title, _introduction(method, config), sections)


def write_converted_card(folder: Path, checkpoint: str, converted: "Converted") -> None:
    """Write README.md for an official checkpoint that was converted.

    Args:
        folder: Folder of the converted model, with its processor if it has one.
        checkpoint: Name of the authors' file or folder.
        converted: Converted model, and facts for its card.
    """
    config = converted.model.config
    method = find_method(config).describe(config)
    what = converted.origin or f"the authors' checkpoint ({method.repository})"
    origin = (
        f"The weights are those of `{checkpoint}`, {what}, converted by "
        f"`python -m hf_maskssl.hub.conversion` of hf_maskssl {hf_maskssl.__version__} and not trained further. "
        "The file does not name the data it was trained on."
    )
    if converted.assumed:
        rows = [[f"`{name}`", str(value)] for name, value in converted.assumed.items()]
        settings = markdown_table(rows, ["field", "value"])
        origin += f" Neither does it store the following settings, for which these values were taken:\n\n{settings}"
    limitations = ["Nothing was measured for this card.", *converted.notes]
    if converted.model.base_model is converted.model:
        limitations.append("The file holds the encoder alone: `AutoModelForPreTraining` would start new decoders.")
    if converted.processor is None:
        limitations.append("The file holds no processor: prepare inputs as the authors did.")
    limitations.append("The licence of the weights is their authors' to say.")
    sections = [
        ("Use", _usage(loading_snippets(folder, config, PLACEHOLDER))),
        ("Origin", origin),
        ("Limitations", "\n".join(f"- {line}" for line in limitations)),
        ("Citation", method.citation),
    ]
    title = f"{method.name}, converted from {checkpoint}"
    _save(Path(folder), _header(config, [config.modality]), title, _introduction(method, config), sections)


def write_finetuned_card(folder: Path, recipe: FinetuningRecipe, results: Mapping[str, Any]) -> None:
    """Write README.md for a model that was fine-tuned.

    Args:
        folder: Folder of the model that was kept, with its processor if it has one.
        recipe: The run's recipe with all overrides.
        results: Content of results.json.

    Raises:
        ValueError: No method has the model's type.
    """
    folder, data = Path(folder), recipe.data
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    method = find_method(config).describe(config)
    task = results["task"]
    seed, count = results["model"]["seed"], len(recipe.finetuning.seeds)
    scores = f"{results['selection']} Means over {count} seed(s) with 95 % t intervals; the model here is that of seed {seed}."
    table = markdown_table(results["table"]["rows"], results["table"]["columns"])
    sections = [
        ("Use", _use_of_finetuned(folder, config, recipe, task)),
        ("Scores", f"{scores}\n\n{table}"),
        ("Data", _data_table(_data_read(data, results), folder.parent, results["rows"])),
        ("Training", _finetuning_cost(results)),
        ("Recipe", finetuned_recipe_text(recipe)),
        ("Limitations", _finetuned_limitations(recipe, results)),
        ("Citation", method.citation),
    ]
    checkpoint = recipe.finetuning.checkpoint
    pretrained = checkpoint is not None and not recipe.finetuning.from_scratch
    header = ModelCardData(
        library_name="transformers",
        pipeline_tag=pipeline_of(data.kind, task),
        base_model=checkpoint if checkpoint is not None and pretrained and is_hub_name(checkpoint) else None,
        tags=[tag.replace("_", "-") for tag in dict.fromkeys([config.model_type, config.modality, data.kind, task])],
        datasets=data.source if is_hub_name(data.source) else None,
        widget=widget_examples(folder, config, data, task) or None,
        model_name=PLACEHOLDER,
        eval_results=finetuned_results(data, results),
    )
    origin = f"`{checkpoint_name(checkpoint)}`" if checkpoint is not None and pretrained else "random weights"
    title = f"{method.name} fine-tuned on {source_name(data)}" + ("" if pretrained else ", without pre-training")
    introduction = (
        f"A model for {task.replace('_', ' ')} ({_labels_named(data)}), fine-tuned with labels from {origin} in the "
        f"implementation of hf_maskssl {hf_maskssl.__version__} for transformers. "
    )
    introduction += (
        f"{method.summary} ([{method.title}]({method.url}))." if pretrained else "Nothing was pre-trained for it."
    )
    _save(folder, header, title, introduction, sections)


def _labels_named(data: DataArguments) -> str:
    return ", ".join(f"`{name}`" for name in data.target_columns())


def _use_of_finetuned(folder: Path, config: PreTrainedConfig, recipe: FinetuningRecipe, task: str) -> str:
    """The code that loads a fine-tuned model; an adapter is put on its encoder by peft."""
    checkpoint = recipe.finetuning.checkpoint
    if not is_adapter(folder) or checkpoint is None:
        return _usage(loading_snippets(folder, config, PLACEHOLDER, recipe.data, task))
    snippet = adapter_snippet(folder, config, PLACEHOLDER, checkpoint_name(checkpoint), recipe.data, task)
    return (
        f"This is an adapter and a head, which belong on `{checkpoint_name(checkpoint)}` (`finetuning.merge_adapter` saves a "
        f"whole model). With hf_maskssl and peft:\n\n```python\n{snippet}\n```"
    )


def complete_card(text: str, repo_id: str) -> str:
    """The card with the repository's name in its snippets."""
    return text.replace(PLACEHOLDER, repo_id)


def _save(folder: Path, header: ModelCardData, title: str, introduction: str, sections: Sequence[Section]) -> None:
    body = [f"# {title}", introduction, *(f"## {name}\n\n{text}" for name, text in sections if text)]
    text = "\n\n".join(part.strip() for part in body)
    card = ModelCard(f"---\n{header.to_yaml()}\n---\n\n{text}\n")
    write_whole(folder / CARD, card.save)


def _header(
    config: PreTrainedConfig, kinds: list[str], datasets: Sequence[str] = (), results: Sequence[EvalResult] = ()
) -> ModelCardData:
    method = "masked-language-modeling" if fills_masks(config) else "masked-autoencoder"
    tags = ["self-supervised", method, "feature-extraction", config.model_type, *kinds]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="fill-mask" if fills_masks(config) else "feature-extraction",
        tags=[tag.replace("_", "-") for tag in tags],
        datasets=datasets[0] if len(datasets) == 1 else list(datasets) or None,
        model_name=PLACEHOLDER if results else None,
        eval_results=list(results) or None,
    )


def _introduction(method: Description, config: PreTrainedConfig) -> str:
    with torch.device("meta"):
        encoder = AutoModel.from_config(config).num_parameters()
        everything = AutoModelForPreTraining.from_config(config).num_parameters()
    other = [auto for auto in find_method(config).model_classes if auto not in (AutoModel, AutoModelForPreTraining)]
    heads = [f"`{auto.__name__}`" for auto in other if auto is not AutoModelForMaskedLM]
    return (
        f"{method.summary} ([{method.title}]({method.url})), in the implementation of hf_maskssl for transformers. "
        f"`AutoModel` gives the encoder ({encoder:,} parameters), `AutoModelForPreTraining` the whole pre-training "
        f"model ({everything:,} parameters)"
        + (", `AutoModelForMaskedLM` what fills masks" if fills_masks(config) else "")
        + (f"; {', '.join(heads)} put a new head on the encoder, to be fine-tuned." if heads else ".")
    )


def _usage(snippets: Sequence[Section]) -> str:
    return "\n\n".join(f"{title}:\n\n```python\n{code}\n```" for title, code in snippets)


# ---- data ---------------------------------------------------------------------------------------------------------


def _data_table(
    data: DataArguments,
    run: Path,
    counts: Mapping[str, int] | None = None,
    config: PreTrainedConfig | None = None,
    state: RunState | None = None,
) -> str:
    """A table of the recipe's data.

    `run` is the folder of the run, with its report of the data; `counts` are the rows of each split of a fine-tuning run, which
    learns labels; `state` is that of a pre-training run.
    """
    labels = " (not seen in pre-training; only by the probe)" if counts is None else ""
    if counts is None and state is not None:
        counts = state.row_counts
    left_out = {} if state is None else state.rows_left_out
    rows: list[tuple[str, object]] = [
        ("source", f"`{data.source}`"),
        ("configuration", data.config_name),
        ("revision", data.revision),
        ("kind", data.kind),
        ("training split", _training_split(data)),
        ("training rows", data.max_train_samples and f"at most {data.max_train_samples:,}"),
        ("rows", _counted(counts or {})),
        ("rows left out", _counted(left_out)),
        ("input column", find_kind(data.kind).input_words(data)),
        ("label column", data.label_column and f"{', '.join(data.target_columns())}{labels}"),
        *find_kind(data.kind).summary(data, config),
        ("missing values", _missing_values(run / REPORT_FILE)),
    ]
    return markdown_table([[name, str(value)] for name, value in rows if value is not None], ["data", ""])


def _counted(counts: Mapping[str, int]) -> str | None:
    return ", ".join(f"{count:,} {split}" for split, count in counts.items()) or None


def _missing_values(report: Path) -> str | None:
    """The share of each split's values that are missing; None where none is, or nobody counted."""
    if not report.is_file():
        return None
    splits = json.loads(report.read_text(encoding="utf-8"))["splits"]
    shares = {name: split.get("missing_share") for name, split in splits.items()}
    words = [f"{share_words(share)} of {name}" for name, share in shares.items() if share]
    return f"{', '.join(words)}; they are neither read nor predicted" if words else None


def _data_read(data: DataArguments, results: Mapping[str, Any]) -> DataArguments:
    """The data section with the modalities that a fine-tuning run has read, whoever chose them."""
    if results.get("inputs") is None:
        return data
    columns = data.input_column
    if isinstance(columns, str):
        columns = {"rgb": columns}
    named = columns if isinstance(columns, dict) else {}
    return dataclasses.replace(data, input_column={name: named.get(name, name) for name in results["inputs"]})


def _training_split(data: DataArguments) -> str:
    if data.split != "given":
        how = {"random": "at random", "scaffold": "by scaffold", "scaffold_random": "by scaffold, in random order"}
        return f"{data.split_fractions[0]:.0%} of {data.train_split}, cut {how[data.split]}"
    if not data.validation_fraction:
        return data.train_split
    return f"{data.train_split}, without the {data.validation_fraction:.0%} set aside for validation"


def _held_out(data: DataArguments) -> str:
    """The split the online probe is scored on; it takes the validation split before the test split."""
    if data.split != "given":
        _, validation, test = data.split_fractions
        return f"{validation or test:.0%} of the split `{data.train_split}`, set aside"
    if data.validation_fraction:
        return f"{data.validation_fraction:.0%} of the split `{data.train_split}`, set aside for validation"
    if data.validation_split is not None:
        return f"the validation split `{data.validation_split}`"
    return f"the test split `{data.test_split}`"


# ---- the run ------------------------------------------------------------------------------------------------------


def _training(folder: Path, recipe: PretrainingRecipe, state: RunState, config: PreTrainedConfig) -> str:
    args = recipe.training
    processes = state.layout.get("num_processes", 1)
    effective = args.batch_size * processes * args.gradient_accumulation_steps
    steps = f"{state.step:,}" if state.step == args.max_steps else f"{state.step:,} of {args.max_steps:,} planned"
    rows = [
        ("optimiser steps", steps),
        ("initial weights", None if args.init_from is None else f"those of `{checkpoint_name(args.init_from)}`"),
        ("trained jointly with", _jointly(state.trained_with)),
        (
            "samples per step",
            f"{effective:,} (batch {args.batch_size} x processes {processes} x accumulation "
            f"{args.gradient_accumulation_steps})",
        ),
        ("time", f"{state.seconds:,.0f} s, evaluation included"),
        ("device", _device(processes)),
        ("energy", _energy(state.energy_kwh)),
        ("mixed precision", AcceleratorState().mixed_precision if is_initialized() else args.mixed_precision),
        ("seed", str(args.seed)),
        ("versions", _versions()),
    ]
    terms = "masked pieces in a step" if word_tasks(config) else "terms in a step"
    parts = [markdown_table([[name, value] for name, value in rows if value], ["training", ""]), _losses(state, terms)]
    if len(state.history) > 1:
        draw_curves(state.history, folder / CURVES)
        parts.append(f"![Losses and other logged values over the steps of the run]({CURVES})")
    return "\n\n".join(part for part in parts if part)


def _jointly(others: Sequence[str]) -> str | None:
    """The parts of a model beside the one that the card is of."""
    if not others:
        return None
    return f"{', '.join(f'`{name}`' for name in others)}, which have the same layers; the recipe below is of this part alone"


def _initial_weights(state: RunState) -> str:
    """What the run took from another model, weight by weight; empty of a run that began with random ones."""
    if state.start is None:
        return ""
    report = StartReport.from_json(state.start)
    parts = {title: weights for title, weights in report.parts.items() if weights}
    if not parts:
        return ""
    text = f"The run began from `{checkpoint_name(report.source)}` (`{report.model_type}`): {report.counts()}."
    words = (("columns", report.columns), ("statistics", report.statistics))
    facts = [
        [f"{what}, {title}", ", ".join(f"`{name}`" for name in names)]
        for what, found in words
        for title, names in found.items()
        if names
    ]
    if report.frozen:
        facts.append(["not trained", counted(len(report.frozen), "weight")])
    groups = [[title, str(len(weights)), ", ".join(modules(weights))] for title, weights in parts.items()]
    rows = [
        [
            f"`{one.name}`",
            title,
            *("" if shape is None else sizes(shape) for shape in (one.former, one.shape)),
            one.note,
        ]
        for title, weights in parts.items()
        for one in weights
    ]
    every = markdown_table(rows, ["weight", "", "shape before", "shape", ""])
    tables = [markdown_table(groups, ["", "weights", "of"]), *([markdown_table(facts, ["", ""])] if facts else [])]
    return "\n\n".join([text, *tables, f"<details><summary>Every weight</summary>\n\n{every}\n\n</details>"])


def _versions() -> str:
    packages = {"hf_maskssl": hf_maskssl, "torch": torch, "transformers": transformers, "accelerate": accelerate}
    versions = {name: package.__version__ for name, package in packages.items()} | {
        "Python": platform.python_version()
    }
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _device(processes: int) -> str | None:
    """The devices of the run; None when there was no run in this process."""
    if not is_initialized():
        return None
    name = device_name(AcceleratorState().device)
    return name if processes == 1 else f"{processes} x {name}"


def _energy(kilowatt_hours: float | None) -> str | None:
    """The energy in words, for the table of a run."""
    if kilowatt_hours is None:
        return None
    return f"{kilowatt_hours:.3g} kWh, all of the machine, measured or estimated by codecarbon"


def _finetuning_cost(results: Mapping[str, Any]) -> str:
    """A table of what all runs took together."""
    runs = results["runs"]
    energies = [run.get("energy_kwh") for run in runs]
    rows = [
        ("runs", f"{len(runs)}, each a seed with a learning rate"),
        ("time", f"{sum(run['seconds'] for run in runs):,.0f} s in all, evaluation included"),
        ("device", ", ".join(dict.fromkeys(run["device"] for run in runs if "device" in run))),
        ("energy", _energy(None if None in energies else sum(energies))),
        ("versions", _versions()),
    ]
    return markdown_table([[name, value] for name, value in rows if value], ["training", ""])


def _losses(state: RunState, terms: str) -> str:
    """The last logged value of each part of the loss, and for balanced tasks the weight and the number of `terms`, averaged over
    the steps that had the task."""
    names = dict.fromkeys(
        name.partition("/")[2]
        for entry in state.history
        for name in entry
        if name.startswith(("train/", "validation/")) and name not in ("train/learning_rate", "train/grad_norm")
    )
    names = dict.fromkeys(
        name.removeprefix("weight/").removeprefix("count/") for name in sorted(names, key="loss".__ne__)
    )
    if not names:
        return ""
    sources = [("training", "train/"), ("validation", "validation/"), ("weight", "train/weight/")]
    columns = {
        title: [None if (value := state.latest(prefix + name)) is None else f"{value:.4g}" for name in names]
        for title, prefix in sources
    }
    columns[terms] = [_count(name, state.latest(f"train/count/{name}")) for name in names]
    columns = {title: cells for title, cells in columns.items() if any(cell is not None for cell in cells)}
    rows = zip(names, *columns.values(), strict=True)
    return markdown_table([list(row) for row in rows], ["last value of", *columns])


def _count(name: str, value: float | None) -> str | None:
    """The average number of a task's terms in a step; those of next sentence prediction are pairs."""
    if value is None:
        return None
    number = f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
    return f"{number} pairs" if name == NEXT_SENTENCE else number


def _probe(recipe: PretrainingRecipe, state: RunState) -> str:
    """First, best and last results of the online probe; nothing when none ran."""
    entries = [entry for entry in state.history if any(name.startswith("probe/") for name in entry)]
    if not entries:
        return ""
    names = list(dict.fromkeys(name for entry in entries for name in entry if name.startswith("probe/")))
    headline = next((name for name in names if name.startswith("probe/linear_")), names[0])
    best = max(entries, key=lambda entry: entry.get(headline, float("-inf")))
    chosen: dict[int, list[str]] = {}
    for title, entry in (("first", entries[0]), ("best", best), ("last", entries[-1])):
        chosen.setdefault(entries.index(entry), []).append(title)
    rows = [
        [", ".join(titles), int(entries[index]["step"]), *(_score(name, entries[index].get(name)) for name in names)]
        for index, titles in sorted(chosen.items())
    ]
    table = markdown_table(rows, ["", "step", *(_probe_title(name) for name in names)])
    limit = f"{recipe.probe.max_samples:,}"
    first = "the untrained encoder" if entries[0]["step"] == 0 else "a trained encoder already, not an untrained one"
    return (
        f"Linear and kNN probes of the frozen encoder during training, on unmasked inputs: fitted to at most {limit} "
        f"rows of the training split, scored on at most {limit} rows of {_held_out(recipe.data)}. Number of seeds: 1. "
        f"The best row is best in {_probe_title(headline).removesuffix(' (%)')}, chosen by these very scores, so it "
        f"flatters; the first is {first}.\n\n{table}"
    )


def _score(name: str, value: float | None) -> float | None:
    return value if value is None or name == "probe/rankme" else 100 * value


def _probe_title(name: str) -> str:
    if name == "probe/rankme":
        return "RankMe"
    kind, _, metric = name.removeprefix("probe/").partition("_")
    return f"{'kNN' if kind == 'knn' else kind} {metric.replace('_', ' ')} (%)"


def _finetuned_limitations(recipe: FinetuningRecipe, results: Mapping[str, Any]) -> str:
    lines = ["It knows inputs of the sizes, channels, units and vocabulary of its data, and no others."]
    if recipe.finetuning.labelled_samples is not None:
        lines.append(f"It was trained on {recipe.finetuning.labelled_samples:,} of the training rows.")
    if "test" not in results["scores"]:
        lines.append("It was not tested: its scores are those it was chosen by.")
    lines.append("Whatever its data is biased towards, it is too; nobody has looked into it here.")
    return "\n".join(f"- {line}" for line in lines)


def _limitations(recipe: PretrainingRecipe, state: RunState) -> str:
    lines = []
    if any(name.startswith("probe/") for entry in state.history for name in entry):
        lines.append(ONLY_ONLINE)
    else:
        lines.append(UNMEASURED)
    lines.append("It knows inputs of the sizes, channels, units and vocabulary of its data, and no others.")
    if state.step < recipe.training.max_steps:
        lines.append(f"The run was not complete: step {state.step:,} of {recipe.training.max_steps:,}.")
    lines.append("Whatever its data is biased towards, its features are too; nobody has looked into it here.")
    return "\n".join(f"- {line}" for line in lines)
