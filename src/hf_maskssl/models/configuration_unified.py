"""Configuration of a unified model: one encoder for several kinds of data, which the papers leave for future work."""

import dataclasses
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import PreTrainedConfig

from .configuration_metamae import MetaMAEConfig
from .configuration_sma import SMAConfig
from .task_balancing import check_task_balancing

AUTO_MAP = {
    "AutoConfig": "configuration_unified.UnifiedConfig",
    "AutoModel": "modeling_unified.UnifiedModel",
    "AutoModelForPreTraining": "modeling_unified.UnifiedForPretraining",
}
PART_CONFIGS: dict[str, type[PreTrainedConfig]] = {"metamae": MetaMAEConfig, "sma": SMAConfig}


@strict
class UnifiedConfig(PreTrainedConfig):
    """Several models of one method, each for a kind of data, with the same layers.

    A part embeds its own kind of data and predicts it; the layers between are one set of weights (`SHARED` in
    `modeling_unified.py`). Parts must agree in the sizes of these. The losses of the parts become one by a rule of
    `models/task_balancing.py`: "minimax" trains for the kind of data that is worst off, which Wang et al. 2023
    (https://arxiv.org/abs/2306.12070) propose for tasks.

    Args:
        part_type: Method of all parts, "metamae" or "sma".
        parts: {name of a part: fields of its configuration}, at least two parts.
        shared: Fields of every part's configuration; a part's own field of the same name comes before it.
        task_balancing: Rule by which the parts' losses become one: "none" (their sum), "minimax", "uncertainty", "gradnorm" or
            "dwa".
        task_balancing_options: Settings of that rule, see `models/task_balancing.py`.

    Raises:
        ValueError: Fewer than two parts; a name that no module can have; a field that the parts' configuration does not have, or
            refuses; or a rule that does not exist.
    """

    model_type = "unified"

    part_type: Literal["metamae", "sma"] = "metamae"
    parts: dict[str, dict[str, Any]] | None = None
    shared: dict[str, Any] | None = None
    task_balancing: Literal["none", "minimax", "uncertainty", "gradnorm", "dwa"] = "none"
    task_balancing_options: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.parts is None:
            # transformers makes a configuration without arguments, to compare with.
            series = {"modality": "series", "series_length": 32, "num_channels": 1}
            self.parts = {"image": {"modality": "image", "image_size": 32}, "series": series}
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__post_init__(**kwargs)

    @property
    def part_names(self) -> list[str]:
        """Names of the parts, in the order of the tasks of `task_balancing`: the alphabet's, as in a saved configuration."""
        return sorted(self.parts or {})

    def part_config(self, name: str) -> PreTrainedConfig:
        """The configuration of one part, complete.

        Raises:
            ValueError: No such part, or fields that its configuration refuses.
        """
        if name not in self.part_names:
            raise ValueError(f"`parts` has {self.part_names}, no {name!r}.")
        return PART_CONFIGS[self.part_type](**{**(self.shared or {}), **(self.parts or {})[name]})

    def validate_parts(self) -> None:
        names = self.part_names
        if len(names) < 2:
            raise ValueError(
                f"`parts` must have at least two entries, got {names}: for one, use '{self.part_type}' itself."
            )
        config_class = PART_CONFIGS[self.part_type]
        known = {field.name for field in dataclasses.fields(config_class) if field.init}
        for name in names:
            if not name.isidentifier() or hasattr(nn.ModuleDict, name):
                raise ValueError(
                    f"`parts`: {name!r} cannot be the name of a part; use letters, digits and underscores, and no name of a "
                    "method of torch.nn.ModuleDict."
                )
            for where, fields in ((f"parts[{name!r}]", (self.parts or {})[name]), ("shared", self.shared or {})):
                unknown = sorted(set(fields) - known, key=str)
                if unknown:
                    raise ValueError(
                        f"`{where}`: {config_class.__name__} has no field {unknown}; it has {sorted(known)}."
                    )
            try:
                self.part_config(name)
            except (
                Exception
            ) as error:  # strict configurations have errors of their own, whose cause says what is wrong
                raise ValueError(f"`parts[{name!r}]`: {' '.join(str(error.__cause__ or error).split())}") from error

    def validate_balancing(self) -> None:
        check_task_balancing(self.task_balancing, self.task_balancing_options)
