"""The Python of model cards: loading a model and its processor, with the package and without it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..data.arguments import DENSE_TASKS, DataArguments
from ..data.processors import ImageTextProcessor, load_processor
from ..data.texts import appended_separator
from ..models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from ..models.image_processing_array import ArrayImageProcessor
from ..models.image_processing_multimae import MultiMAEImageProcessor

AUTO_CLASSES = {
    "classification": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "semantic_segmentation": "AutoModelForSemanticSegmentation",
    "depth_estimation": "AutoModelForDepthEstimation",
}
WITH_PACKAGE = "With the package hf_maskssl installed"
WITHOUT_PACKAGE = "Without it, by the code in the repository (read it first: it will run on your machine)"


@dataclass(frozen=True)
class Example:
    """How two samples become the encoder's input.

    Attributes:
        imports: Lines that import what `lines` use, besides transformers.
        processors: Variable -> Auto class.
        lines: Lines that make the samples.
        inputs: Expression of keyword arguments, such as `**processor(samples, return_tensors="pt")`.
    """

    imports: tuple[str, ...]
    processors: dict[str, str]
    lines: tuple[str, ...]
    inputs: str


def loading_snippets(
    folder: Path, config: PreTrainedConfig, repository: str, data: DataArguments | None = None, task: str | None = None
) -> list[tuple[str, str]]:
    """(title, code) of both ways of loading the model and applying it to two samples.

    Args:
        folder: Its processor is looked at.
        config: Of the model.
        repository: What `from_pretrained` is given.
        data: Of the recipe, for an example text; None where it is unknown.
        task: Of a fine-tuned model, which gives logits; None for an encoder, which gives features.
    """
    example = _example(load_processor(folder), config, data, task)
    return [
        (WITH_PACKAGE, _code(example, config, repository, task, remote=False)),
        (WITHOUT_PACKAGE, _code(example, config, repository, task, remote=True)),
    ]


def _code(example: Example, config: Any, repository: str, task: str | None, remote: bool) -> str:
    trust = ", trust_remote_code=True" if remote else ""
    name, auto_class, last_line = _model_lines(example, config, task)
    auto_classes = sorted({auto_class, *example.processors.values()})
    return "\n".join(
        [
            *(() if remote else ("import hf_maskssl  # registers its models and processors",)),
            *example.imports,
            f"from transformers import {', '.join(auto_classes)}",
            "",
            *(f'{name} = {kind}.from_pretrained("{repository}"{trust})' for name, kind in example.processors.items()),
            f'{name} = {auto_class}.from_pretrained("{repository}"{trust})',
            *example.lines,
            last_line,
        ]
    )


def _model_lines(example: Example, config: Any, task: str | None) -> tuple[str, str, str]:
    """Variable of the model, its Auto class, and the line that applies it."""
    if task is None:
        line = f"features = encoder({example.inputs}).pooler_output  # (2, {config.hidden_size})"
        return "encoder", "AutoModel", line
    if task == "depth_estimation":
        line = f"depth = model({example.inputs}).predicted_depth  # (2, height, width), in the labels' unit"
        return "model", AUTO_CLASSES[task], line
    outputs = f"model({example.inputs}).logits"
    if task == "semantic_segmentation":
        line = f"classes = {outputs}.argmax(1)  # of logits (2, {config.num_labels}, rows, columns)"
        return "model", AUTO_CLASSES[task], line
    if task == "regression":
        return "model", AUTO_CLASSES[task], f"values = {outputs}[:, 0]  # (2,), in the labels' unit"
    shape = f"2, tokens, {config.num_labels}" if task == "token_classification" else f"2, {config.num_labels}"
    line = f"classes = {outputs}.argmax(-1)  # of logits ({shape}); model.config.id2label names them"
    is_multimodal = config.modality == "multimodal"
    return "model", "AutoModelForImageClassification" if is_multimodal else AUTO_CLASSES[task], line


def _example(processor: Any, config: Any, data: DataArguments | None, task: str | None) -> Example:
    if processor is None:
        return _aligned_tensors(config, task) if config.modality == "multimodal" else _tensors(config)
    if isinstance(processor, PreTrainedTokenizerBase):
        return _texts(processor, config, data)
    if isinstance(processor, ImageTextProcessor):
        return _joined(_pictures(processor.image_processor), _texts(processor.tokenizer, config, data))
    if isinstance(processor, ArrayImageProcessor):
        # Images whose texts were ids already leave a folder without tokenizer.
        pictures = _pictures(processor)
        return _joined(pictures, _tensors(config, only_tokens=True)) if config.has_tokens else pictures
    if isinstance(processor, MultiMAEImageProcessor):
        return _aligned_pictures(processor, config, task)
    if isinstance(processor, SpectrogramFeatureExtractor):
        sample = f"waveforms = np.random.uniform(-1, 1, (2, {processor.num_samples}))"
        sample += f"  # mono, {processor.sampling_rate} samples per second"
        return _arrays("waveforms", sample, "AutoFeatureExtractor")
    channels, length = processor.num_channels, processor.series_length
    if processor.statistics_axis == "feature":
        return _arrays("rows", f"rows = np.random.rand(2, {length})  # {length} features each", "AutoFeatureExtractor")
    sample = f"series = np.random.rand(2, {channels}, {length})  # channels x time steps"
    return _arrays("series", sample, "AutoFeatureExtractor")


def _joined(first: Example, second: Example) -> Example:
    return Example(
        (*first.imports, *second.imports),
        first.processors | second.processors,
        (*first.lines, *second.lines),
        f"{first.inputs}, {second.inputs}",
    )


def _arrays(name: str, sample: str, auto_class: str) -> Example:
    inputs = f'**processor({name}, return_tensors="pt")'
    return Example(("import numpy as np",), {"processor": auto_class}, (sample,), inputs)


def _pictures(processor: ArrayImageProcessor) -> Example:
    shape = ", ".join(map(str, [2, processor.num_channels, *processor.image_size]))
    kinds = "PIL images or arrays" if processor.num_channels in (1, 3, 4) else "arrays"
    return _arrays("images", f"images = np.random.rand({shape})  # {kinds} of any size", "AutoImageProcessor")


def _modalities_read(config: Any, task: str | None) -> list[Any]:
    """The input modalities, of a fine-tuned model those it has learnt to read: one of them may hold its labels."""
    names = None if task is None else config.head_inputs()
    return [modality for modality in config.inputs() if names is None or modality.name in names]


def _left_out(task: str | None, names: Iterable[str]) -> str:
    """What a comment says of modalities that are not given."""
    if task in DENSE_TASKS or len(list(names)) < 2:  # a dense head joins the tokens of all
        return ""
    return "; modalities may be left out"


def _aligned_pictures(processor: MultiMAEImageProcessor, config: Any, task: str | None) -> Example:
    """Pictures of every modality that is read, or rgb alone, which needs no names."""
    pictures, size = processor.pictures(), tuple(processor.image_size)
    inputs = [modality for modality in _modalities_read(config, task) if modality.name in pictures]
    samples = {modality.name: _samples(modality, (2, *modality.size(size))) for modality in inputs}
    if list(samples) == ["rgb"]:
        sample = f"images = {samples['rgb']}  # PIL images or arrays of any size"
        return _arrays("images", sample, "AutoImageProcessor")
    note = _left_out(task, samples)
    note += ", and rgb alone needs no name" if note and "rgb" in samples else ""
    lines = (
        f"images = {{  # PIL images or arrays of any size{note}",
        *(f'    "{name}": {sample},' for name, sample in samples.items()),
        "}",
    )
    return Example(
        ("import numpy as np",),
        {"processor": "AutoImageProcessor"},
        lines,
        '**processor(images, return_tensors="pt")',
    )


def _samples(modality: Any, shape: tuple[int, ...]) -> str:
    """NumPy code of random pictures, byte-valued where they have three channels."""
    if modality.is_categorical:
        return f"list(np.random.randint({modality.num_classes}, size={shape}, dtype=np.uint8))"
    shape = (shape[0], modality.num_channels, *shape[1:])
    if modality.num_channels == 3:
        return f"np.random.randint(256, size={shape}, dtype=np.uint8)"
    return f"np.random.rand{shape}"


def _aligned_tensors(config: Any, task: str | None) -> Example:
    """Inputs of a model whose folder has no processor."""
    inputs = _modalities_read(config, task)
    lines = [f"inputs = {{  # prepared as in pre-training{_left_out(task, [modality.name for modality in inputs])}"]
    for modality in inputs:
        size = modality.size(tuple(config.image_size))
        code = f"torch.randn{(2, modality.num_channels, *size)}"
        if modality.is_categorical:
            code = f"torch.randint({modality.num_classes}, {(2, *size)})"
        lines.append(f'    "{modality.name}": {code},')
    return Example(("import torch",), {}, (*lines, "}"), "inputs=inputs")


def _texts(tokenizer: Any, config: Any, data: DataArguments | None) -> Example:
    longest = config.max_position_embeddings
    alphabet = data.alphabet if data is not None else None
    text = (alphabet or "two samples of text")[: min(longest, 16)]
    # As in pre-training: the model has a class token of its own or none, and knows neither segments nor other special
    # tokens, save a separator that the tokenizer only appends.
    special = "" if appended_separator(tokenizer) is not None else "add_special_tokens=False, "
    options = f"{special}truncation=True, max_length={longest}"
    if "token_type_ids" in tokenizer.model_input_names:
        options += ", return_token_type_ids=False"
    lines = (
        f"texts = [{text!r}, {text!r}]",
        f'tokens = tokenizer(texts, {options}, return_tensors="pt")',
    )
    return Example((), {"tokenizer": "AutoTokenizer"}, lines, "**tokens")


def _tensors(config: Any, only_tokens: bool = False) -> Example:
    """Inputs of a model whose folder has no processor: the data already had the model's form."""
    lines, inputs = [], []
    if config.has_patches and not only_tokens:
        name = "input_values" if config.modality == "series" else "pixel_values"
        sizes = [config.num_channels, *config.signal_shape]
        if config.modality == "series" and getattr(config, "channels_last", False):
            sizes.reverse()
        shape = ", ".join(map(str, [2, *sizes]))
        lines.append(f"{name} = torch.randn({shape})  # prepared as in pre-training")
        inputs.append(f"{name}={name}")
    if config.has_tokens:
        lines.append(f"input_ids = torch.randint({config.vocab_size}, (2, {config.max_position_embeddings}))")
        inputs.append("input_ids=input_ids")
    return Example(("import torch",), {}, tuple(lines), ", ".join(inputs))
