"""Losses and accuracies of masked words, by part of speech, over a whole split."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel
from transformers.models.bert.modeling_bert import BertOnlyMLMHead, BertPreTrainingHeads

from ..data.tables.labels import IGNORED_LABEL
from ..models.configuration_pos_minimax_bert import NEXT_SENTENCE
from .features import Collator, evaluation_mode

Scores = dict[str, dict[str, Any]]


@torch.no_grad()
def masked_losses(
    model: PreTrainedModel,
    rows: Dataset[dict[str, Any]],
    collator: Collator,
    tasks: Sequence[str],
    batch_size: int = 32,
    device: str | torch.device = "cpu",
) -> Scores:
    """Mean cross entropy and accuracy over all masked pieces of each task, with the masks that the rows have.

    Rows of `MaskedTextRows` on which nobody calls `set_epoch` have the same masks every time, so models are compared on the
    same words. The tasks come from the rows, not from the model's `config.tasks`: a model pre-trained with plain masked language
    modelling, or transformers' BERT, is scored on all parts of speech too.

    Args:
        model: BERT with a head for masked words, `cls.predictions`; it must be on `device`. It is scored in evaluation mode.
        rows: A split of `PreparedData` of kind "masked_text".
        collator: List of rows -> batch with `labels` and `tasks`.
        tasks: Names of the tasks in the order of the rows' ids: `config.tasks` of the model for which the rows were prepared.
        batch_size: Rows of a batch; does not change the result.
        device: Device to which batches are moved.

    Returns:
        Task -> `loss` (mean, natural logarithm), `accuracy` and `count`, the number of masked pieces; loss and accuracy are
        None where that is 0. Where the rows are pairs and the model has a head for them, `next_sentence` too.

    Raises:
        ValueError: The model has no such head, there is no row, a batch lacks labels or tasks, or a label has none of `tasks`.
    """
    encoder, heads = model.base_model, dict(model.named_children()).get("cls")
    if not isinstance(heads, BertOnlyMLMHead | BertPreTrainingHeads):
        raise ValueError(
            f"{type(model).__name__} has no head for masked words, `cls.predictions`: load the pre-training model."
        )
    sums = torch.zeros(3, len(tasks), dtype=torch.float64)  # losses, right predictions, pieces
    sentence_sums = torch.zeros(3, dtype=torch.float64)
    num_rows = 0
    # A loader draws a seed for its workers: from a generator of its own.
    loader = DataLoader(rows, batch_size=batch_size, collate_fn=collator, generator=torch.Generator())
    with evaluation_mode(model):
        for batch in loader:
            num_rows += len(batch["input_ids"])
            _require(batch, tasks)
            batch = {name: values.to(device) for name, values in batch.items()}
            names = ("input_ids", "attention_mask", "token_type_ids")
            encoded = encoder(**{name: batch[name] for name in names if name in batch})
            is_masked = batch["labels"] != IGNORED_LABEL
            logits = heads.predictions(encoded.last_hidden_state[is_masked])
            own = batch["tasks"][is_masked].cpu()
            for row, values in enumerate(_terms(logits, batch["labels"][is_masked])):
                sums[row].index_add_(0, own, values)
            if "next_sentence_label" in batch and isinstance(heads, BertPreTrainingHeads):
                labels = batch["next_sentence_label"]
                is_known = labels != IGNORED_LABEL
                logits = heads.seq_relationship(encoded.pooler_output[is_known])
                sentence_sums += _terms(logits, labels[is_known]).sum(1)
    if num_rows == 0:
        raise ValueError("there are no rows to score: the split is empty")
    scores = {task: _score(column) for task, column in zip(tasks, sums.unbind(1), strict=True)}
    return scores | ({NEXT_SENTENCE: _score(sentence_sums)} if sentence_sums[2] else {})


def _require(batch: Mapping[str, torch.Tensor], tasks: Sequence[str]) -> None:
    missing = [name for name in ("labels", "tasks") if name not in batch]
    if missing:
        raise ValueError(f"the rows have no {' and no '.join(missing)}: score rows of data.kind 'masked_text'")
    own = batch["tasks"][batch["labels"] != IGNORED_LABEL]
    outside = own[(own < 0) | (own >= len(tasks))]
    if len(outside):
        raise ValueError(
            f"a masked piece is of task {int(outside[0])}, expected 0 to {len(tasks) - 1}, the places of {list(tasks)}: give "
            "the tasks that the rows were prepared with"
        )


def _terms(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(3, M) float64 of M predictions: cross entropy, 1 where the likeliest is right, 1."""
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    is_right = logits.argmax(-1) == targets
    return torch.stack([losses, is_right.to(losses.dtype), torch.ones_like(losses)]).cpu().double()


def _score(sums: torch.Tensor) -> dict[str, Any]:
    """Means of (3,) sums of `_terms`."""
    loss, right, count = sums.tolist()
    return {"loss": loss / count if count else None, "accuracy": right / count if count else None, "count": int(count)}
