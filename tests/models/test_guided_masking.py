"""SMA's guided masking in models of other methods: MetaMAE's tokens and PoS-BERT's words, against slow loops."""

from typing import Any

import metamae_cases
import pos_minimax_bert_cases as pos_cases
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_maskssl import MetaMAEForPretraining
from hf_maskssl.models.guided_masking import random_share_at
from hf_maskssl.models.layers import enable_checkpointing
from hf_maskssl.models.mask_sampling_pos_minimax_bert import MASKS, positions_of
from hf_maskssl.models.masking import num_visible_tokens

GUIDED: dict[str, Any] = {"masking": "guided", "num_masked_per_query": 2}
SCHEDULES = [("none", 1.0, 0.0), ("mix", 0.8, 0.6), ("widen", 0.9, 0.7)]
Batch = dict[str, torch.Tensor]


def schedule(kind: str, start: float) -> dict[str, Any]:
    return {"mask_schedule": kind, "mask_schedule_start": start}


def shared(model: Any, random_share: float) -> Any:
    """The model at c = `random_share` of its schedule."""
    guide = model.mask_sampler.guide if isinstance(model, MetaMAEForPretraining) else model.guide
    guide.random_share.fill_(random_share)
    return model


# MetaMAE -----------------------------------------------------------------------------------------------------------


def real_tokens(model: MetaMAEForPretraining, batch: Batch) -> list[list[int]]:
    names = ("input_ids", "input_values", "pixel_values", "attention_mask", "observed_mask")
    tokens = model.metamae.embeddings.tokenize(*(batch.get(name) for name in names))
    is_real = torch.ones(tokens.shape) if tokens.is_real is None else tokens.is_real
    return [torch.nonzero(row).flatten().tolist() for row in is_real]


@torch.no_grad()
def slow_masks(model: MetaMAEForPretraining, batch: Batch, draws: Batch, random_share: float) -> list[set[int]]:
    """Row by row and head by head: queries by their draws, a softmax over real tokens and the class token, the largest sums."""
    encoder, config = model.metamae, model.config
    names = ("input_ids", "input_values", "pixel_values", "attention_mask", "observed_mask")
    hidden = encoder.embeddings(encoder.embeddings.tokenize(*(batch.get(name) for name in names)))
    block = encoder.layers[0]
    query, key, _ = block.attention.qkv(block.attention_norm(hidden)).chunk(3, dim=-1)
    masks = []
    for row, real in enumerate(real_tokens(model, batch)):
        count = len(real) - num_visible_tokens(len(real), config.mask_ratio)
        asking = sorted(real, key=lambda place: float(draws["query_noise"][row, place]))
        asking = asking[: max(1, min(round(count / config.num_masked_per_query), len(real)))]
        received = dict.fromkeys(real, 0.0)
        heads = (part[row].chunk(config.num_attention_heads, -1) for part in (query, key))
        for queries, keys in zip(*heads, strict=True):
            for place in asking:
                scores = torch.stack([queries[place + 1] @ keys[other] for other in [0, *(p + 1 for p in real)]])
                weights = (scores / queries.shape[-1] ** 0.5).softmax(0)[1:]
                for other, weight in zip(real, weights.tolist(), strict=True):
                    received[other] += weight
        attended = sorted(real, key=lambda place: -received[place])
        by_chance = sorted(real, key=lambda place: -float(draws["noise"][row, place]))
        start, ratio = config.mask_schedule_start, count / len(real)
        if config.mask_schedule == "widen":
            share = ratio + (start - ratio) * random_share
            candidates = attended[: max(count, round(len(real) * share))]
            masks.append(set([place for place in by_chance if place in candidates][:count]))
            continue
        guided = attended[: round(count * (1 - start * random_share)) if config.mask_schedule == "mix" else count]
        others = [place for place in by_chance if place not in guided]
        masks.append({*guided, *others[: count - len(guided)]})
    return masks


@pytest.mark.parametrize("case", metamae_cases.CASES)
@pytest.mark.parametrize(("kind", "start", "random_share"), SCHEDULES)
def test_metamaes_masks_are_the_tokens_that_queries_attend_to(
    case: str, kind: str, start: float, random_share: float
) -> None:
    model = metamae_cases.small_model(case, **GUIDED, **schedule(kind, start), initializer_range=0.5)
    shared(model, random_share)
    batch, draws = metamae_cases.make_batch(case), metamae_cases.make_draws(case)
    found = model(**batch, **draws).mask
    assert [set(row.nonzero().flatten().tolist()) for row in found] == slow_masks(model, batch, draws, random_share)
    masking = {name: value for name, value in draws.items() if name != "nearby_noise"}
    assert torch.equal(found.bool(), model.sample_mask(**batch, **masking))


@settings(max_examples=25, deadline=None)
@given(
    case=st.sampled_from(["padded_tokens", "holed_series", "vision_language", "image"]),
    ratio=st.floats(0.3, 0.7),
    kind=st.sampled_from(["none", "mix", "widen"]),
    random_share=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_as_many_tokens_are_masked_as_at_random(
    case: str, ratio: float, kind: str, random_share: float, seed: int
) -> None:
    fields = {"mask_ratio": ratio, "mask_schedule_start": 0.9}
    batch, draws = metamae_cases.make_batch(case, seed=seed), metamae_cases.make_draws(case, seed=seed)
    del draws["nearby_noise"]
    model = shared(metamae_cases.small_model(case, **GUIDED, **fields, mask_schedule=kind), random_share)
    found = model.sample_mask(**batch, **draws)
    expected = metamae_cases.small_model(case, **fields).sample_mask(**batch, **draws)
    assert torch.equal(found.sum(1), expected.sum(1))
    for mask, real in zip(found, real_tokens(model, batch), strict=True):
        assert set(mask.nonzero().flatten().tolist()) <= set(real)


@pytest.mark.parametrize("case", ["padded_tokens", "holed_series", "vision_language", "mixed"])
def test_a_schedule_that_begins_at_random_begins_with_the_masks_of_random_masking(case: str) -> None:
    batch, draws = metamae_cases.make_batch(case), metamae_cases.make_draws(case)
    expected = metamae_cases.small_model(case)(**batch, **draws)
    for kind in ("mix", "widen"):
        model = metamae_cases.small_model(case, **GUIDED, mask_schedule=kind)
        model.set_training_progress(0.0)
        outputs = model(**batch, **draws)
        assert torch.equal(outputs.mask, expected.mask)
        torch.testing.assert_close(outputs.loss, expected.loss)


def test_what_is_masked_or_padded_guides_and_reaches_nothing_else() -> None:
    """With the mask that was chosen, and the support set's draws at 1, what lies under it has no way into the latents."""
    model = metamae_cases.small_model("padded_tokens", **GUIDED)
    batch, draws = metamae_cases.make_batch("padded_tokens"), metamae_cases.make_draws("padded_tokens")
    draws["nearby_noise"] = torch.ones_like(draws["nearby_noise"])
    found = model(**batch, **draws)
    is_padding = batch["attention_mask"] == 0
    garbage = {**batch, "input_ids": batch["input_ids"].masked_fill(is_padding, 3)}
    assert torch.equal(model(**garbage, **draws).mask, found.mask)
    garbage = {**batch, "input_ids": torch.where(found.mask.bool() | is_padding, 5, batch["input_ids"])}
    again = model(**garbage, is_masked=found.mask, nearby_noise=draws["nearby_noise"])

    def sorted_rows(latents: torch.Tensor) -> torch.Tensor:  # visible tokens come in another order
        return latents[:, 1:].sum(-1).sort(dim=1).values

    num_visible = (~found.mask.bool() & ~is_padding).sum(1)
    for row, count in enumerate(num_visible.tolist()):
        torch.testing.assert_close(
            sorted_rows(found.adapted_latents[row : row + 1, : 1 + count]),
            sorted_rows(again.adapted_latents[row : row + 1, : 1 + count]),
        )


def test_a_guided_model_has_the_weights_of_a_random_one() -> None:
    guided, plain = metamae_cases.small_model("image", **GUIDED), metamae_cases.small_model("image")
    assert guided.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(guided.parameters(), plain.parameters(), strict=True))
    words, others = pos_cases.small_model("guided"), pos_cases.small_model("minimax")
    assert words.state_dict().keys() == others.state_dict().keys()


@pytest.mark.parametrize("objective", ["mae", "capri", "shed"])
def test_dabs_corrupts_what_the_first_layer_attends_to(objective: str) -> None:
    fields = {"objective": objective, "contrastive_weight": 0.0, "corruption_rate": 0.4}
    batch, draws = metamae_cases.make_batch("padded_tokens"), metamae_cases.make_draws("padded_tokens")
    at_random = metamae_cases.small_model("padded_tokens", **fields)(**batch, noise=draws["noise"]).mask
    model = metamae_cases.small_model("padded_tokens", **fields, **GUIDED)
    given_draws = {name: draws[name] for name in ("noise", "query_noise")}
    found = model(**batch, **given_draws).mask
    assert torch.equal(found.sum(1), at_random.sum(1)) and not torch.equal(found, at_random)
    other = {**given_draws, "noise": 1 - given_draws["noise"]}
    assert torch.equal(model(**batch, **other).mask, found)  # which are chosen is not left to chance


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 1.0])
def test_progress_moves_the_share_of_chance(fraction: float) -> None:
    models = (
        metamae_cases.small_model("image", **GUIDED, mask_schedule="mix", mask_schedule_fraction=0.5),
        pos_cases.small_model("guided", mask_schedule_fraction=0.5),
    )
    for model in models:
        model.set_training_progress(fraction)
        guide = model.mask_sampler.guide if isinstance(model, MetaMAEForPretraining) else model.guide
        assert float(guide.random_share) == pytest.approx({0.0: 1.0, 0.2: 0.6545085, 0.5: 0.0, 1.0: 0.0}[fraction])
        assert random_share_at(model.config, fraction) == pytest.approx(float(guide.random_share))


GUIDED_MODELS = [(metamae_cases, "padded_tokens", GUIDED), (metamae_cases, "mixed", GUIDED), (pos_cases, "guided", {})]


@pytest.mark.parametrize(("kit", "case", "fields"), GUIDED_MODELS)
def test_recomputed_layers_and_recorded_states_change_nothing(kit: Any, case: str, fields: dict[str, Any]) -> None:
    """The pass that guides runs the first layer alone: it is not recomputed, and it records nothing."""
    batch = kit.make_batch(case) | kit.make_draws(case)
    models = [kit.small_model(case, **fields).train() for _ in range(2)]
    enable_checkpointing(models[1])
    for model in models:
        model(**batch).loss.backward()
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.allclose(one.grad, other.grad, rtol=1e-5, atol=1e-7)
    states = models[0](**batch, output_hidden_states=True).hidden_states
    models[0].config.output_hidden_states = True
    assert len(states) == len(models[0](**batch).hidden_states) == models[0].config.num_hidden_layers + 1
    assert all(state.dim() == 3 for state in states)


# PoS-BERT ----------------------------------------------------------------------------------------------------------


def moved(model: Any, batch: Batch, draws: Batch) -> Batch:
    """`input_ids` and `labels` of the masks that the model chose."""
    masks = {name: {**batch, **draws}.get(name) for name in MASKS}
    inputs, pieces = model._guided_pieces({name: batch[name] for name in INPUTS}, masks)
    labels = torch.full_like(batch["labels"], -100).flatten()
    labels[pieces.positions] = pieces.targets
    return {"input_ids": inputs["input_ids"], "labels": labels.view_as(batch["labels"])}


INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@pytest.mark.parametrize("case", ["guided", "guided-plain"])
@pytest.mark.parametrize(("kind", "start", "random_share"), SCHEDULES)
def test_pos_berts_masks_go_to_the_words_that_queries_attend_to(
    case: str, kind: str, start: float, random_share: float
) -> None:
    model = shared(pos_cases.small_model(case, **schedule(kind, start)), random_share)
    differs = 0
    for seed in range(16):
        batch, draws = pos_cases.make_batch(case, seed=seed), pos_cases.make_draws(case, seed=seed)
        expected = pos_cases.slow_guided(model, batch, draws, random_share)
        found = moved(model, batch, draws)
        for name, value in found.items():
            assert torch.equal(value, expected[name]), name
        differs += int((found["labels"] != batch["labels"]).any())
    assert differs  # else nothing is shown


@st.composite
def masked_batches(draw: st.DrawFn) -> Batch:
    """Rows of words of one to three pieces of three tasks, some of which are masked, with replacements of every sort."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    batch_size, length = draw(st.integers(1, 3)), pos_cases.LENGTH
    rows: dict[str, list[list[int]]] = {
        name: [] for name in ("input_ids", "labels", "tasks", "words", "attention_mask")
    }
    for _ in range(batch_size):
        row: dict[str, list[int]] = {"input_ids": [2], "labels": [-100], "tasks": [-100], "words": [-100]}
        end = draw(st.integers(3, length))
        while (room := end - 1 - len(row["words"])) > 0:
            size = min(room, draw(st.integers(1, 3)))
            ids = torch.randint(5, 30, (size,), generator=generator).tolist()
            is_text, is_masked = draw(st.booleans()) or draw(st.booleans()), draw(st.booleans())
            task = draw(st.integers(0, 2))
            row["words"] += [len(row["words"])] * size if is_text else [-100] * size
            row["tasks"] += [task] * size
            row["labels"] += ids if is_text and is_masked else [-100] * size
            fates = [draw(st.sampled_from([4, 4, 7, None])) for _ in ids]
            hidden = [own if fate is None else fate for own, fate in zip(ids, fates, strict=True)]
            row["input_ids"] += hidden if is_text and is_masked else ids
        size, padding = len(row["words"]), length - len(row["words"]) - 1
        row = {name: values + [3 if name == "input_ids" else -100] for name, values in row.items()}
        row = {name: values + [0 if name == "input_ids" else -100] * padding for name, values in row.items()}
        for name, values in row.items():
            rows[name].append(values)
        rows["attention_mask"].append([1] * (size + 1) + [0] * padding)
    batch = {name: torch.tensor(values) for name, values in rows.items()}
    return {**batch, "token_type_ids": torch.zeros_like(batch["words"])}


@settings(max_examples=40, deadline=None)
@given(
    batch=masked_batches(),
    kind=st.sampled_from(["none", "mix", "widen"]),
    random_share=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_every_sequence_keeps_its_numbers(batch: Batch, kind: str, random_share: float, seed: int) -> None:
    model = shared(pos_cases.small_model("guided", mask_schedule=kind), random_share)
    torch.manual_seed(seed)
    found = moved(model, batch, {})
    before, after = batch["labels"] != -100, found["labels"] != -100
    assert not (after & (batch["words"] < 0)).any()
    originals = torch.where(before, batch["labels"], batch["input_ids"])
    assert torch.equal(torch.where(after, found["labels"], found["input_ids"]), originals)
    for row in range(len(before)):
        assert sorted(batch["tasks"][row][before[row]].tolist()) == sorted(batch["tasks"][row][after[row]].tolist())
        words = [sorted(batch["words"][row][mask[row]].unique().tolist()) for mask in (before, after)]
        assert len(words[0]) == len(words[1])
        for word in words[1]:
            assert after[row][batch["words"][row] == word].all()
        replaced = [
            sorted(ids[row][mask[row] & (ids[row] != originals[row])].tolist())
            for ids, mask in ((batch["input_ids"], before), (found["input_ids"], after))
        ]
        # A random piece may be the true one where it comes to.
        assert len(replaced[1]) <= len(replaced[0]) and replaced[1].count(4) == replaced[0].count(4)
    if kind != "none" and random_share == 1:
        assert torch.equal(found["labels"], batch["labels"]) and torch.equal(found["input_ids"], batch["input_ids"])


@pytest.mark.parametrize("kind", ["mix", "widen"])
def test_a_schedule_that_begins_at_random_begins_with_the_masks_of_the_batch(kind: str) -> None:
    batch, draws = pos_cases.make_batch("guided"), pos_cases.make_draws("guided")
    model = pos_cases.small_model("guided", mask_schedule=kind)
    model.set_training_progress(0.0)
    found = moved(model, batch, draws)
    assert torch.equal(found["labels"], batch["labels"]) and torch.equal(found["input_ids"], batch["input_ids"])


def test_garbage_under_padding_and_masks_does_not_guide() -> None:
    """What the masked pieces were replaced by is not read, and padding neither."""
    model = pos_cases.small_model("guided")
    batch, draws = pos_cases.make_batch("guided"), pos_cases.make_draws("guided")
    found = moved(model, batch, draws)
    is_free = (batch["labels"] != -100) | (batch["attention_mask"] == 0)
    other = {**batch, "input_ids": batch["input_ids"].masked_fill(is_free, 29)}
    assert torch.equal(moved(model, other, draws)["labels"], found["labels"])


def test_tasks_are_measured_with_the_masks_of_the_step() -> None:
    """The first pass over accumulated batches, with the same draws as the second: its losses are those of the step."""
    model, batch = pos_cases.small_model("guided").train(), pos_cases.make_batch("guided")
    torch.manual_seed(3)
    totals = model.measure_tasks(**batch)
    torch.manual_seed(3)
    parts = model(**batch).loss_parts
    means = (totals.sums / totals.counts.clamp(min=1)).tolist()
    for task, mean in zip(model.config.tasks, means, strict=False):
        assert float(parts[task]) == pytest.approx(mean)


def test_evaluation_scores_the_masks_of_the_batch() -> None:
    """Validation losses of guided and random models are those of the same words."""
    guided, plain = pos_cases.small_model("guided").eval(), pos_cases.small_model("minimax").eval()
    batch = pos_cases.make_batch("guided")
    without_words = {name: value for name, value in batch.items() if name != "words"}
    assert torch.equal(guided(**batch).loss, plain(**without_words).loss)
    assert torch.equal(guided(**without_words).loss, plain(**without_words).loss)


def test_masked_positions_are_made_anew() -> None:
    generator = torch.Generator().manual_seed(0)
    is_masked = torch.rand(5, 9, generator=generator) < 0.4
    found = positions_of(is_masked, 12)
    for row, mask in zip(found.tolist(), is_masked, strict=True):
        places = mask.nonzero().flatten().tolist()
        assert row == places + [-1] * (12 - len(places))
    batch, draws = pos_cases.with_positions(pos_cases.make_batch("guided")), pos_cases.make_draws("guided")
    model = pos_cases.small_model("guided")
    del draws["noise"]
    torch.testing.assert_close(
        model(**batch, **draws).loss, model(**{**batch, "masked_positions": None}, **draws).loss
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": None}, "`words` must be given with `labels`, because `masking` is 'guided'"),
        ({"words": torch.zeros(4, 3, dtype=torch.int64)}, r"`words` must be int64 of the inputs' shape \(4, 11\)"),
        ({"words": torch.full((4, 11), 11)}, "`words` must be below the number of pieces, 11, got 11"),
        (
            {"words": torch.full((4, 11), -100)},
            "`words` must number the word of every masked piece, got -100 in row 0",
        ),
        (
            {"words": torch.zeros(4, 11, dtype=torch.int64)},
            "`tasks` must be 0 to 3 wherever `words` has a word, got -100",
        ),
        ({"tasks": None}, "`tasks` must come with `labels`"),
        ({"noise": torch.rand(4, 3)}, "`noise`"),
    ],
)
def test_words_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pos_cases.small_model("guided")(**{**pos_cases.make_batch("guided"), **change})


def test_a_word_masked_in_part_and_words_without_use_are_refused() -> None:
    batch = pos_cases.make_batch("guided")
    row, place = (batch["labels"] != -100).nonzero()[0].tolist()
    labels = batch["labels"].clone()
    labels[row, place] = -100
    with pytest.raises(ValueError, match="`labels` must be alike in all pieces of a word"):
        pos_cases.small_model("guided")(**{**batch, "labels": labels})
    with pytest.raises(ValueError, match="`words` is for masking 'guided', but `masking` is 'random'"):
        pos_cases.small_model("minimax")(**batch)
