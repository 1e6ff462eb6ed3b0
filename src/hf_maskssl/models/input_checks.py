"""Refusals of bad model inputs that every method shares.

Shapes and types are always checked. Values are checked on the CPU only, where that is free; on a GPU a check would make every
step wait for the device, and the data collator has checked them already.
"""

from collections.abc import Mapping

import torch


def values_are_readable(tensor: torch.Tensor) -> bool:
    """Whether reading values costs nothing: on the CPU and not while compiling."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_not_empty(name: str, tensor: torch.Tensor) -> None:
    """Refuse a batch without rows.

    Raises:
        ValueError: There is none.
    """
    if torch.compiler.is_compiling() or len(tensor):  # an exported program has a symbolic batch size
        return
    raise ValueError(
        f"`{name}` must have at least one row, got the shape {tuple(tensor.shape)}: leave empty batches out."
    )


def check_class_ids(labels: torch.Tensor, num_labels: int, ignored: int) -> torch.Tensor:
    """Class ids as int64, whichever integers they are.

    Args:
        labels: Ids, of any shape, in [0, `num_labels`) or `ignored`.
        num_labels: Number of classes.
        ignored: Id of what has no class.

    Raises:
        ValueError: Real numbers, or (on the CPU) other ids, which on a GPU would end the process.
    """
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"`labels` must be integers, the ids of num_labels={num_labels} classes, got {labels.dtype} of the shape "
            f"{tuple(labels.shape)}: convert them, or set config.problem_type to 'regression' or 'multi_label_classification'."
        )
    labels = labels.long()
    if values_are_readable(labels):
        wrong = labels[(labels != ignored) & ((labels < 0) | (labels >= num_labels))]
        if len(wrong):
            raise ValueError(
                f"`labels` must lie in [0, num_labels={num_labels}) or be {ignored} (no class), found "
                f"{wrong.unique().tolist()[:8]}: number the classes from 0, or give the model more num_labels."
            )
    return labels


def check_tensors(given: Mapping[str, object]) -> None:
    """Refuse inputs that are no tensors, such as the lists of a processor; None is none.

    Raises:
        ValueError: One is not.
    """
    for name, value in given.items():
        if value is not None and not isinstance(value, torch.Tensor):
            raise ValueError(
                f"`{name}` must be a tensor, got a {type(value).__name__}: call the processor with return_tensors='pt'."
            )


def check_given(given: dict[str, torch.Tensor | None], expected: tuple[str, ...], model: str) -> None:
    """Refuse other inputs than those that the model takes.

    Raises:
        ValueError: An input is missing, another one came, or one that is no tensor.
    """
    check_tensors(given)
    present = [name for name, tensor in given.items() if tensor is not None]
    if set(present) != set(expected):
        raise ValueError(f"{model} takes {' and '.join(expected)}, got {present or 'none of them'}.")


def check_signal(
    name: str, signal: torch.Tensor | None, num_channels: int, axes: tuple[str, ...], channels_last: bool = False
) -> torch.Tensor:
    """Refuse a signal that is not finite floating point of the shape (batch, `num_channels`, one size per name in `axes`).

    With `channels_last` the channels come after the axes.

    Raises:
        ValueError: Another number of axes, type or number of channels, or NaN or infinity, naming the rows.
    """
    if signal is None or signal.dim() != 2 + len(axes):
        names = [*axes, "channels"] if channels_last else ["channels", *axes]
        shape = f"(batch, {', '.join(names)})"
        raise ValueError(
            f"`{name}` must have the shape {shape}, got {None if signal is None else tuple(signal.shape)}."
        )
    if not signal.is_floating_point():
        raise ValueError(f"`{name}` must be floating point, got {signal.dtype}: scale and convert it first.")
    check_not_empty(name, signal)
    channels = signal.shape[-1 if channels_last else 1]
    if channels != num_channels:
        raise ValueError(
            f"`{name}` must have num_channels={num_channels} channels, got {channels} in {tuple(signal.shape)}."
        )
    if values_are_readable(signal) and not torch.isfinite(signal).all():
        rows = torch.nonzero(~torch.isfinite(signal).flatten(1).all(1)).flatten().tolist()
        raise ValueError(
            f"`{name}` must be finite, found NaN or infinity in rows {rows[:8]} of the batch: mark missing values with 0 in "
            "`observed_mask` (1 = observed)."
        )
    return signal


def check_image(pixel_values: torch.Tensor | None, num_channels: int, size: tuple[int, ...]) -> torch.Tensor:
    """Refuse images that are not finite floating point of the shape (batch, `num_channels`, *`size`).

    Raises:
        ValueError: `check_signal` refuses them, or they have another height or width.
    """
    signal = check_signal("pixel_values", pixel_values, num_channels, ("height", "width"))
    if tuple(signal.shape[2:]) != size:
        raise ValueError(
            f"`pixel_values` must have image_size={list(size)}, got {list(signal.shape[2:])}: resize it, or change the config."
        )
    return signal


def check_observed_values(name: str, observed_mask: torch.Tensor, signal: torch.Tensor) -> torch.Tensor | None:
    """`observed_mask` as bool; None where it is known to be all ones.

    Raises:
        ValueError: Another shape than the signal's, or (on the CPU) other values than 0 and 1.
    """
    if tuple(observed_mask.shape) != tuple(signal.shape):
        raise ValueError(
            f"`observed_mask` must have one entry per value of `{name}`, {tuple(signal.shape)}, got "
            f"{tuple(observed_mask.shape)}."
        )
    is_observed = observed_mask.bool()
    if not values_are_readable(observed_mask):
        return is_observed
    if observed_mask.dtype != torch.bool and not ((observed_mask == 0) | (observed_mask == 1)).all():
        other = observed_mask[(observed_mask != 0) & (observed_mask != 1)][0].item()
        raise ValueError(
            f"`observed_mask` must be 1 where a value was observed and 0 where it is missing, got {other}."
        )
    return None if is_observed.all() else is_observed


def check_observed_tokens(is_real: torch.Tensor) -> None:
    """Refuse rows without a token of which something was observed, (B, N) bool.

    Raises:
        ValueError: There are such rows (on the CPU).
    """
    if values_are_readable(is_real) and not is_real.any(1).all():
        rows = torch.nonzero(~is_real.any(1)).flatten().tolist()
        raise ValueError(
            f"`observed_mask` (1 = observed) marks nothing as observed in rows {rows[:8]} of the batch: drop such rows."
        )


def check_no_observed_mask(observed_mask: torch.Tensor | None, model: str) -> None:
    """Refuse an `observed_mask` for a model that reads ids alone.

    Raises:
        ValueError: There is one.
    """
    if observed_mask is not None:
        raise ValueError(
            f"{model} reads ids, which have no `observed_mask`: leave it out (padding is `attention_mask`)."
        )


def check_ids(input_ids: torch.Tensor, vocab_size: int, max_length: int) -> None:
    """Refuse ids other than integers (batch, 1 to `max_length`) in [0, `vocab_size`).

    Raises:
        ValueError: Another type, shape, length or range.
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
    check_not_empty("input_ids", input_ids)
    if values_are_readable(input_ids):
        low, high = int(input_ids.min()), int(input_ids.max())
        if low < 0 or high >= vocab_size:
            raise ValueError(f"`input_ids` must lie in [0, vocab_size={vocab_size}), got {low} to {high}.")


def check_attention_mask(attention_mask: torch.Tensor, shape: tuple[int, ...], unit: str) -> None:
    """Refuse a mask without one entry per `unit` ("token", "patch") and at least one real one in every row.

    Raises:
        ValueError: Another shape, or rows that are all padding.
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


def check_draw(name: str, draw: torch.Tensor | None, shape: tuple[int, ...]) -> None:
    """Refuse a random draw, if the caller passed any, of another shape.

    Raises:
        ValueError: Another shape.
    """
    if draw is not None and tuple(draw.shape) != shape:
        raise ValueError(f"`{name}` must have one draw per place, the shape {shape}, got {tuple(draw.shape)}.")


def check_explicit_mask(is_masked: torch.Tensor, shape: tuple[int, ...], is_real: torch.Tensor | None) -> torch.Tensor:
    """A mask that the caller passed, (B, N) bool without padding, that leaves every sample something to read.

    Raises:
        ValueError: Another shape, or rows in which everything is masked.
    """
    check_draw("is_masked", is_masked, shape)
    is_masked = is_masked.bool() if is_real is None else is_masked.bool() & is_real
    is_visible = ~is_masked if is_real is None else ~is_masked & is_real
    if values_are_readable(is_visible) and not is_visible.any(1).all():
        rows = torch.nonzero(~is_visible.any(1)).flatten().tolist()
        raise ValueError(f"`is_masked` hides every token in rows {rows[:8]} of the batch: leave at least one visible.")
    return is_masked


def check_query_mask(query_mask: torch.Tensor, shape: tuple[int, ...], is_real: torch.Tensor | None) -> torch.Tensor:
    """Queries that the caller chose, (B, L) bool: at least one in every row, and no padding.

    Args:
        query_mask: Mask (B, L), nonzero = chosen.
        shape: (B, L).
        is_real: (B, L) bool, False = padding; None when nothing is padded.

    Raises:
        ValueError: Another shape, or rows without a query or with padding among them.
    """
    check_draw("query_mask", query_mask, shape)
    chosen = query_mask.bool()
    if not values_are_readable(chosen):
        return chosen
    if not chosen.any(1).all():
        raise ValueError("`query_mask` must choose at least one query in every row: the set R is empty.")
    if is_real is not None and (chosen & ~is_real).any():
        rows = torch.nonzero((chosen & ~is_real).any(1)).flatten().tolist()
        raise ValueError(f"`query_mask` chooses padding in rows {rows[:8]} of the batch: choose among real tokens.")
    return chosen
