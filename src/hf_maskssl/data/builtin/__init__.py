"""Data sets that come with the package: each has a file with one record."""

from .captioned_scenes import CAPTIONED_SCENES
from .digits import DIGITS
from .pydoc import PYDOC
from .scenes import SCENES
from .source import Source

# `data.source` -> its record.
SOURCES: dict[str, Source] = {source.name: source for source in (DIGITS, SCENES, CAPTIONED_SCENES, PYDOC)}

__all__ = ["SOURCES", "Source"]
