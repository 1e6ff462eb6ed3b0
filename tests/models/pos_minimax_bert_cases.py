"""Small PoS-BERTs with every task balancing and place of next sentence prediction, with batches, for the tests of this folder."""

from typing import Any

import torch

from hf_maskssl import PoSMinimaxBertConfig, PoSMinimaxBertForMaskedLM, PoSMinimaxBertForPreTraining
from tiny_models import SIZES

LENGTH = 11
SMALL: dict[str, Any] = SIZES["pos_minimax_bert"] | {
    # Not in the order of PARTS_OF_SPEECH; nothing in a batch is a determiner.
    "tasks": ["noun", "verb", "determiner", "adverb"],
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.3,
}
BALANCERS: dict[str, dict[str, Any]] = {
    "none": {"task_balancing": "none"},
    "minimax": {"task_balancing": "minimax", "task_balancing_options": {"alpha": 3.0}},
    "momentum": {"task_balancing": "minimax", "task_balancing_options": {"alpha": 3.0, "momentum": 0.5}},
    "uncertainty": {"task_balancing": "uncertainty"},
    "gradnorm": {"task_balancing": "gradnorm"},
    "dwa": {"task_balancing": "dwa", "task_balancing_options": {"interval": 1, "temperature": 0.5}},
}
CASES: dict[str, dict[str, Any]] = {
    **BALANCERS,  # next sentence prediction beside them, and inside:
    **{f"{name}-inside": {**fields, "next_sentence_prediction": "inside"} for name, fields in BALANCERS.items()},
    "minimax-alone": {**BALANCERS["minimax"], "next_sentence_prediction": "none"},
    "plain": {"tasks": ["mlm"], "task_balancing": "none"},
    "guided": {**BALANCERS["minimax"], "masking": "guided", "num_masked_per_query": 1, "mask_schedule": "mix"},
    "guided-plain": {"tasks": ["mlm"], "task_balancing": "none", "masking": "guided"},
}


def small_config(case: str, **changes: Any) -> PoSMinimaxBertConfig:
    return PoSMinimaxBertConfig(**(SMALL | CASES[case] | changes))


def small_model(case: str, seed: int = 0, kind: Any = PoSMinimaxBertForPreTraining, **changes: Any) -> Any:
    """With every weight, and what the balancer remembers, away from its initial value: nothing is hidden by a zero."""
    torch.manual_seed(seed)
    model = kind(small_config(case, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.startswith("balancer.") and buffer.is_floating_point():
                buffer.add_(0.3 + torch.rand_like(buffer))
    return model


def masked_lm(case: str, **changes: Any) -> PoSMinimaxBertForMaskedLM:
    return small_model(case, kind=PoSMinimaxBertForMaskedLM, **changes)


def make_batch(case: str, batch_size: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    """Pairs of segments of different lengths; every task but determiners, in rows of few and of many masked pieces.

    Row 1 has no masked piece, and nobody knows whether the segments of row 2 follow each other.
    """
    generator = torch.Generator().manual_seed(seed)
    config = small_config(case)
    shape = (batch_size, LENGTH)
    places = torch.arange(LENGTH)
    lengths = torch.tensor([LENGTH, LENGTH - 4, LENGTH - 2, 5] * batch_size)[:batch_size, None]
    ids = torch.randint(5, config.vocab_size, shape, generator=generator)
    is_text = (places > 0) & (places < lengths - 1)
    rates = torch.tensor([0.8, 0.0, 0.5, 0.9] * batch_size)[:batch_size, None]
    is_masked = is_text & (torch.rand(shape, generator=generator) < rates)
    own = torch.tensor([0, 1, 3, 0])[torch.randint(0, 4, shape, generator=generator)].clamp(max=len(config.tasks) - 1)
    words = torch.where(is_text, (places + 1) // 2, -100)
    if config.wants_words:  # of two pieces, but the last of some rows
        first = torch.where(places > 0, (places - 1) // 2 * 2 + 1, 0).expand(shape)
        is_masked, own = is_masked.gather(1, first) & is_text, own.gather(1, first)
    batch = {
        "input_ids": torch.where(places < lengths, torch.where(is_masked, 4, ids), 0),
        "attention_mask": (places < lengths).long(),
        "token_type_ids": ((places >= lengths // 2) & (places < lengths)).long(),
        "labels": torch.where(is_masked, ids, -100),
        # Words that are not masked have a task too, and special tokens none.
        "tasks": torch.where(is_text, own, -100),
    }
    if config.wants_words:
        batch["words"] = words
    if config.next_sentence_prediction != "none":
        batch["next_sentence_label"] = torch.tensor([0, 1, -100, 1, 1, 0, -100, 0] * batch_size)[:batch_size]
    return batch


def with_positions(batch: dict[str, torch.Tensor], width: int = 8) -> dict[str, torch.Tensor]:
    """The batch as the collator gives it: with the places of masked pieces, -1 after them."""
    rows = [(row != -100).nonzero().flatten().tolist() for row in batch["labels"]]
    return {**batch, "masked_positions": torch.tensor([row + [-1] * (width - len(row)) for row in rows])}


def make_draws(case: str, batch_size: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    """Those of guided masking; else none: what is masked comes with the batch."""
    if not small_config(case).wants_words:
        return {}
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(batch_size, LENGTH, generator=generator) for name in ("noise", "query_noise")}


LABELS = ("labels", "tasks", "next_sentence_label", "words")


@torch.no_grad()
def slow_guided(
    model: Any, batch: dict[str, torch.Tensor], draws: dict[str, torch.Tensor], random_share: float = 0.0
) -> dict[str, torch.Tensor]:
    """The batch with its masks moved, word by word: `mask_sampling_pos_minimax_bert.py` with lists and loops."""
    config = model.config
    ids, labels = batch["input_ids"].clone(), batch["labels"].clone()
    originals = torch.where(labels == -100, ids, labels)
    states = model.bert.embeddings(originals, batch["token_type_ids"])
    layer = model.bert.encoder.layer[0].attention.self
    for row in range(len(ids)):
        length = int(batch["attention_mask"][row].sum())
        words: dict[int, list[int]] = {}
        for place, word in enumerate(batch["words"][row].tolist()):
            if word >= 0:
                words.setdefault(word, []).append(place)
        received = torch.zeros(length)
        candidates = sorted((float(draws["query_noise"][row, p]), p) for pieces in words.values() for p in pieces)
        num_masked = int((labels[row] != -100).sum())
        asking = candidates[: max(1, round(num_masked / config.num_masked_per_query))]
        heads = layer.num_attention_heads
        for query, key in zip(
            *(part(states[row, :length]).chunk(heads, -1) for part in (layer.query, layer.key)), strict=True
        ):
            attention = (query @ key.T / query.shape[-1] ** 0.5).softmax(-1)
            received = received + sum(attention[place] for _, place in asking) / heads
        groups: dict[tuple[int, int], list[list[int]]] = {}
        for pieces in words.values():
            groups.setdefault((int(batch["tasks"][row, pieces[0]]), len(pieces)), []).append(pieces)
        for group in groups.values():
            drawn = [pieces for pieces in group if batch["labels"][row, pieces[0]] != -100]
            chosen = sorted(_slow_choice(config, group, drawn, received, draws["noise"][row], random_share))
            olds, news = sum(drawn, []), sum(chosen, [])
            ids[row, olds], labels[row, olds] = originals[row, olds], -100
            for old, new in zip(olds, news, strict=True):
                found = int(batch["input_ids"][row, old])
                ids[row, new] = originals[row, new] if found == int(originals[row, old]) else found
                labels[row, new] = originals[row, new]
    return {**batch, "input_ids": ids, "labels": labels}


def _slow_choice(
    config: PoSMinimaxBertConfig,
    group: list[list[int]],
    drawn: list[list[int]],
    received: torch.Tensor,
    noise: torch.Tensor,
    random_share: float,
) -> list[list[int]]:
    """The words of a group that are masked, as many as are drawn."""
    attended = sorted(group, key=lambda pieces: -float(received[pieces].sum()))
    by_chance = sorted(group, key=lambda pieces: (pieces not in drawn, -float(noise[pieces[0]])))
    start = config.mask_schedule_start * random_share
    if config.mask_schedule == "widen":
        wanted = len(drawn) + (config.mask_schedule_start * len(group) - len(drawn)) * random_share
        candidates = attended[: max(len(drawn), round(wanted))]
        return [pieces for pieces in by_chance if pieces in candidates][: len(drawn)]
    number = len(drawn)
    if config.mask_schedule == "mix":
        number = sum(float(noise[pieces[0]]) < 1 - start for pieces in drawn)
    guided = attended[:number]
    return guided + [pieces for pieces in by_chance if pieces not in guided][: len(drawn) - number]


def without_labels(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch.items() if name not in LABELS}


def for_masked_lm(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch.items() if name != "next_sentence_label"}


def as_bert(model: Any, kind: Any) -> Any:
    """transformers' own model with these weights."""
    bert = kind(model.config).to(model.dtype).eval()
    missing = bert.load_state_dict(model.state_dict(), strict=False).missing_keys
    assert not missing
    return bert
