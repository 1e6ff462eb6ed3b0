"""Records of other installed packages."""

import importlib
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, TypeVar

Record = TypeVar("Record")


def register_installed(group: str, record: type[Record], register: Callable[[Record], None], title: str) -> None:
    """Register the records of an entry-point group; one that cannot be loaded is left out with a warning.

    Args:
        group: Name of the group, such as "hf_maskssl.methods".
        record: Class that an entry must hold.
        register: Function that registers a record.
        title: Name of a record, for the warning.
    """
    for entry in entry_points(group=group):
        try:
            loaded = entry.load()
            if not isinstance(loaded, record):
                raise TypeError(
                    f"{entry.value} is {loaded!r}, expected a {record.__module__.split('.')[0]}.{record.__name__}"
                )
            register(loaded)
        except Exception as error:  # an error in another package must not break this one
            warnings.warn(f"The {title} {entry.name!r} ({entry.value}) is left out: {error}", stacklevel=3)


def load_function(reference: str) -> Callable[..., Any]:  # its record documents the signature
    """The function of "module:function", whose module is imported now."""
    module, _, function = reference.partition(":")
    return getattr(importlib.import_module(module), function)  # a string names it
