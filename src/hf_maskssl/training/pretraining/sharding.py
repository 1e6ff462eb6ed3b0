"""FSDP's settings for a model: the modules that are sharded one by one, and those that stay in the root."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from accelerate.utils import FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy
from transformers import PreTrainedModel


def choose_units(model: PreTrainedModel, plugin: FullyShardedDataParallelPlugin) -> None:
    """Tell FSDP which classes it shards one by one: those that the launch names, or else `fsdp_units`.

    Raises:
        ValueError: The launch asks for units that cannot be.
    """
    if plugin.fsdp_version == 2 and plugin.auto_wrap_policy is size_based_auto_wrap_policy:
        raise ValueError(
            "fsdp_auto_wrap_policy=SIZE_BASED_WRAP: its units would be whole lists of layers, which FSDP2 does not shard. Take "
            "TRANSFORMER_BASED_WRAP, as examples/accelerate/fsdp2.yaml does, or NO_WRAP."
        )
    if plugin.transformer_cls_names_to_wrap is None:
        plugin.transformer_cls_names_to_wrap = fsdp_units(model)
    refused = _classes_in_root(model).intersection(plugin.transformer_cls_names_to_wrap)
    if refused:
        raise ValueError(
            f"fsdp_transformer_layer_cls_to_wrap names {', '.join(sorted(refused))}, which FSDP cannot shard alone: they "
            "hold the input embedding or weights tied to others. Leave the field out, or name some of "
            f"{', '.join(sorted(fsdp_units(model)))}."
        )


def fsdp_units(model: PreTrainedModel) -> list[str]:
    """Names of the classes that FSDP can shard one by one, from those of the model's blocks (`_no_split_modules`).

    A unit is whole during its own forward only, and a parameter lies in one unit alone. So a block that holds the input
    embedding, which others read, or a weight that is tied to one outside of the block, is no unit: it stays in the root.
    Classes of which this model has no module are left out, because Accelerate refuses names that it does not find.
    """
    in_root, present = _classes_in_root(model), {type(module).__name__ for module in model.modules()}
    return [name for name in model._no_split_modules or [] if name in present and name not in in_root]


def _classes_in_root(model: PreTrainedModel) -> set[str]:
    embedding = model.get_input_embeddings()
    places = _places(model)
    return {
        type(module).__name__
        for module in model.modules()
        if any(part is embedding for part in module.modules())
        or any(places[weight] > count for weight, count in _places(module).items())
    }


def _places(module: nn.Module) -> Counter[nn.Parameter]:
    """How often each parameter stands in a module: more than once where weights are tied."""
    return Counter(weight for _, weight in module.named_parameters(remove_duplicate=False))


@contextlib.contextmanager
def embeddings_in_root(model: PreTrainedModel) -> Iterator[None]:
    """While FSDP shards the model, hide its input and output embeddings, of which Accelerate would make units.

    A tied head reads words off the embedding's table after the embedding's own forward, and an output layer may lie within a
    unit already. Modules in no unit are whole throughout.
    """
    names = ("get_input_embeddings", "get_output_embeddings")
    for name in names:
        setattr(model, name, lambda: None)
    try:
        yield
    finally:
        for name in names:
            del model.__dict__[name]
