"""One test class for every model class: transformers' common tests, told of its configuration, inputs and lengths."""

import math
import unittest
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from by_design import reason_to_skip
from mixins import load_mixins
from transformers import PreTrainedConfig, PreTrainedModel

from hf_maskssl.methods import Method

Inputs = dict[str, torch.Tensor]
BATCH_SIZE = 3
ModelTesterMixin, ConfigTester = load_mixins()


@dataclass
class Case:
    """A method on one kind of data.

    Attributes:
        name: Of the data, such as "Tokens".
        method: Its record.
        fields: Of the tiny configuration.
        inputs: Makes a batch of so many samples.
        num_tokens: Tokens of a sample.
        encoded: Tokens that the encoder works on, by the model's class name; "" for classes that are not named.
        keys: As `encoded`, tokens that the first layer attends to, where they are others.
        draws: By the model's class name, what else makes its output a function of its inputs.
        labels: As `draws`, beside what the mixins give as labels.
        more_inputs: Names of inputs that go with the main one.
        classes: Names of the model classes that are tested; none means all of the method.
    """

    name: str
    method: Method
    fields: dict[str, Any]
    inputs: Callable[[int], Inputs]
    num_tokens: int
    encoded: Mapping[str, int]
    keys: Mapping[str, int] = field(default_factory=dict)
    draws: Mapping[str, Callable[[int], Inputs]] = field(default_factory=dict)
    labels: Mapping[str, Callable[[int], Inputs]] = field(default_factory=dict)
    more_inputs: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


class ModelTester:
    """What the mixins ask about a model."""

    batch_size = BATCH_SIZE
    num_choices = 4
    num_labels = 2

    def __init__(self, case: Case, model_class: type[PreTrainedModel]) -> None:
        self.case = case
        config = self.get_config()
        self.hidden_size = config.hidden_size
        self.num_hidden_layers = config.num_hidden_layers
        self.num_attention_heads = config.num_attention_heads
        self.seq_length = case.num_tokens
        name = model_class.__name__
        self.encoder_seq_length = case.encoded.get(name, case.encoded[""])
        self.key_length = case.keys.get(name, case.keys.get("", self.encoder_seq_length))
        self.is_training = "For" in name  # an encoder has no loss
        # The mixins draw noise for so many patches.
        self.image_size, self.patch_size = math.isqrt(case.num_tokens), 1

    def get_config(self) -> PreTrainedConfig:
        return self.case.method.config_class(**self.case.fields)

    def prepare_config_and_inputs_for_common(self) -> tuple[PreTrainedConfig, Inputs]:
        return self.get_config(), self.case.inputs(self.batch_size)


class Conformance(ModelTesterMixin):  # type: ignore[misc]
    """What all adapters share; `case` and `model_class` are the adapter's own."""

    case: Case
    model_class: type[PreTrainedModel]

    def setUp(self) -> None:
        reason = reason_to_skip(self.model_class, self.case.name, self._testMethodName)
        if reason is not None:
            self.skipTest(f"by design: {reason}")
        torch.manual_seed(0)
        self.all_model_classes = (self.model_class,)
        draws = self.case.draws.get(self.model_class.__name__)
        self.draws = {} if draws is None else draws(BATCH_SIZE)
        self.additional_model_inputs = [*self.case.more_inputs, *self.draws]
        self.model_tester = _WithDraws(self.case, self.model_class, self.draws)
        self.config_tester = ConfigTester(
            self, config_class=self.case.method.config_class, has_text_modality=False, **self.case.fields
        )

    def _prepare_for_class(self, inputs_dict: Inputs, model_class: Any, return_labels: bool = False) -> Inputs:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        rows = len(inputs[next(iter(self.case.inputs(1)))])  # the main input is another one in another modality
        if self.draws and rows > BATCH_SIZE:  # the mixins fill a batch up with any numbers
            inputs |= self.case.draws[model_class.__name__](rows)
        labels = self.case.labels.get(model_class.__name__)
        return inputs | (labels(BATCH_SIZE) if return_labels and labels is not None else {})

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


class _WithDraws(ModelTester):
    def __init__(self, case: Case, model_class: type[PreTrainedModel], draws: Inputs) -> None:
        super().__init__(case, model_class)
        self.draws = draws

    def prepare_config_and_inputs_for_common(self) -> tuple[PreTrainedConfig, Inputs]:
        config, inputs = super().prepare_config_and_inputs_for_common()
        return config, inputs | {name: draw.clone() for name, draw in self.draws.items()}


def adapters(*cases: Case) -> dict[str, type]:
    """A test class for every model class of the cases' methods, by its name."""
    found = {}
    for case in cases:
        for model_class in dict.fromkeys(case.method.model_classes.values()):
            if case.classes and model_class.__name__ not in case.classes:
                continue
            name = f"Test{model_class.__name__}{case.name}"
            found[name] = type(
                name,
                (Conformance, unittest.TestCase),
                {"case": case, "model_class": model_class, "__module__": __name__},
            )
    return found
