"""Folders of sound files, read without a decoder.

The class has a module of its own, because datasets, to stream, replaces functions such as `open` in a builder's module.
"""

from dataclasses import dataclass

import datasets
from datasets.packaged_modules.audiofolder.audiofolder import AudioFolder


@dataclass(repr=False)
class UndecodedFile(datasets.Image):
    """A file as `{"bytes", "path"}`: the `Audio` feature needs torchcodec even to note a path."""

    decode: bool = False


class SoundFolder(AudioFolder):
    """The `audiofolder` builder with sounds left as `{"bytes", "path"}`."""

    # A class, of which every version of datasets makes the feature; only the latest can be given the feature itself.
    BASE_FEATURE = UndecodedFile
    EXTENSIONS = AudioFolder.EXTENSIONS
