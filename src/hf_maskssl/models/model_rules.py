"""What every model of the package does the same way, whatever its method."""

from collections.abc import Iterable, Mapping
from typing import Any

from transformers import PreTrainedModel

from .layers import enable_checkpointing

# Arguments of other models that wrappers, as of peft, always pass on.
WRAPPER_ARGUMENTS = ("input_ids", "attention_mask", "inputs_embeds", "position_ids", "token_type_ids", "head_mask")


class ModelRules:
    """The first base of a method's `PreTrainedModel`."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        # Fields can be set on a configuration that was valid when it was made: `from_pretrained(..., image_size=30)` does.
        config.validate()
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]  # PreTrainedModel is the next class

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As transformers', whose arguments it takes.

        Raises:
            ValueError: `device_map` offloads a weight by itself: only whole modules are loaded again, when their forward begins.
        """
        loaded = super().from_pretrained(*args, **kwargs)  # type: ignore[misc]  # PreTrainedModel is the next class
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # the second is what was missing
        places = vars(model).get("hf_device_map", {})
        for name, weight in model.named_parameters():
            if weight.device.type == "meta" and name in places:
                raise ValueError(
                    f"device_map: expected a device for `{name}`, got '{places[name]}', where only whole modules can wait: give "
                    "it the device of the first module, or place its module as a whole."
                )
        return loaded

    def post_init(self) -> None:
        """As transformers'; `config.gradient_checkpointing` holds for the layers outside the encoder too.

        The encoder, which is built first, takes that field out of the configuration.
        """
        assert isinstance(self, PreTrainedModel)
        super().post_init()  # type: ignore[misc]
        if any(vars(module).get("gradient_checkpointing") for module in self.modules()):
            enable_checkpointing(self)


def drop_unused(
    kwargs: Mapping[str, object], model: str, names: Iterable[str] = ("inputs_embeds", "position_ids")
) -> dict[str, Any]:
    """`kwargs` without those arguments of other models that are None.

    Args:
        kwargs: keyword arguments of a forward pass, beside its own.
        model: the model, as the error names it.
        names: arguments that the model would have to read, if they were given.

    Raises:
        ValueError: one of `names` is not None.
    """
    given = [name for name in names if kwargs.get(name) is not None]
    if given:
        raise ValueError(f"{model} does not take {' and '.join(f'`{name}`' for name in given)}: leave it out.")
    return {name: value for name, value in kwargs.items() if value is not None or name not in WRAPPER_ARGUMENTS}
