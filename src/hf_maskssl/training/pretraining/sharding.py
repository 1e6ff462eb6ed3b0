"""FSDP's settings for a model: the modules that are sharded one by one."""

import contextlib
from collections.abc import Iterator

from transformers import PreTrainedModel


def fsdp_units(model: PreTrainedModel) -> list[str]:
    """Names of the classes that FSDP shards one by one: those of the model's blocks that do not hold its input embedding."""
    embedding = model.get_input_embeddings()
    around = {
        type(module).__name__
        for module in model.modules()
        if module is not embedding and any(part is embedding for part in module.modules())
    }
    return [name for name in model._no_split_modules or [] if name not in around]


@contextlib.contextmanager
def embedding_in_root(model: PreTrainedModel) -> Iterator[None]:
    """While FSDP shards the model, hide its input embedding, of which Accelerate would make a unit.

    A unit is whole during its own forward only, but a tied head reads words off the embedding's table later on. Modules
    in no unit are whole throughout.
    """
    setattr(model, "get_input_embeddings", lambda: None)  # noqa: B010  a method, to the type checker
    try:
        yield
    finally:
        del model.__dict__["get_input_embeddings"]
