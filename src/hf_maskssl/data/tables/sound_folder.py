"""Folders of sound files, read without a decoder.

The class has a module of its own, because datasets, to stream, replaces functions such as `open` in a builder's module.
"""

import datasets
from datasets.packaged_modules.audiofolder.audiofolder import AudioFolder


class SoundFolder(AudioFolder):
    """The `audiofolder` builder with sounds left as `{"bytes", "path"}`.

    The `Audio` feature needs torchcodec even to note a path; `Image(decode=False)` stores the same two fields.
    """

    BASE_FEATURE = datasets.Image
    EXTENSIONS = AudioFolder.EXTENSIONS

    def _base_feature(self) -> datasets.Image:
        return datasets.Image(decode=False)
