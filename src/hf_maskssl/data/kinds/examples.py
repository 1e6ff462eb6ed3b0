"""Python code by which a model card makes two samples of a kind of data."""

from dataclasses import dataclass

from transformers import PreTrainedConfig

from ...methods.optional_fields import takes_channels_last


@dataclass(frozen=True)
class Example:
    """Code that makes the encoder's input from two samples.

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


def arrays(name: str, sample: str, auto_class: str) -> Example:
    """Random samples that a feature extractor or image processor prepares: `sample` is the line that makes them."""
    inputs = f'**processor({name}, return_tensors="pt")'
    return Example(("import numpy as np",), {"processor": auto_class}, (sample,), inputs)


def joined(first: Example, second: Example) -> Example:
    """The samples of both examples, side by side."""
    return Example(
        (*first.imports, *second.imports),
        first.processors | second.processors,
        (*first.lines, *second.lines),
        f"{first.inputs}, {second.inputs}",
    )


def tensors(config: PreTrainedConfig, only_tokens: bool = False) -> Example:
    """Inputs of a model whose folder has no processor: the data already had the model's form."""
    lines, inputs = [], []
    if config.has_patches and not only_tokens:
        name = "input_values" if config.modality == "series" else "pixel_values"
        sizes = [config.num_channels, *config.signal_shape]
        if config.modality == "series" and takes_channels_last(config):
            sizes.reverse()
        shape = ", ".join(map(str, [2, *sizes]))
        lines.append(f"{name} = torch.randn({shape})  # prepared as in pre-training")
        inputs.append(f"{name}={name}")
    if config.has_tokens:
        lines.append(f"input_ids = torch.randint({config.vocab_size}, (2, {config.max_position_embeddings}))")
        inputs.append("input_ids=input_ids")
    return Example(("import torch",), {}, tuple(lines), ", ".join(inputs))
