"""The kinds of this package, and those of others that are installed beside it."""

import warnings
from importlib.metadata import entry_points

from .kinds import Kind, register_kind
from .kinds.image import ImageKind
from .kinds.series import SeriesKind
from .kinds.spectrogram import SpectrogramKind
from .kinds.tabular import TabularKind
from .kinds.tokens import TokensKind
from .kinds.vision_language import VisionLanguageKind
from .masked_text.kind import MaskedTextKind
from .multimodal.kind import MultimodalKind

ENTRY_POINTS = "hf_maskssl.kinds"


OWN_KINDS = (
    TokensKind(),
    SeriesKind(),
    TabularKind(),
    ImageKind(),
    SpectrogramKind(),
    VisionLanguageKind(),
    MultimodalKind(),
    MaskedTextKind(),
)


def register_kinds() -> None:
    """Register all of them; one of another package that cannot be loaded is left out with a warning."""
    for kind in OWN_KINDS:
        register_kind(kind)
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            loaded = entry.load()
            if not isinstance(loaded, Kind):
                raise TypeError(f"{entry.value} is {loaded!r}, expected a hf_maskssl.data.Kind")
            register_kind(loaded)
        except Exception as error:  # whatever another package does wrong must not take this one down
            warnings.warn(f"The kind of data {entry.name!r} ({entry.value}) is left out: {error}", stacklevel=2)
