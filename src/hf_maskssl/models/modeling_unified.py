"""One encoder for several kinds of data: parts that share their layers, trained jointly with balanced losses.

The file reads as a batch travels: each part's inputs go through the part's own embeddings, the shared layers and the part's own
head (`UnifiedForPretraining`), and the parts' losses become one. A part is an ordinary MetaMAE or SMA: `model.parts[name]`, whose
`save_pretrained` writes a checkpoint that knows nothing of the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_unified import UnifiedConfig
from .model_rules import ModelRules
from .modeling_metamae import MetaMAEForPretraining, MetaMAEModel
from .modeling_sma import SMAForMaskedModeling, SMAModel
from .pretraining import MaskedPretraining
from .task_balancing import BalancingRule, TaskBalancer, TaskPretraining, TaskTotals

ENCODERS: dict[str, type[PreTrainedModel]] = {"metamae": MetaMAEModel, "sma": SMAModel}
OBJECTIVES: dict[str, type[PreTrainedModel]] = {"metamae": MetaMAEForPretraining, "sma": SMAForMaskedModeling}
# The modules and parameters of a pre-training model that all parts have in common, as the batch meets them. What tells kinds of
# data apart stays a part's own: embeddings, class and mask tokens, heads, and MetaMAE's projector with its running statistics.
SHARED: dict[str, tuple[str, ...]] = {
    "metamae": ("metamae.layers", "metamae.norm", "decoder.embed", "decoder.norm", "decoder.layers"),
    "sma": ("sma.latents", "sma.input_layer", "sma.layers", "decoder.norm", "decoder.layer"),
}
# Name of a part -> argument of its model -> tensor.
PartInputs = Mapping[str, Mapping[str, torch.Tensor]]


@dataclass
class UnifiedModelOutput(ModelOutput):
    """The encoded parts of a batch.

    Attributes:
        last_hidden_state: Name of a part -> (B, N, D) of its encoder.
        pooler_output: Name of a part -> (B, D) of its encoder.
    """

    last_hidden_state: dict[str, torch.Tensor] | None = None
    pooler_output: dict[str, torch.Tensor] | None = None


@dataclass
class UnifiedForPretrainingOutput(ModelOutput):
    """The result of one pre-training forward pass.

    Attributes:
        loss: Scalar, the balanced loss.
        loss_parts: Detached scalars: each part's loss by its name, `weight/PART`, its weight in the balanced loss, and
            `PART/NAME` for the parts of a part's loss.
        parts: Name of a part -> output of its pre-training model.
    """

    loss: torch.Tensor | None = None
    loss_parts: dict[str, torch.Tensor] | None = None
    parts: dict[str, ModelOutput] | None = None


class UnifiedPreTrainedModel(ModelRules, PreTrainedModel):
    config: UnifiedConfig
    base_model_prefix = "unified"
    main_input_name = "inputs"
    input_modalities = ["image", "text", "time"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the balancing; the parts, models themselves, initialise theirs."""
        if isinstance(module, BalancingRule):
            module.reset_state()

    def post_init(self) -> None:
        """As transformers', which saves a weight of several names once, and loads it under all of them."""
        self._tied_weights_keys = _later_names(self)
        super().post_init()

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """{name of a weight: the first name of the same weight}, for all names but the first."""
        return dict(self._tied_weights_keys or {})

    def _check_inputs(self, inputs: PartInputs) -> None:
        unknown = [name for name in inputs if name not in self.config.part_names]
        if unknown or not inputs:
            raise ValueError(
                f"`inputs` must be {{part: {{argument: tensor}}}} for some of the parts {self.config.part_names}, got "
                f"{list(inputs)}."
            )


class UnifiedModel(UnifiedPreTrainedModel):
    """The encoders of all parts, which share their layers.

    Attributes:
        parts: Name of a part -> its encoder.
    """

    _keys_to_ignore_on_load_unexpected = [r"^objectives\.", r"^balancer\."]

    def __init__(self, config: UnifiedConfig) -> None:
        super().__init__(config)
        encoder, prefix = ENCODERS[config.part_type], f"{ENCODERS[config.part_type].base_model_prefix}."
        self.parts = nn.ModuleDict({name: encoder(config.part_config(name)) for name in config.part_names})
        share(self.parts, [name.removeprefix(prefix) for name in SHARED[config.part_type] if name.startswith(prefix)])
        self.post_init()

    @can_return_tuple
    def forward(self, inputs: PartInputs, **kwargs: Any) -> UnifiedModelOutput:
        """Encode rows of one or several parts.

        Args:
            inputs: {part: {argument: tensor}}, for each part the arguments of its encoder; parts may be left out, and have
                different numbers of rows.

        Raises:
            ValueError: No part, a part that the model does not have, or inputs that its encoder refuses.
        """
        self._check_inputs(inputs)
        outputs = {name: self.parts[name](**part, return_dict=True, **kwargs) for name, part in inputs.items()}
        return UnifiedModelOutput(
            last_hidden_state={name: output.last_hidden_state for name, output in outputs.items()},
            pooler_output={name: output.pooler_output for name, output in outputs.items()},
        )


class UnifiedForPretraining(TaskPretraining, UnifiedPreTrainedModel):
    """Joint pre-training: each part's own objective, whose losses are balanced.

    Attributes:
        objectives: Name of a part -> its pre-training model, which shares the layers of all.
    """

    def __init__(self, config: UnifiedConfig) -> None:
        super().__init__(config)
        self.unified = UnifiedModel(config)
        objective = OBJECTIVES[config.part_type]
        self.objectives = nn.ModuleDict()
        for name in config.part_names:
            part = objective(config.part_config(name))
            setattr(part, objective.base_model_prefix, self.unified.parts[name])
            self.objectives[name] = part
        share(self.objectives, SHARED[config.part_type])
        self.balancer = TaskBalancer(config.part_names, config.task_balancing, config.task_balancing_options)
        self.post_init()

    @property
    def parts(self) -> dict[str, PreTrainedModel]:
        """Name of a part -> its pre-training model."""
        return dict(self.objectives.items())  # type: ignore[arg-type]  # modules are models here

    def _hooks(self) -> list[MaskedPretraining]:
        return [part for part in self.objectives.values() if isinstance(part, MaskedPretraining)]

    def compilable_modules(self) -> list[nn.Module]:
        found = {id(module): module for part in self._hooks() for module in part.compilable_modules()}
        return list(found.values())

    def reason_against_fsdp(self) -> str | None:
        return (
            "Its parts are called beside each other, and FSDP shards a model that is called as one. Train it with DDP."
        )

    def reason_against_cuda_graphs(self) -> str | None:
        return "A batch holds rows of several kinds of data, whose shapes a recording does not follow."

    def set_training_progress(self, fraction: float) -> None:
        for part in self._hooks():
            part.set_training_progress(fraction)

    def measure_tasks(self, inputs: PartInputs, **kwargs: Any) -> TaskTotals:
        """The parts' losses of one batch, to be added up over the step and given to `balancer.begin_step`."""
        losses, counts, _ = self._losses(inputs, **kwargs)
        return self.balancer.measure(losses, counts, self._shared_weight())

    @can_return_tuple
    def forward(self, inputs: PartInputs, return_loss: bool = True, **kwargs: Any) -> UnifiedForPretrainingOutput:
        """Run the objective of each part of the batch, and balance their losses.

        Args:
            inputs: {part: {argument: tensor}}, for each part the arguments of its pre-training model.
            return_loss: Whether the output has `loss` and `loss_parts`.

        Raises:
            ValueError: No part, a part that the model does not have, or inputs that its model refuses.
        """
        losses, counts, outputs = self._losses(inputs, **kwargs)
        if not return_loss:
            return UnifiedForPretrainingOutput(parts=outputs)
        balanced = self.balancer(losses, counts, self._shared_weight())
        # The balancer counts every part as one term; a log that weighed losses by it would be wrong.
        parts = {
            name: value for name, value in self.balancer.loss_parts(balanced).items() if not name.startswith("count/")
        }
        for name, output in outputs.items():
            parts |= {f"{name}/{part}": value for part, value in (output["loss_parts"] or {}).items()}
        return UnifiedForPretrainingOutput(balanced.loss, parts, outputs)

    def _losses(
        self, inputs: PartInputs, **kwargs: Any
    ) -> tuple[list[torch.Tensor], torch.Tensor, dict[str, ModelOutput]]:
        """The loss of each part, 0 for one that the batch lacks; (T,) 1 for each that it has; and the outputs.

        A part's loss, averaged over processes, is its mean over all of them (`models/distributed.py`): each is one term.
        """
        self._check_inputs(inputs)
        outputs = {
            name: self.objectives[name](**inputs[name], return_loss=True, return_dict=True, **kwargs)
            for name in self.config.part_names
            if name in inputs
        }
        device = next(iter(outputs.values())).loss.device
        losses = [
            outputs[name].loss if name in outputs else torch.zeros((), device=device)
            for name in self.config.part_names
        ]
        # Filled on the device: the copy of a list would make a GPU wait.
        counts = torch.stack(
            [torch.full((), float(name in outputs), device=device) for name in self.config.part_names]
        )
        return losses, counts, outputs

    def _shared_weight(self) -> torch.Tensor | None:
        """The last matrix that all parts share, for GradNorm."""
        part = next(iter(self.objectives.values()))
        shared = [found for name in SHARED[self.config.part_type] if isinstance(found := _find(part, name), nn.Module)]
        return self.weight_to_compare(
            [weight for module in shared for weight in module.parameters() if weight.ndim > 1][-1]
        )


def share(models: nn.ModuleDict, names: Sequence[str]) -> None:
    """Let all models have the first one's modules and parameters of these names; a name that none has is passed over.

    Raises:
        ValueError: Modules or weights of one name have different classes or shapes, or are not there in all models.
    """
    first_name, first = next(iter(models.items()))
    for name in names:
        module = _find(first, name)
        for other_name, other in list(models.items())[1:]:
            own = _find(other, name)
            if (_shapes(own), own is None) != (_shapes(module), module is None):
                raise ValueError(
                    f"`parts`: {first_name!r} and {other_name!r} share `{name}`, which must be the same in both, got "
                    f"{_first_difference(_shapes(module), _shapes(own))}: give both the same fields, best in `shared`."
                )
            if module is not None:
                parent, _, child = name.rpartition(".")
                setattr(other.get_submodule(parent), child, module)


def _later_names(model: nn.Module) -> dict[str, str]:
    """{name of a weight: the first name of the same weight}, for all names but the first."""
    first: dict[int, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    return {name: first[id(weight)] for name, weight in named if first.setdefault(id(weight), name) != name}


def _find(model: nn.Module, name: str) -> nn.Module | nn.Parameter | None:
    """The module or parameter of this name; None where the model has none."""
    found: Any = model
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _shapes(module: nn.Module | nn.Parameter | None) -> dict[str, object]:
    """Shape of each weight and class of each module, by name."""
    if module is None:
        return {}
    if isinstance(module, nn.Parameter):
        return {"": tuple(module.shape)}
    found: dict[str, object] = {name: tuple(weight.shape) for name, weight in module.state_dict().items()}
    return found | {name or "itself": type(part).__name__ for name, part in module.named_modules()}


def _first_difference(one: dict[str, object], other: dict[str, object]) -> str:
    for name in [*one, *other]:
        if one.get(name) != other.get(name):
            return f"{name} {one.get(name, 'absent')} and {other.get(name, 'absent')}"
    return "a module in one of them alone"
