"""Refusals of bad model inputs that every method shares.

Shapes and types are always checked. Values are looked at on the CPU only, where that is free; on a GPU looking would make every
step wait for the device, and the data collator has looked already.
"""

import torch


def values_are_readable(tensor: torch.Tensor) -> bool:
    """Whether looking at values costs nothing: on the CPU and not while compiling."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_signal(name: str, signal: torch.Tensor | None, num_channels: int, axes: tuple[str, ...]) -> torch.Tensor:
    """A finite floating-point signal of the shape (batch, `num_channels`, one size per name in `axes`).

    Raises:
        ValueError: another number of axes, type or number of channels, or NaN or infinity, naming the rows.
    """
    if signal is None or signal.dim() != 2 + len(axes):
        shape = f"(batch, channels, {', '.join(axes)})"
        raise ValueError(
            f"`{name}` must have the shape {shape}, got {None if signal is None else tuple(signal.shape)}."
        )
    if not signal.is_floating_point():
        raise ValueError(f"`{name}` must be floating point, got {signal.dtype}: scale and convert it first.")
    if signal.shape[1] != num_channels:
        raise ValueError(
            f"`{name}` must have num_channels={num_channels} channels, got {signal.shape[1]} in {tuple(signal.shape)}."
        )
    if values_are_readable(signal) and not torch.isfinite(signal).all():
        rows = torch.nonzero(~torch.isfinite(signal).flatten(1).all(1)).flatten().tolist()
        raise ValueError(f"`{name}` must be finite, found NaN or infinity in rows {rows[:8]} of the batch.")
    return signal


def check_ids(input_ids: torch.Tensor, vocab_size: int, max_length: int) -> None:
    """Integer ids (batch, 1 to `max_length`) in [0, `vocab_size`).

    Raises:
        ValueError: another type, shape, length or range.
    """
    if input_ids.dim() != 2 or input_ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"`input_ids` must be integers of the shape (batch, length), got {input_ids.dtype} of "
            f"{tuple(input_ids.shape)}."
        )
    if not 1 <= input_ids.shape[1] <= max_length:
        raise ValueError(
            f"`input_ids` must have 1 to max_position_embeddings={max_length} tokens, got {input_ids.shape[1]}: "
            "truncate the sequences."
        )
    if values_are_readable(input_ids):
        low, high = int(input_ids.min()), int(input_ids.max())
        if low < 0 or high >= vocab_size:
            raise ValueError(f"`input_ids` must lie in [0, vocab_size={vocab_size}), got {low} to {high}.")


def check_attention_mask(attention_mask: torch.Tensor, shape: tuple[int, ...], unit: str) -> None:
    """One entry per `unit` ("token", "patch"), and at least one real one in every row.

    Raises:
        ValueError: another shape, or rows that are all padding.
    """
    if tuple(attention_mask.shape) != shape:
        raise ValueError(
            f"`attention_mask` must have one entry per {unit}, {shape}, got {tuple(attention_mask.shape)}."
        )
    if values_are_readable(attention_mask) and not attention_mask.bool().any(1).all():
        rows = torch.nonzero(~attention_mask.bool().any(1)).flatten().tolist()
        raise ValueError(
            f"`attention_mask` marks nothing as real in rows {rows[:8]} of the batch: drop empty samples."
        )
