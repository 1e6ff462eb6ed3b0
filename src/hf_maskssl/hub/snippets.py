"""The Python of model cards: loading a model and its processor, with the package and without it."""

from pathlib import Path

from transformers import AutoModelForMaskedLM, PreTrainedConfig, PreTrainedTokenizerBase

from ..data.arguments import DataArguments
from ..data.kinds import KINDS, find_kind
from ..data.kinds.examples import Example
from ..data.kinds.tokens import example_texts
from ..data.processors import Processor, load_processor, split_processor
from ..files import JsonObject
from ..methods import METHODS
from ..methods.optional_fields import trains_pooler
from ..models.feature_extraction_series import SeriesFeatureExtractor

AUTO_CLASSES = {
    "classification": "AutoModelForSequenceClassification",
    "multi_label_classification": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "semantic_segmentation": "AutoModelForSemanticSegmentation",
    "depth_estimation": "AutoModelForDepthEstimation",
    "dense_regression": "AutoModelForImageToImage",
}
WITH_PACKAGE = "With the package hf_maskssl installed"
WITHOUT_PACKAGE = "Without it, by the code in the repository (read it first: it will run on your machine)"
FILL_MASK = "Filling in a masked word"
REGISTERS = "import hf_maskssl  # registers its models and processors"


def loading_snippets(
    folder: Path, config: PreTrainedConfig, repository: str, data: DataArguments | None = None, task: str | None = None
) -> list[tuple[str, str]]:
    """(title, code) of both ways of loading the model and applying it to two samples, and of filling masks where it can.

    Args:
        folder: Folder of the model's processor.
        config: Configuration of the model.
        repository: Argument of `from_pretrained`.
        data: Data section of the recipe, for an example text; None where it is unknown.
        task: Task of a fine-tuned model, which gives logits; None for an encoder, which gives features.
    """
    if data is not None and (parts := find_kind(data.kind).part_data(data, config)):
        return [snippet for name, part in parts.items() for snippet in _of_part(folder, name, *part, repository)]
    processor = load_processor(folder)
    example = _example(processor, config, data, task)
    snippets = [
        (WITH_PACKAGE, _code(example, config, repository, task, remote=False)),
        (WITHOUT_PACKAGE, _code(example, config, repository, task, remote=True)),
    ]
    if (
        task is None
        and fills_masks(config)
        and isinstance(processor, PreTrainedTokenizerBase)
        and processor.mask_token
    ):
        snippets.append((FILL_MASK, _fill_mask(repository, processor.mask_token)))
    return snippets


def _of_part(
    folder: Path, name: str, data: DataArguments, config: PreTrainedConfig, repository: str
) -> list[tuple[str, str]]:
    """The snippets of one part of a model, which lies in a folder of its name below the model's."""
    place = f'from_pretrained("{repository}"'
    return [
        (f"{name.capitalize()}: {title[0].lower()}{title[1:]}", code.replace(place, f'{place}, subfolder="{name}"'))
        for title, code in loading_snippets(folder / name, config, repository, data)
    ]


def widget_examples(
    folder: Path, config: PreTrainedConfig, data: DataArguments, task: str | None = None
) -> list[JsonObject]:
    """Inputs for the widget on the model's page, where the Hub has one for the task and knows how to fill it.

    Args:
        folder: Folder of the model's processor.
        config: Configuration of the model.
        data: Data section of the recipe.
        task: Task of a fine-tuned model; None for an encoder.
    """
    numeric, tokenizer = split_processor(load_processor(folder))
    if task is None and fills_masks(config) and tokenizer is not None and tokenizer.mask_token:
        return [{"text": f"two {tokenizer.mask_token} of text"}]
    if numeric is None and tokenizer is not None and task != "regression" and len(data.input_columns()) == 1:
        return [{"text": example_texts(tokenizer, config, data)[0]}]
    if task is not None and isinstance(numeric, SeriesFeatureExtractor) and numeric.feature_names and numeric.mean:
        return [{"structuredData": {name: [cell] for name, cell in numeric.typical_row().items()}}]
    return []


def adapter_snippet(
    folder: Path, config: PreTrainedConfig, repository: str, checkpoint: str, data: DataArguments, task: str
) -> str:
    """Code that puts an adapter with its head on its encoder and applies it to two samples.

    Args:
        folder: Folder of the adapter and its processor.
        config: Configuration of the model.
        repository: Place of the adapter.
        checkpoint: Place of the encoder.
        data: Data section of the recipe.
        task: Task of the head.
    """
    example = _example(load_processor(folder), config, data, task)
    name, auto_class, last_lines = _model_lines(example, config, task)
    auto_classes = sorted({"AutoConfig", auto_class, *example.processors.values()})
    return "\n".join(
        [
            REGISTERS,
            *example.imports,
            "from peft import PeftModel",
            f"from transformers import {', '.join(auto_classes)}",
            "",
            *(f'{each} = {kind}.from_pretrained("{repository}")' for each, kind in example.processors.items()),
            f'config = AutoConfig.from_pretrained("{repository}")',
            f'{name} = {auto_class}.from_pretrained("{checkpoint}", config=config)',
            f'{name} = PeftModel.from_pretrained({name}, "{repository}")',
            *example.lines,
            *last_lines,
        ]
    )


def fills_masks(config: PreTrainedConfig) -> bool:
    """Whether a pre-training checkpoint of this configuration opens as a masked language model."""
    return config.model_type in METHODS and AutoModelForMaskedLM in METHODS[config.model_type].model_classes


def _fill_mask(repository: str, mask_token: str) -> str:
    return "\n".join(
        [
            REGISTERS,
            "from transformers import pipeline",
            "",
            f'fill_mask = pipeline("fill-mask", "{repository}")  # without the package: trust_remote_code=True',
            f'candidates = fill_mask("two {mask_token} of text")',
        ]
    )


def _code(example: Example, config: PreTrainedConfig, repository: str, task: str | None, remote: bool) -> str:
    trust = ", trust_remote_code=True" if remote else ""
    name, auto_class, last_lines = _model_lines(example, config, task)
    auto_classes = sorted({auto_class, *example.processors.values()})
    return "\n".join(
        [
            *(() if remote else (REGISTERS,)),
            *example.imports,
            f"from transformers import {', '.join(auto_classes)}",
            "",
            *(f'{name} = {kind}.from_pretrained("{repository}"{trust})' for name, kind in example.processors.items()),
            f'{name} = {auto_class}.from_pretrained("{repository}"{trust})',
            *example.lines,
            *last_lines,
        ]
    )


def _model_lines(example: Example, config: PreTrainedConfig, task: str | None) -> tuple[str, str, tuple[str, ...]]:
    """Variable of the model, its Auto class, and the lines that apply it."""
    if task is None:
        return "encoder", "AutoModel", _features(example, config)
    if task == "depth_estimation":
        line = f"depth = model({example.inputs}).predicted_depth  # (2, height, width), in the labels' unit"
        return "model", AUTO_CLASSES[task], (line,)
    if task == "dense_regression":
        line = f"values = model({example.inputs}).reconstruction  # (2, {config.num_labels}, height, width), in the labels' unit"
        return "model", AUTO_CLASSES[task], (line,)
    outputs = f"model({example.inputs}).logits"
    if task == "semantic_segmentation":
        line = f"classes = {outputs}.argmax(1)  # of logits (2, {config.num_labels}, rows, columns)"
        return "model", AUTO_CLASSES[task], (line,)
    is_multimodal = config.modality == "multimodal"
    auto_class = "AutoModelForImageClassification" if is_multimodal else AUTO_CLASSES[task]
    if task == "multi_label_classification":
        line = f"probabilities = {outputs}.sigmoid()  # (2, {config.num_labels}), a task each; model.config.id2label names them"
        return "model", auto_class, (line,)
    if task == "regression" and (config.num_labels or 1) > 1:
        line = (
            f"values = {outputs}  # (2, {config.num_labels}), in the labels' units; model.config.id2label names them"
        )
        return "model", auto_class, (line,)
    if task == "regression":
        return "model", auto_class, (f"values = {outputs}[:, 0]  # (2,), in the labels' unit",)
    shape = f"2, tokens, {config.num_labels}" if task == "token_classification" else f"2, {config.num_labels}"
    line = f"classes = {outputs}.argmax(-1)  # of logits ({shape}); model.config.id2label names them"
    return "model", auto_class, (line,)


def _features(example: Example, config: PreTrainedConfig) -> tuple[str, ...]:
    """Lines that compute one vector for each sample: the pooler's output, if pre-training has trained the pooler."""
    outputs, shape = f"encoder({example.inputs})", f"(2, {config.hidden_size})"
    if trains_pooler(config):
        return (f"features = {outputs}.pooler_output  # {shape}",)
    if not example.processors:
        return (f"features = {outputs}.last_hidden_state.mean(1)  # {shape}; the pooler was not trained",)
    return (
        'is_real = tokens["attention_mask"].unsqueeze(-1)  # the pooler was not trained: the mean over what is no padding',
        f"features = ({outputs}.last_hidden_state * is_real).sum(1) / is_real.sum(1)  # {shape}",
    )


def _example(processor: Processor, config: PreTrainedConfig, data: DataArguments | None, task: str | None) -> Example:
    """The example of the data's kind or, where that is unknown or lacks the processor, of another with the model's modality.

    Raises:
        ValueError: No kind knows the processor.
    """
    known = None if data is None else find_kind(data.kind)
    for kind in (known, *KINDS.values()):
        if kind is not None and (kind is known or kind.modality == config.modality):
            example = kind.example(processor, config, data if kind is known else None, task)
            if example is not None:
                return example
    raise ValueError(f"no kind of data of modality {config.modality!r} says how to use a {type(processor).__name__}")
