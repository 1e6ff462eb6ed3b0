"""Pictures: curves, reconstructions, masks, modalities, fine-tuned predictions."""

from ..extras import missing_extra

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise missing_extra("Drawing", "train", error) from error
