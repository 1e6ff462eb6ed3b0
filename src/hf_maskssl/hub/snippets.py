"""The Python of model cards: loading a model and its processor, with the package and without it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoModelForMaskedLM, PreTrainedConfig, PreTrainedTokenizerBase

from ..data.arguments import DENSE_TASKS, DataArguments
from ..data.processors import ImageTextProcessor, load_processor
from ..data.text.arguments import TextArguments
from ..data.text.texts import appended_separator
from ..methods import METHODS
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
FILL_MASK = "Filling in a masked word"
REGISTERS = "import hf_maskssl  # registers its models and processors"


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
    """(title, code) of both ways of loading the model and applying it to two samples, and of filling masks where it can.

    Args:
        folder: Its processor is looked at.
        config: Of the model.
        repository: What `from_pretrained` is given.
        data: Of the recipe, for an example text; None where it is unknown.
        task: Of a fine-tuned model, which gives logits; None for an encoder, which gives features.
    """
    processor: Any = load_processor(folder)
    example = _example(processor, config, data, task)
    snippets = [
        (WITH_PACKAGE, _code(example, config, repository, task, remote=False)),
        (WITHOUT_PACKAGE, _code(example, config, repository, task, remote=True)),
    ]
    if task is None and fills_masks(config) and getattr(processor, "mask_token", None) is not None:
        snippets.append((FILL_MASK, _fill_mask(repository, processor.mask_token)))
    return snippets


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
    outputs = f"model({example.inputs}).logits"
    if task == "semantic_segmentation":
        line = f"classes = {outputs}.argmax(1)  # of logits (2, {config.num_labels}, rows, columns)"
        return "model", AUTO_CLASSES[task], (line,)
    if task == "regression":
        return "model", AUTO_CLASSES[task], (f"values = {outputs}[:, 0]  # (2,), in the labels' unit",)
    shape = f"2, tokens, {config.num_labels}" if task == "token_classification" else f"2, {config.num_labels}"
    line = f"classes = {outputs}.argmax(-1)  # of logits ({shape}); model.config.id2label names them"
    is_multimodal = config.modality == "multimodal"
    return "model", "AutoModelForImageClassification" if is_multimodal else AUTO_CLASSES[task], (line,)


def _features(example: Example, config: PreTrainedConfig) -> tuple[str, ...]:
    """One vector for each sample: what the encoder pools, if pre-training has trained that."""
    outputs, shape = f"encoder({example.inputs})", f"(2, {config.hidden_size})"
    if getattr(config, "next_sentence_prediction", None) != "none":
        return (f"features = {outputs}.pooler_output  # {shape}",)
    if not example.processors:
        return (f"features = {outputs}.last_hidden_state.mean(1)  # {shape}; the pooler was not trained",)
    return (
        'is_real = tokens["attention_mask"].unsqueeze(-1)  # the pooler was not trained: the mean over what is no padding',
        f"features = ({outputs}.last_hidden_state * is_real).sum(1) / is_real.sum(1)  # {shape}",
    )


def _example(processor: Any, config: PreTrainedConfig, data: DataArguments | None, task: str | None) -> Example:
    if processor is None:
        return _aligned_tensors(config, task) if config.modality == "multimodal" else _tensors(config)
    if isinstance(processor, PreTrainedTokenizerBase):
        return _texts(processor, config, data)
    if isinstance(processor, ImageTextProcessor):
        return _joined(_pictures(processor.image_processor), _texts(processor.tokenizer, config, data))
    if isinstance(processor, ArrayImageProcessor):
        # Images whose texts were ids already leave a folder without tokenizer.
        pictures = _pictures(processor)
        return (
            _joined(pictures, _tensors(config, only_tokens=True)) if config.modality == "vision_language" else pictures
        )
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


def _modalities_read(config: PreTrainedConfig, task: str | None) -> list[Any]:
    """The input modalities, of a fine-tuned model those it has learnt to read: one of them may hold its labels."""
    names = None if task is None else config.head_inputs()
    return [modality for modality in config.inputs() if names is None or modality.name in names]


def _left_out(task: str | None, names: Iterable[str]) -> str:
    """What a comment says of modalities that are not given."""
    if task in DENSE_TASKS or len(list(names)) < 2:  # a dense head joins the tokens of all
        return ""
    return "; modalities may be left out"


def _aligned_pictures(processor: MultiMAEImageProcessor, config: PreTrainedConfig, task: str | None) -> Example:
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


def _aligned_tensors(config: PreTrainedConfig, task: str | None) -> Example:
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


def _texts(tokenizer: Any, config: PreTrainedConfig, data: DataArguments | None) -> Example:
    """Texts, or pairs of them where the data has pairs, tokenised as in training."""
    longest = config.max_position_embeddings
    is_framed = getattr(config, "wants_special_tokens", False)
    is_pair = data is not None and len(data.input_columns()) > 1
    alphabet = data.alphabet if isinstance(data, TextArguments) else None
    text = (alphabet or "two samples of text")[: None if is_framed else min(longest, 16)]
    # Other models have a class token of their own or none, and know neither segments nor special tokens, save what stands
    # between the texts of a pair and a separator that the tokenizer only appends.
    is_plain = not is_framed and not is_pair and appended_separator(tokenizer) is None
    options = ("add_special_tokens=False, " if is_plain else "") + f"truncation=True, max_length={longest}"
    if is_framed:
        options = f"padding=True, {options}"
    elif "token_type_ids" in tokenizer.model_input_names:
        options += ", return_token_type_ids=False"
    names = ["texts", "seconds"] if is_pair else ["texts"]
    lines = (
        *(f"{name} = [{text!r}, {text!r}]" for name in names),
        f'tokens = tokenizer({", ".join(names)}, {options}, return_tensors="pt")',
    )
    return Example((), {"tokenizer": "AutoTokenizer"}, lines, "**tokens")


def _tensors(config: PreTrainedConfig, only_tokens: bool = False) -> Example:
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
