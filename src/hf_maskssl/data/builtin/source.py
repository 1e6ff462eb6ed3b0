"""The record of a data set that comes with the package."""

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
        name: Name of the data set in recipes.
        title: Name of the data set in model cards.
        read: Function that reads a split by the arguments and its name.
        input_column: Name of the column that holds the input where the recipe names none.
        text_column: Name of the column that holds the text beside the input where the recipe names none.
        words: Every word and mark of its texts, of which `data.tokenizer` makes a vocabulary where it has the data set's name.
        depth_scale: Factor that turns depth maps into metres; None without depth maps.
        class_names: Column of class maps -> names of the classes by their id.
        is_rendered: Whether its pictures were drawn here, so that none can be broken.
    """

    name: str
    title: str
    read: Callable[[DataArguments, str], Dataset | IterableDataset]
    input_column: str | None = None
    text_column: str | None = None
    words: tuple[str, ...] = ()
    depth_scale: float | None = None
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_rendered: bool = False
