"""What the package knows of a data set that comes with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

    from ..arguments import DataArguments


@dataclass(frozen=True)
class Source:
    """A data set that `data.source` names without files.

    Attributes:
        name: As in recipes.
        title: As model cards say it.
        read: Arguments and the name of a split -> the split.
        input_column: The column of the input where the recipe names none.
        depth_scale: Depth maps times this are metres; None without depth maps.
        class_names: Column of class maps -> names of the classes by their id.
        is_rendered: Its pictures were drawn here, so that none can be broken.
    """

    name: str
    title: str
    read: Callable[[DataArguments, str], Dataset | IterableDataset]
    input_column: str | None = None
    depth_scale: float | None = None
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_rendered: bool = False
