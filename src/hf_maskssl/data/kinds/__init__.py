"""Kinds of data: a file each, and the record of all of them.

A ninth kind is a class that extends `Kind`, its arguments a dataclass that extends `DataArguments`. A package of its own
names an instance in the entry-point group `hf_maskssl.kinds`.
"""

from .base import KINDS, Kind, find_kind, register_kind

__all__ = ["KINDS", "Kind", "find_kind", "register_kind"]
