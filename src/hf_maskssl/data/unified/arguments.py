"""The fields of a recipe's `data` section for several kinds of data at once."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...recipes import build_section
from ..arguments import PARTS, DataArguments

# Folders beside those of the parts in that of a run or of its checkpoints.
RESERVED = ("pictures", "training_state")


@contextmanager
def errors_of_part(name: str) -> Iterator[None]:
    """Let errors about the data of a part name it.

    Raises:
        ValueError: The work inside has raised one.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"data.parts.{name}: {error}") from error


@dataclass
class UnifiedArguments(DataArguments):
    """Arguments of several kinds of data, each with a data section of its own.

    Every row holds one row of each part: row i has row i of every part, where shorter parts begin again at their end. A batch of
    `training.batch_size` rows so has as many rows of every part. All other fields belong into the parts.

    Attributes:
        parts: Table of the name of a part, as in `model.parts`, -> its data section, with a `kind` of its own.
    """

    source: str = PARTS
    kind: str = "unified"
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    INPUT_FORMS: ClassVar[tuple[type, ...]] = (type(None),)

    def __post_init__(self) -> None:
        own = ("parts", "cache")
        for entry in dataclasses.fields(self):
            default = entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()
            if entry.name not in own and getattr(self, entry.name) != default:
                raise ValueError(
                    f"data.{entry.name} is {getattr(self, entry.name)!r}: with data.kind 'unified' it belongs into the sections "
                    f"of the parts, such as data.parts.{next(iter(self.parts), 'NAME')}.{entry.name}"
                )
        super().__post_init__()
        if len(self.parts) < 2:
            raise ValueError(f"data.parts: expected at least two parts, got {list(self.parts)}")
        for name, section in self.sections().items():
            if name in RESERVED:
                raise ValueError(f"data.parts: {name!r} is the name of a folder of every run: call the part otherwise")
            if isinstance(section, UnifiedArguments):
                raise ValueError(f"data.parts.{name}.kind: expected the kind of one data set, got 'unified'")
            if section.streaming:
                raise ValueError(
                    f"data.parts.{name}.streaming: expected false, since rows of several parts are joined by their number, got "
                    "true"
                )

    def sections(self) -> dict[str, DataArguments]:
        """Name of a part -> its data section, built and checked, in the alphabet's order.

        Raises:
            ValueError: A section that cannot work; the error names the part.
        """
        built = {}
        for name in sorted(self.parts):
            with errors_of_part(name):
                built[name] = build_section("data", DataArguments, self.parts[name])
        return built

    def with_few_rows(self, most: int) -> "UnifiedArguments":
        """The arguments with at most that many training rows of every part."""
        few = {name: section.with_few_rows(most).max_train_samples for name, section in self.sections().items()}
        parts = {name: {**fields, "max_train_samples": few[name]} for name, fields in self.parts.items()}
        return dataclasses.replace(self, parts=parts)
