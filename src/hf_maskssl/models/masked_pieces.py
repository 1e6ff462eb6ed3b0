"""The masked pieces (subword tokens) of a batch of texts: their positions, their original ids, and the task of each."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .configuration_pos_minimax_bert import PoSMinimaxBertConfig
from .head_losses import IGNORED
from .input_checks import values_are_readable


@dataclass
class MaskedPieces:
    """The pieces of a batch that are scored, M of them.

    Attributes:
        positions: (M,) int64, places in the flattened (B * N).
        targets: (M,) int64, original ids; -100 where `masked_positions` only fill up a row, which is no piece.
        is_of_task: (M, T) bool, True = belongs to the task.
        query_ids: (B, K) int64, the places of each row that the encoder's last layer must compute, where these are known: the
            pieces, and before them 0 where [CLS] is read too.
        query_positions: (M,) int64, where the pieces lie in the flattened (B * K) of `query_ids`.
    """

    positions: torch.Tensor
    targets: torch.Tensor
    is_of_task: torch.Tensor
    query_ids: torch.Tensor | None = None
    query_positions: torch.Tensor | None = None


def masked_pieces(
    config: PoSMinimaxBertConfig,
    labels: torch.Tensor | None,
    tasks: torch.Tensor | None,
    masked_positions: torch.Tensor | None,
    shape: tuple[int, ...],
    reads_cls: bool,
) -> MaskedPieces:
    """Find the pieces that are scored.

    Call it before the encoder: without `masked_positions` the CPU waits for the GPU, whose queue is short then.

    Args:
        config: Configuration of the model.
        labels, tasks, masked_positions: Arguments of `PoSMinimaxBertForPreTraining.forward`.
        shape: (B, N) of the inputs.
        reads_cls: Whether the first place of each row is read beside the pieces.

    Raises:
        ValueError: Labels or tasks are missing or of another shape or type, a label is no id or has no task; or
            `masked_positions` are not those of the labels.
    """
    labels = check_labels(config, labels, tasks, shape)
    if masked_positions is not None:
        _check_positions(masked_positions, labels)
    if values_are_readable(labels):
        masked_positions = _positions_of(labels)
    elif masked_positions is None:  # the most pieces in a row would have to be read from the GPU as well
        flat = torch.nonzero(labels.flatten() != IGNORED).flatten()
        return MaskedPieces(flat, *_targets(config, flat, labels, tasks))
    places = masked_positions.clamp(min=0)  # (B, K)
    query_ids = F.pad(places, (1, 0)) if reads_cls else places  # (B, K) or (B, 1 + K)
    query_positions = torch.arange(query_ids.numel(), device=places.device).view_as(query_ids)[:, -places.shape[1] :]
    positions = places + shape[1] * torch.arange(shape[0], device=places.device)[:, None]  # (B, K)
    is_piece = masked_positions >= 0  # (B, K)
    if values_are_readable(labels):
        flat = positions[is_piece]  # (M,)
        return MaskedPieces(flat, *_targets(config, flat, labels, tasks), query_ids, query_positions[is_piece])
    flat = positions.flatten()  # (B * K,)
    targets, is_of_task = _targets(config, flat, labels, tasks)
    targets = targets.masked_fill(~is_piece.flatten(), IGNORED)
    return MaskedPieces(flat, targets, is_of_task & is_piece.view(-1, 1), query_ids, query_positions.flatten())


def check_labels(
    config: PoSMinimaxBertConfig, labels: torch.Tensor | None, tasks: torch.Tensor | None, shape: tuple[int, ...]
) -> torch.Tensor:
    """The labels, checked: they and the tasks must be given as int64 (B, N).

    Raises:
        ValueError: Labels or tasks are missing, or of another shape or type.
    """
    if labels is None:
        raise ValueError(
            "`labels` must be given to pre-train: (B, N), the original id of each masked piece, -100 elsewhere."
        )
    if tuple(labels.shape) != shape or labels.dtype != torch.int64:
        raise ValueError(
            f"`labels` must be int64 of the inputs' shape {shape}, got {labels.dtype} of {tuple(labels.shape)}."
        )
    if tasks is None and len(config.tasks) > 1:
        raise ValueError(
            "`tasks` must come with `labels`: (B, N) int64, the place of each masked piece's task in "
            f"{config.tasks}. Data of kind 'masked_text' gives them; for plain masked language modelling "
            "configure tasks=['mlm']."
        )
    if tasks is not None and (tasks.shape != labels.shape or tasks.dtype != torch.int64):
        raise ValueError(
            f"`tasks` must be int64 of the shape of `labels`, {tuple(labels.shape)}, got {tasks.dtype} of "
            f"{tuple(tasks.shape)}."
        )
    return labels


def _targets(
    config: PoSMinimaxBertConfig, flat: torch.Tensor, labels: torch.Tensor, tasks: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`targets` (M,) and `is_of_task` (M, T) of the pieces at the places (M,) of the flattened batch.

    Raises:
        ValueError: A label is no id or has no task.
    """
    targets, number = labels.flatten()[flat], len(config.tasks)
    is_id = (targets >= 0) & (targets < config.vocab_size)
    if values_are_readable(targets) and not is_id.all():
        raise ValueError(
            f"`labels` must be -100 or ids in [0, vocab_size={config.vocab_size}), got {int(targets[~is_id][0])}."
        )
    if tasks is None:
        return targets, torch.ones_like(targets, dtype=torch.bool)[:, None]
    own = tasks.flatten()[flat]  # (M,)
    if values_are_readable(own) and ((own < 0) | (own >= number)).any():
        place = int(flat[((own < 0) | (own >= number)).nonzero()[0, 0]])
        row, column = divmod(place, labels.shape[1])
        raise ValueError(
            f"`tasks` must be 0 to {number - 1} wherever there is a label, got {int(tasks[row, column])} in row {row}, "
            f"piece {column} of the batch: set its label to -100, or its task to that of its word."
        )
    return targets, own[:, None] == torch.arange(number, device=own.device)


def _positions_of(labels: torch.Tensor, at_least: int = 1) -> torch.Tensor:
    """(B, K) int64, the places in each row of labels (B, N) that are not -100, ascending, and then -1; K >= `at_least`."""
    is_masked = labels != IGNORED
    counts = is_masked.sum(1)
    width = max(at_least, int(counts.max()))
    positions = labels.new_full((len(labels), width), -1)
    positions[torch.arange(width) < counts[:, None]] = is_masked.nonzero()[:, 1]
    return positions


def _check_positions(masked_positions: torch.Tensor, labels: torch.Tensor) -> None:
    """Refuse `masked_positions` that are not those of the labels (B, N), which are well formed.

    Raises:
        ValueError: Another shape or type, or other places.
    """
    shape = tuple(masked_positions.shape)
    if len(shape) != 2 or shape[0] != len(labels) or shape[1] == 0 or masked_positions.dtype != torch.int64:
        raise ValueError(
            f"`masked_positions` must be int64 of the shape ({len(labels)}, K), K at least 1, got {masked_positions.dtype} of "
            f"{shape}."
        )
    if not values_are_readable(masked_positions):
        return
    expected = _positions_of(labels, at_least=shape[1])
    given = F.pad(masked_positions, (0, expected.shape[1] - shape[1]), value=-1)
    if not torch.equal(given, expected):
        row = int((given != expected).any(1).nonzero()[0, 0])
        raise ValueError(
            "`masked_positions` must be the places in each row where `labels` are not -100, ascending, and then -1, expected "
            f"{expected[row].tolist()} in row {row}, got {masked_positions[row].tolist()}: leave it out, or make it anew where "
            "labels were changed."
        )
