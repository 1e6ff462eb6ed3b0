"""Folders of sound files without a decoder at hand.

A module of its own: to stream, datasets replaces functions such as `open` in the whole module of a builder.
"""

import datasets
from datasets.packaged_modules.audiofolder.audiofolder import AudioFolder


class SoundFolder(AudioFolder):
    """The `audiofolder` builder, leaving sounds as `{"bytes", "path"}`.

    The `Audio` feature needs torchcodec even to note a path; `Image(decode=False)` stores the same two fields.
    """

    BASE_FEATURE = datasets.Image
    EXTENSIONS = AudioFolder.EXTENSIONS

    def _base_feature(self) -> datasets.Image:
        return datasets.Image(decode=False)
