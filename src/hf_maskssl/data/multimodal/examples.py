"""Python code by which a model card makes two samples of several aligned pictures."""

from collections.abc import Iterable

from transformers import PreTrainedConfig

from ...models.configuration_multimae import Modality
from ...models.image_processing_multimae import MultiMAEImageProcessor
from ..arguments import DENSE_TASKS
from ..kinds.examples import Example, arrays


def _modalities_read(config: PreTrainedConfig, task: str | None) -> list[Modality]:
    """The input modalities; for a fine-tuned model those it has learnt to read, because one of the rest may hold its labels."""
    names = None if task is None else config.head_inputs()
    return [modality for modality in config.inputs() if names is None or modality.name in names]


def _left_out(task: str | None, names: Iterable[str]) -> str:
    """A comment on modalities that are not given."""
    if task in DENSE_TASKS or len(list(names)) < 2:  # a dense head joins the tokens of all
        return ""
    return "; modalities may be left out"


def aligned_pictures(processor: MultiMAEImageProcessor, config: PreTrainedConfig, task: str | None) -> Example:
    """Pictures of every modality that is read, or rgb alone, which needs no names."""
    pictures, (height, width) = processor.pictures(), processor.image_size
    inputs = [modality for modality in _modalities_read(config, task) if modality.name in pictures]
    samples = {modality.name: _samples(modality, (2, *modality.size((height, width)))) for modality in inputs}
    if list(samples) == ["rgb"]:
        sample = f"images = {samples['rgb']}  # PIL images or arrays of any size"
        return arrays("images", sample, "AutoImageProcessor")
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


def _samples(modality: Modality, shape: tuple[int, ...]) -> str:
    """NumPy code of random pictures, byte-valued where they have three channels."""
    if modality.is_categorical:
        return f"list(np.random.randint({modality.num_classes}, size={shape}, dtype=np.uint8))"
    shape = (shape[0], modality.num_channels, *shape[1:])
    if modality.num_channels == 3:
        return f"np.random.randint(256, size={shape}, dtype=np.uint8)"
    return f"np.random.rand{shape}"


def aligned_tensors(config: PreTrainedConfig, task: str | None) -> Example:
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
