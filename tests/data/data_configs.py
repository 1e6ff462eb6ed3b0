"""Stand-ins for model configurations: the attributes that data are checked against."""

from types import SimpleNamespace


def series_config(channels: int, length: int) -> SimpleNamespace:
    """The attributes of a model configuration that series and tabular rows are checked against."""
    return SimpleNamespace(modality="series", num_channels=channels, series_length=length, patch_size=1)


def image_config(channels: int, height: int, width: int) -> SimpleNamespace:
    """The same for images and spectrograms."""
    return SimpleNamespace(modality="image", num_channels=channels, image_size=[height, width], patch_size=4)


def token_config(vocabulary: int, length: int, pad: int | None = None) -> SimpleNamespace:
    """The same for tokens."""
    return SimpleNamespace(modality="tokens", vocab_size=vocabulary, max_position_embeddings=length, pad_token_id=pad)


def channels_last(config: SimpleNamespace) -> SimpleNamespace:
    """The same for a model that takes series as (B, T, C), as SMA does."""
    return SimpleNamespace(**vars(config), channels_last=True)
