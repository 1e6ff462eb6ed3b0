"""The types of adapters that fine-tuning knows, and the check of a recipe's `finetuning.peft`."""

from collections.abc import Sequence

from ...checks import shown
from ...files import JsonObject, JsonView, did_you_mean

ALL_LINEAR = "all-linear"
# Type of adapter -> peft's class, and what it is given beside the recipe's options.
TYPES: dict[str, tuple[str, JsonObject]] = {
    "lora": ("LoraConfig", {}),
    "dora": ("LoraConfig", {"use_dora": True}),
    "loha": ("LoHaConfig", {}),
    "lokr": ("LoKrConfig", {}),
}


def check_adapter(section: JsonView) -> None:
    """See that `finetuning.peft` names a type of adapter; its options are checked where peft is loaded.

    Raises:
        ValueError: No type, or an unknown one.
    """
    kind = section.get("type")
    if kind not in TYPES:
        raise ValueError(
            f"finetuning.peft.type: expected one of {list(TYPES)}, got {shown(kind)}{did_you_mean(str(kind), TYPES)}."
        )
    targets = section.get("target_modules", ALL_LINEAR)
    names = [targets] if isinstance(targets, str) else targets
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"finetuning.peft.target_modules: expected '{ALL_LINEAR}' or names of linear layers, got {shown(targets)}."
        )
