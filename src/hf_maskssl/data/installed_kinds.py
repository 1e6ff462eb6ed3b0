"""The kinds of this package, and those of others that are installed beside it."""

from ..methods.entry_points import register_installed
from .kinds import Kind, register_kind
from .kinds.image import ImageKind
from .kinds.series import SeriesKind
from .kinds.spectrogram import SpectrogramKind
from .kinds.tabular import TabularKind
from .kinds.tokens import TokensKind
from .kinds.vision_language import VisionLanguageKind
from .masked_text.kind import MaskedTextKind
from .multimodal.kind import MultimodalKind
from .unified.kind import UnifiedKind

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
    UnifiedKind(),
)


def register_kinds() -> None:
    """Register all kinds; one of another package that cannot be loaded is left out with a warning."""
    for kind in OWN_KINDS:
        register_kind(kind)
    register_installed(ENTRY_POINTS, Kind, register_kind, "kind of data")  # type: ignore[type-abstract]
