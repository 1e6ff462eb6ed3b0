"""The record of a method, in which the package finds everything it needs; methods of other packages have one too.

A method of another package is found when it declares its record as an entry point,

    [project.entry-points."hf_maskssl.methods"]
    toy = "toy_package.method:METHOD"

or when it calls `register_method` itself. The module that holds the record imports from here and from its own models;
hf_maskssl imports it together with its own methods, after them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForPreTraining,
    FeatureExtractionMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from .entry_points import load_function, register_installed
from .meanings import Meaning
from .papers import SMA_BIBTEX

ENTRY_POINTS = "hf_maskssl.methods"


@dataclass(frozen=True)
class Description:
    """A method, or a variant of it, for presentation on a card.

    Attributes:
        name: Name of the method.
        summary: Beginning of a sentence that says what the model is.
        title: Authors and year of the paper.
        url: Address of the paper.
        repository: Address of the authors' code.
        bibtex: BibTeX of the paper, and of others it stands on.
    """

    name: str
    summary: str
    title: str
    url: str
    repository: str
    bibtex: str

    def with_guided_masks(self) -> "Description":
        """The method with SMA's masks in place of its own."""
        return replace(
            self,
            name=f"{self.name} with guided masking",
            summary="With masks that the attention of its own first layer makes, as in [SMA](https://arxiv.org/abs/2402.14789): "
            f"{self.summary[0].lower()}{self.summary[1:]}",
            bibtex=self.bibtex + SMA_BIBTEX,
        )

    @property
    def citation(self) -> str:
        """A Markdown block to copy."""
        return f"```bibtex\n{self.bibtex.strip()}\n```"


@dataclass(frozen=True)
class Method:
    """A method of pre-training.

    Attributes:
        config_class: Configuration class of the method; `model_type` is the method's name in recipes.
        model_classes: Model class of each Auto class; `AutoModel` (the encoder) and `AutoModelForPreTraining` (which
            returns `loss`) are needed, the others are heads.
        describe: Function that gives the description of a configuration for cards: name, paper and citation.
        example_inputs: Function that gives a small batch for an encoder of a configuration, by argument; `inputs.NAME` is
            the entry NAME of the argument `inputs`, and so on for entries of entries. Published folders are checked with it.
        processor_classes: Feature extractors and image processors that only this method has.
        converter: Name, `module:function`, of the function that converts the authors' checkpoint, None without one.
        weight_meaning: Function that gives, of a configuration and the name of a weight of the pre-training model, what its
            numbers stand for, None where its shape says all; `training.init_from` asks it.

    Raises:
        ValueError: A configuration without `model_type`, or no class for one of the two Auto classes that are needed.
    """

    config_class: type[PreTrainedConfig]
    model_classes: Mapping[type[_BaseAutoModelClass], type[PreTrainedModel]]
    # Any: functions take its own class of configuration.
    describe: Callable[[Any], Description]
    example_inputs: Callable[[Any], dict[str, torch.Tensor]]
    processor_classes: tuple[type[FeatureExtractionMixin] | type[BaseImageProcessor], ...] = ()
    converter: str | None = None
    weight_meaning: Callable[[Any, str], Meaning | None] | None = None

    def __post_init__(self) -> None:
        if not self.config_class.model_type:
            raise ValueError(f"{self.config_class.__name__}.model_type: expected a method's name, found ''.")
        for auto_class in (AutoModel, AutoModelForPreTraining):
            if auto_class not in self.model_classes:
                raise ValueError(f"method {self.model_type}: model_classes has no class for {auto_class.__name__}.")

    @property
    def model_type(self) -> str:
        return self.config_class.model_type

    def load_converter(self) -> Callable[..., Any] | None:
        """The function that `converter` names; its module is imported now, not with the package."""
        return None if self.converter is None else load_function(self.converter)


METHODS: dict[str, Method] = {}  # model type -> record


def register_method(method: Method) -> None:
    """Register a method with the Auto classes, recipes, cards, conversion and publishing.

    A second call changes nothing.

    Raises:
        ValueError: Another method has this model type.
    """
    known = METHODS.get(method.model_type)
    if known is not None and known.config_class is not method.config_class:
        raise ValueError(
            f"model_type '{method.model_type}' of {method.config_class.__module__} is the name of a method already, that "
            f"of {known.config_class.__module__}: give it another."
        )
    METHODS[method.model_type] = method
    AutoConfig.register(method.model_type, method.config_class, exist_ok=True)
    method.config_class.register_for_auto_class()
    for auto_class, model_class in method.model_classes.items():
        auto_class.register(method.config_class, model_class, exist_ok=True)
        model_class.register_for_auto_class(auto_class.__name__)
    for processor_class in method.processor_classes:
        register_processor(processor_class)


def register_processor(processor_class: type[FeatureExtractionMixin] | type[BaseImageProcessor]) -> None:
    """Make `AutoFeatureExtractor` or `AutoImageProcessor` know a processor."""
    if issubclass(processor_class, BaseImageProcessor):
        AutoImageProcessor.register(processor_class, slow_image_processor_class=processor_class, exist_ok=True)
    else:
        AutoFeatureExtractor.register(processor_class, processor_class, exist_ok=True)
    processor_class.register_for_auto_class()


def register_installed_methods() -> None:
    """Register the methods of other installed packages; one that cannot be loaded is left out with a warning."""
    register_installed(ENTRY_POINTS, Method, register_method, "method")


def find_method(config: PreTrainedConfig) -> Method:
    """The record of a configuration's method.

    Raises:
        ValueError: No method has this model type.
    """
    if config.model_type not in METHODS:
        raise ValueError(
            f"model_type '{config.model_type}': expected one of {sorted(METHODS)}. A method of another package is known "
            "after hf_maskssl.register_method, or by its entry point (hf_maskssl/methods/record.py)."
        )
    return METHODS[config.model_type]
