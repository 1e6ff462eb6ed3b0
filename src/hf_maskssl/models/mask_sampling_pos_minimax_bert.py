"""PoS-BERT's guided choice of masked words: SMA's (Xie et al. 2024, Eqs. 3-5), among words of one part of speech and length.

The batch comes with words masked at random. Each of them gives its place to the word of the same sequence, task and number of
pieces that the first layer attends to most. So a sequence keeps the number of masked pieces of every task, which the balancing
of tasks counts, and that of words; and the replacements ([MASK], a random piece, the piece itself) go with the words.

B is the batch, N its places.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from .configuration_pos_minimax_bert import PoSMinimaxBertConfig
from .guided_masking import GuidedMasking, NumMasked
from .input_checks import values_are_readable
from .masked_pieces import IGNORED, check_labels
from .masking import uniform_draws

# Arguments of a pre-training model that say what is masked.
MASKS = ("labels", "tasks", "masked_positions", "words", "noise", "query_noise")


@dataclass
class MaskedText:
    """Masked words of a batch, in tensors (B, N) int64.

    Attributes:
        input_ids: The pieces, with words hidden.
        labels: The original id of each masked piece, -100 elsewhere.
        tasks: The place of each piece's task in `config.tasks`; read where there is a word.
        words: The number, below N, of each piece's word in its row; below 0 where it has none that may be masked.
        num_tasks: Number of tasks.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    tasks: torch.Tensor
    words: torch.Tensor
    num_tasks: int

    @property
    def is_masked(self) -> torch.Tensor:
        """(B, N) bool."""
        return self.labels != IGNORED

    @property
    def originals(self) -> torch.Tensor:
        """(B, N) int64, the pieces without masks."""
        return torch.where(self.is_masked, self.labels, self.input_ids)


def masked_text(
    config: PoSMinimaxBertConfig,
    inputs: Mapping[str, torch.Tensor | None],
    masks: Mapping[str, torch.Tensor | None],
) -> MaskedText:
    """A batch that is masked at random.

    Args:
        config: Configuration of the model.
        inputs: The encoder's inputs.
        masks: Those of `MASKS` that there are.

    Raises:
        ValueError: No ids, or labels, tasks or words that are missing, of another shape or type, or do not fit each other.
    """
    input_ids, words = inputs.get("input_ids"), masks.get("words")
    if input_ids is None or words is None:
        missing = "words" if words is None else "input_ids"
        raise ValueError(
            f"`{missing}` must be given with `labels`, because `masking` is 'guided': data of kind 'masked_text' gives it."
        )
    labels, tasks = masks.get("labels"), masks.get("tasks")
    labels = check_labels(config, labels, tasks, tuple(input_ids.shape))
    text = MaskedText(
        input_ids, labels, torch.zeros_like(labels) if tasks is None else tasks, words, len(config.tasks)
    )
    _check_words(text)
    return text


def check_not_guided(config: PoSMinimaxBertConfig, masks: Mapping[str, torch.Tensor | None]) -> None:
    """Refuse what has no effect.

    Raises:
        ValueError: Words or draws, which guided masking alone reads.
    """
    given = [name for name in ("words", "noise", "query_noise") if masks.get(name) is not None]
    if given:
        raise ValueError(f"`{given[0]}` is for masking 'guided', but `masking` is '{config.masking}': leave it out.")


@torch.no_grad()
def guided_text(
    guide: GuidedMasking,
    encoder: Callable[..., object],
    text: MaskedText,
    inputs: Mapping[str, torch.Tensor | None],
    draws: Mapping[str, torch.Tensor | None],
) -> MaskedText:
    """Move the masks of a batch to the words that the first layer attends to.

    Args:
        guide: The model's choice of queries and its schedule.
        encoder: The model's encoder.
        text: Batch masked at random.
        inputs: The encoder's other inputs; of the ids the unmasked ones are read.
        draws: (B, N) uniform draws, made here where absent: `noise` of the schedules, and `query_noise`; the pieces of words with
            the smallest `query_noise` are the queries.

    Raises:
        ValueError: Draws of another shape, or inputs that the encoder refuses.
    """
    shape = text.words.shape
    names = ("noise", "query_noise")
    noise, query_noise = (uniform_draws(name, draws.get(name), shape, text.words.device) for name in names)
    num_masked = NumMasked(text.is_masked.sum(1), shape[1])
    chosen = guide.queries(query_noise, num_masked, text.words >= 0)
    received = guide.attention(encoder, **{**inputs, "input_ids": text.originals}, chosen=chosen)
    groups = WordGroups.of(text)
    return _moved(text, groups, guided_words(guide, text, groups, received, noise))


def guided_words(
    guide: GuidedMasking, text: MaskedText, groups: "WordGroups", received: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """The pieces to mask: of each group, the words of one row, task and length, as many words as are masked at random.

    Where the schedule leaves words to chance, those come first that the batch has masked, which were drawn at random: at c = 1
    of a schedule that starts from 1 nothing moves.

    Args:
        guide: The schedule. "mix" leaves each masked word where it is with probability start * c. "widen" takes words among the
            share m + (start - m) c of their group that is attended to most, m being the group's share of masked words.
        text: Batch masked at random.
        groups: Groups of its words.
        received: (B, N) attention; a word receives the sum of its pieces'.
        noise: (B, N) uniform draws, of which those at the first pieces of words are read.

    Returns:
        (B, N) bool, True = masked.
    """
    is_first = groups.is_first
    drawn = is_first & text.is_masked
    wanted = groups.count(drawn)
    # A GPU adds in no fixed order: summed in double precision and rounded to single, the scores do not depend on it.
    rank = groups.ranks(groups.word_sums(received.double()).float())
    start, share = guide.config.mask_schedule_start, guide.random_share.float()
    if guide.config.mask_schedule == "none":
        taken = rank < wanted
    elif guide.config.mask_schedule == "mix":
        moves = drawn & (noise < 1 - start * share)
        is_guided = rank < groups.count(moves)
        taken = groups.ranks(4.0 * is_guided + 2.0 * drawn + noise) < wanted
    else:
        num_candidates = (wanted + (start * groups.count(is_first) - wanted) * share).round().maximum(wanted.float())
        taken = groups.ranks((2.0 * drawn + noise).masked_fill(rank >= num_candidates, -1.0)) < wanted
    return (taken & is_first).gather(1, groups.firsts) & (text.words >= 0)


@dataclass
class WordGroups:
    """Words of a row that have one task and one number of pieces, by their first pieces.

    Attributes:
        slots: (B, N) int64, the number of each piece's word; N where it has none.
        firsts: (B, N) int64, the place of the first piece of each piece's word; 0 where it has none.
        is_first: (B, N) bool, True = the first piece of a word.
        groups: (B, N) int64, the group of each piece's word, below `num_groups`, which is the group of all pieces without word.
        num_groups: A bound that follows from the shapes alone.
    """

    slots: torch.Tensor
    firsts: torch.Tensor
    is_first: torch.Tensor
    groups: torch.Tensor
    num_groups: int

    @classmethod
    def of(cls, text: MaskedText) -> "WordGroups":
        """The groups of a batch."""
        words, num_tokens = text.words, text.words.shape[1]
        slots = torch.where(words < 0, num_tokens, words)
        places = torch.arange(num_tokens, device=words.device).expand_as(words)
        table = slots.new_full((len(slots), num_tokens + 1), num_tokens)
        firsts = table.scatter_reduce(1, slots, places, "amin").gather(1, slots).masked_fill(words < 0, 0)
        lengths = torch.zeros_like(table).scatter_add(1, slots, torch.ones_like(slots)).gather(1, slots)
        num_groups = text.num_tasks * (num_tokens + 1)
        groups = torch.where(words < 0, num_groups, text.tasks * (num_tokens + 1) + lengths)
        return cls(slots, firsts, (places == firsts) & (words >= 0), groups, num_groups)

    def word_sums(self, values: torch.Tensor) -> torch.Tensor:
        """(B, N) values -> (B, N), at each piece the sum over its word."""
        sums = values.new_zeros(len(values), values.shape[1] + 1)
        return sums.scatter_add(1, self.slots, values).gather(1, self.slots)

    def count(self, is_counted: torch.Tensor) -> torch.Tensor:
        """(B, N) bool -> (B, N) int64, at each piece the number of those of its group."""
        sums = self.groups.new_zeros(len(is_counted), self.num_groups + 1)
        return sums.scatter_add(1, self.groups, is_counted.long()).gather(1, self.groups)

    def ranks(self, scores: torch.Tensor) -> torch.Tensor:
        """(B, N) -> (B, N) int64, at the first piece of each word its place in its group, the largest score at 0, of equals the
        first; elsewhere numbers without meaning."""
        groups = torch.where(self.is_first, self.groups, self.num_groups + 1)
        by_score = scores.argsort(dim=1, descending=True, stable=True)
        order = by_score.gather(1, groups.gather(1, by_score).argsort(dim=1, stable=True))
        ordered = groups.gather(1, order)
        places = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
        begins = F.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True)
        starts = torch.where(begins, places, 0).cummax(dim=1).values
        return torch.empty_like(order).scatter_(1, order, places - starts)


def _moved(text: MaskedText, groups: WordGroups, is_masked: torch.Tensor) -> MaskedText:
    """The batch with masks at (B, N) bool, of whole words: each takes the replacements of a word of its group."""
    # Sorted by group and place, the masked pieces before and after stand side by side.
    before, after = (
        groups.groups.masked_fill(~mask, groups.num_groups + 1).argsort(dim=1, stable=True)
        for mask in (text.is_masked, is_masked)
    )
    source = torch.empty_like(before).scatter_(1, after, before)
    replacements, originals = text.input_ids.gather(1, source), text.originals
    stays = replacements == text.labels.gather(1, source)
    input_ids = torch.where(is_masked & ~stays, replacements, originals)
    labels = originals.masked_fill(~is_masked, IGNORED)
    return replace(text, input_ids=input_ids, labels=labels)


def positions_of(is_masked: torch.Tensor, width: int) -> torch.Tensor:
    """(B, N) bool -> (B, width) int64, the places of each row's masked pieces, ascending, and then -1; none has more."""
    places = (~is_masked).to(torch.int8).argsort(dim=1, stable=True)[:, :width]
    places = F.pad(places, (0, width - places.shape[1]))
    is_used = torch.arange(width, device=places.device) < is_masked.sum(1, keepdim=True)
    return places.masked_fill(~is_used, -1)


def _check_words(text: MaskedText) -> None:
    """Refuse words that are not those of the batch.

    Raises:
        ValueError: Another shape or type, numbers that are too large, a word masked in part or of several tasks, or a masked
            piece without a word.
    """
    words, shape = text.words, tuple(text.labels.shape)
    if tuple(words.shape) != shape or words.dtype != torch.int64:
        raise ValueError(
            f"`words` must be int64 of the inputs' shape {shape}, got {words.dtype} of {tuple(words.shape)}."
        )
    if not values_are_readable(words):
        return
    if int(words.max()) >= shape[1]:
        raise ValueError(f"`words` must be below the number of pieces, {shape[1]}, got {int(words.max())}.")
    is_word = words >= 0
    is_unknown = is_word & ((text.tasks < 0) | (text.tasks >= text.num_tasks))
    if is_unknown.any():
        row, place = is_unknown.nonzero()[0].tolist()
        raise ValueError(
            f"`tasks` must be 0 to {text.num_tasks - 1} wherever `words` has a word, got {int(text.tasks[row, place])} in row "
            f"{row}, piece {place}."
        )
    if (text.is_masked & ~is_word).any():
        row, place = (text.is_masked & ~is_word).nonzero()[0].tolist()
        raise ValueError(
            f"`words` must number the word of every masked piece, got {int(words[row, place])} in row {row}, piece {place}."
        )
    firsts = WordGroups.of(text).firsts
    for name, values in (("labels", text.is_masked), ("tasks", text.tasks)):
        differs = is_word & (values != values.gather(1, firsts))
        if differs.any():
            row, place = differs.nonzero()[0].tolist()
            raise ValueError(
                f"`{name}` must be alike in all pieces of a word, which is masked as a whole: they differ in row {row}, piece "
                f"{place}, from the first piece of word {int(words[row, place])}."
            )
