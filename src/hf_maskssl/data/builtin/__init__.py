"""Data sets that come with the package: a file each, and one record of it."""

from .digits import DIGITS
from .pydoc import PYDOC
from .scenes import SCENES
from .source import Source

# `data.source` -> what is known of it.
SOURCES: dict[str, Source] = {source.name: source for source in (DIGITS, SCENES, PYDOC)}

__all__ = ["SOURCES", "Source"]
