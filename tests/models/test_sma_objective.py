"""SMA's forward pass and gradients against a slow reference written from the paper, and its invariances."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sma_cases import (
    CASES,
    HOLED_CASES,
    PADDED_CASES,
    is_real,
    make_batch,
    make_draws,
    small_config,
    small_model,
    to_double,
)
from torch import nn
from torch.nn import functional as F

from hf_maskssl import SMAForMaskedModeling


def slow_attention(attention: nn.Module, queries: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """One sample, one head after the other: (M, ·), (N, ·) -> (M, ·)."""
    qk_size, v_size = attention.widths
    heads = attention.num_heads
    query = attention.query(queries)
    key, value = attention.key_value(context).split([qk_size, v_size], dim=-1)
    outputs = []
    for head in range(heads):
        q = query[:, head * qk_size // heads : (head + 1) * qk_size // heads]
        k = key[:, head * qk_size // heads : (head + 1) * qk_size // heads]
        v = value[:, head * v_size // heads : (head + 1) * v_size // heads]
        outputs.append((q @ k.T / math.sqrt(qk_size // heads)).softmax(-1) @ v)
    return attention.output(torch.cat(outputs, dim=-1))


def slow_layer(
    layer: nn.Module, hidden: torch.Tensor, context: torch.Tensor | None, residual: bool = True
) -> torch.Tensor:
    normed = layer.attention_norm(hidden)
    attended = slow_attention(layer.attention, normed, normed if context is None else context)
    hidden = hidden + attended if residual else attended
    mlp = layer.mlp
    return hidden + mlp.down(F.gelu(mlp.up(layer.mlp_norm(hidden))))


def raw_tokens(batch: dict[str, torch.Tensor], row: int) -> torch.Tensor:
    """(N,) ids or (N, C) values."""
    if "pixel_values" in batch:
        return batch["pixel_values"][row].flatten(1).T
    return batch["input_ids" if "input_ids" in batch else "input_values"][row]


def observed_values(batch: dict[str, torch.Tensor], row: int) -> torch.Tensor:
    """(N, C) bool."""
    observed = batch["observed_mask"][row].bool()
    return observed.flatten(1).T if "pixel_values" in batch else observed


def slow_loss(model: SMAForMaskedModeling, batch: dict[str, torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    """Section 4 for one sample after the other, tokens taken out one by one."""
    config, encoder, decoder = model.config, model.sma, model.decoder
    losses = []
    for row in range(len(mask)):
        raw = raw_tokens(batch, row)
        observed = observed_values(batch, row) if "observed_mask" in batch else None
        raw = raw if observed is None else raw.masked_fill(~observed, 0.0)
        table = encoder.embeddings.position_embeddings.weight[: len(raw)]
        vectors = (
            encoder.embeddings.token_embeddings(raw) if config.has_tokens else encoder.embeddings.value_projection(raw)
        )
        counts = config.category_counts or [0] * len(raw)
        firsts = [sum(counts[:place]) for place in range(len(raw))]
        words = encoder.embeddings.category_embeddings
        vectors = torch.stack(
            [
                words.weight[firsts[place] + int(raw[place])] if count else vectors[place]
                for place, count in enumerate(counts)
            ]
        )
        embedded = encoder.embeddings.norm(vectors + table)
        everything = is_real(batch)
        real = torch.ones(len(raw), dtype=torch.bool) if everything is None else everything[row]
        visible = [place for place in range(len(raw)) if real[place] and not mask[row, place]]
        inputs = embedded[visible]
        hidden = slow_layer(encoder.input_layer, inputs if encoder.latents is None else encoder.latents, inputs)
        for _ in range(config.num_layer_repeats):
            for layer in encoder.layers:
                hidden = slow_layer(layer, hidden, None)
        queries = table if decoder.positions is None else decoder.positions.weight[: len(raw)]
        for place in range(len(raw)):
            is_scored = bool(mask[row, place]) or (config.reconstruct_visible and bool(real[place]))
            if not is_scored:
                continue
            query = queries[place : place + 1]
            if decoder.mask_token is not None:
                query = query + decoder.mask_token
            state = slow_layer(decoder.layer, query, decoder.norm(hidden), config.decoder_query_residual)
            state = decoder.output_norm(state)
            if config.tie_word_embeddings:
                output = state @ encoder.embeddings.token_embeddings.weight.T + decoder.output.bias
            else:
                output = decoder.output(state)
            if counts[place]:
                head, rows = decoder.category_head, slice(firsts[place], firsts[place] + counts[place])
                logits = state[0] @ head.weight[rows].T + head.bias[rows]
                losses.append(-logits.log_softmax(-1)[int(raw[place])] / math.log(counts[place]))
            elif config.has_tokens:
                losses.append(-output.log_softmax(-1)[0, raw[place]])
            else:
                target = raw[place]
                if config.target_mean is not None:
                    target = (target - torch.tensor(config.target_mean)) / torch.tensor(config.target_std)
                if config.target_clip is not None:
                    target = target.clamp(-config.target_clip, config.target_clip)
                error = output[0] - target
                losses.append((error if observed is None else error[observed[place]]).pow(2).mean())
    return torch.stack(losses).mean()


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((case, {}) for case in [*CASES, *PADDED_CASES, *HOLED_CASES]),
    (
        "padded-self-tokens",
        {"decoder_mask_token": True, "decoder_query_residual": True, "tie_word_embeddings": True},
    ),
    ("padded-self-tokens", {"reconstruct_visible": True, "decoder_mask_token": True}),
    ("cross-tokens", {"decoder_shared_positions": False, "num_layer_repeats": 2}),
    ("self-series", {"target_mean": [0.1, -0.2, 0.3], "target_std": [0.5, 2.0, 1.5], "target_clip": 1.0}),
    ("self-series", {"qk_channels": 32, "v_channels": 8}),
    ("self-image", {"num_hidden_layers": 1}),
    ("padded-cross-series", {"masking": "random"}),
]


@pytest.mark.parametrize(("case", "changes"), VARIANTS, ids=str)
def test_loss_and_gradients_of_the_slow_reference(case: str, changes: dict[str, Any]) -> None:
    model, slow = (small_model(case, **changes).double() for _ in range(2))
    batch = to_double(make_batch(case))
    outputs = model(**batch, **to_double(make_draws(case)))
    outputs.loss.backward()
    expected = slow_loss(slow, batch, outputs.mask)
    expected.backward()
    torch.testing.assert_close(outputs.loss, expected)
    torch.testing.assert_close(outputs.loss_parts["reconstruction"], expected.detach())
    for (name, mine), theirs in zip(model.named_parameters(), slow.parameters(), strict=True):
        assert mine.grad is not None and (mine.grad != 0).any(), name
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)


@pytest.mark.parametrize("case", ["self-tokens", "padded-cross-series", "holed-self-series"])
def test_gradients_against_finite_differences(case: str) -> None:
    model, batch, draws = small_model(case).double(), to_double(make_batch(case, 2)), make_draws(case, 2)
    mask = model(**batch, **to_double(draws)).mask.bool()  # held fixed: the choice of the mask has no gradient
    names, values = zip(*model.named_parameters(), strict=True)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        changed = dict(zip(names, values, strict=True))
        return torch.func.functional_call(model, changed, kwargs={**batch, "is_masked": mask}).loss

    assert torch.autograd.gradcheck(loss, values, eps=1e-6, atol=1e-6, fast_mode=True)


def test_the_choice_of_the_mask_carries_no_gradient() -> None:
    """The gradient is that of the same loss with the mask given."""
    batch, draws = make_batch("self-tokens"), make_draws("self-tokens")
    guided, given_mask = small_model("self-tokens"), small_model("self-tokens")
    outputs = guided(**batch, **draws)
    outputs.loss.backward()
    given_mask(**batch, is_masked=outputs.mask.bool()).loss.backward()
    for mine, theirs in zip(guided.parameters(), given_mask.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


# Eq. 1 -------------------------------------------------------------------------------------------------------------


def permuted(batch: dict[str, torch.Tensor], order: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        name: value.flatten(2)[..., order].view_as(value) if value.dim() == 4 else value[:, order]
        for name, value in batch.items()
    }


# Which columns hold categories is fixed by the configuration.
PERMUTED_CASES = [case for case in (*CASES, *PADDED_CASES, *HOLED_CASES) if "mixed" not in case]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), case=st.sampled_from(PERMUTED_CASES), is_random=st.booleans())
def test_a_consistent_permutation_of_positions_changes_nothing(seed: int, case: str, is_random: bool) -> None:
    """Domain-agnostic in the sense of Eq. 1: same loss and gradients, mask and table permuted along."""
    generator = torch.Generator().manual_seed(seed)
    changes = {"masking": "random"} if is_random else {}
    model, other = (small_model(case, **changes).double() for _ in range(2))
    order = torch.randperm(model.config.num_tokens, generator=generator)
    table = other.sma.embeddings.position_embeddings.weight
    with torch.no_grad():
        table.copy_(table[order].clone())
    batch, draws = to_double(make_batch(case)), to_double(make_draws(case))
    if model.config.is_cross_attention:  # latents keep their places
        other_draws = {"query_mask": draws["query_mask"], "noise": draws["noise"][:, order]}
    else:
        other_draws = permuted(draws, order)
    expected = model(**batch, **draws)
    found = other(**permuted(batch, order), **other_draws)
    assert torch.equal(found.mask, expected.mask[:, order])
    torch.testing.assert_close(found.loss, expected.loss)
    expected.loss.backward()
    found.loss.backward()
    for (name, mine), theirs in zip(other.named_parameters(), model.parameters(), strict=True):
        wanted = theirs.grad[order] if name == "sma.embeddings.position_embeddings.weight" else theirs.grad
        torch.testing.assert_close(mine.grad, wanted, msg=name)


def test_word_span_and_patch_masking_are_not_domain_agnostic() -> None:
    """They know which positions are neighbours, so the property above must fail for them."""
    model = small_model("cross-image", masking="patch", mask_patch_size=2)
    noise, order = torch.rand(4, 24), torch.randperm(24, generator=torch.Generator().manual_seed(0))
    batch = make_batch("cross-image")
    mask = model.sample_mask(**batch, noise=noise)
    assert not torch.equal(model.sample_mask(**permuted(batch, order), noise=noise[:, order]), mask[:, order])


# padding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", PADDED_CASES)
def test_what_stands_in_padding_changes_nothing(case: str) -> None:
    model, batch, draws = small_model(case), make_batch(case), make_draws(case)
    other = {name: value.clone() for name, value in batch.items()}
    name = "input_ids" if "input_ids" in batch else "input_values"
    padding = batch["attention_mask"] == 0
    other[name][padding] = 1 if name == "input_ids" else 7.5
    assert not torch.equal(other[name], batch[name])
    first, second = model(**batch, **draws), model(**other, **draws)
    assert torch.equal(first.mask, second.mask) and (first.mask[padding] == 0).all()
    torch.testing.assert_close(first.loss, second.loss)
    torch.testing.assert_close(model.sma(**batch).pooler_output, model.sma(**other).pooler_output)


@pytest.mark.parametrize("case", ["padded-self-tokens", "padded-cross-tokens"])
def test_a_sample_alone_is_what_it_is_in_a_batch(case: str) -> None:
    model, batch, draws = small_model(case).eval(), make_batch(case), make_draws(case)
    together = model(**batch, **draws)
    weights, total = [], 0.0
    for row in range(4):
        real = batch["attention_mask"][row] == 1
        if not (batch["attention_mask"][row].diff() <= 0).all():
            cut = slice(None)  # holes stay where they are
        else:
            cut = slice(0, int(real.sum()))
        alone = model(
            input_ids=batch["input_ids"][row : row + 1, cut],
            attention_mask=batch["attention_mask"][row : row + 1, cut],
            query_mask=draws["query_mask"][row : row + 1]
            if "cross" in case
            else draws["query_mask"][row : row + 1, cut],
        )
        assert torch.equal(alone.mask[0], together.mask[row, cut])
        weights.append(alone.mask.sum())
        total += alone.loss * alone.mask.sum()
        pooled = model.sma(
            batch["input_ids"][row : row + 1, cut], attention_mask=batch["attention_mask"][row : row + 1, cut]
        )
        whole = model.sma(batch["input_ids"], attention_mask=batch["attention_mask"])
        torch.testing.assert_close(pooled.pooler_output[0], whole.pooler_output[row])
    torch.testing.assert_close(total / sum(weights), together.loss)


# one pass, several ways ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*CASES, *PADDED_CASES])
def test_predicting_everything_agrees_where_both_predict(case: str) -> None:
    model, batch, draws = small_model(case, decoder_mask_token=True), make_batch(case), make_draws(case)
    some, every = model(**batch, **draws), model(**batch, **draws, predict_all=True)
    torch.testing.assert_close(some.loss, every.loss)
    name = "logits" if model.config.has_tokens else "predictions"
    found, whole = some[name], every[name]
    assert whole.shape[:2] == some.mask.shape and torch.equal(every.masked_ids[0], torch.arange(whole.shape[1]))
    is_used = some.mask.gather(1, some.masked_ids).bool()
    assert torch.equal(is_used.sum(1), some.mask.sum(1))
    picked = whole.gather(1, some.masked_ids[..., None].expand(-1, -1, whole.shape[2]))
    torch.testing.assert_close(found[is_used], picked[is_used])


def test_batches_of_other_lengths_than_the_longest() -> None:
    model, batch = small_model("self-tokens"), make_batch("self-tokens")
    short = model(input_ids=batch["input_ids"][:, :5])
    assert short.mask.shape == (4, 5) and short.mask.sum().item() == 4 * 2


def test_config_of_the_cases_really_separates_the_widths() -> None:
    config = small_config("cross-tokens")
    widths = {
        config.hidden_size,
        config.embedding_size,
        config.qk_channels,
        config.v_channels,
        config.decoder_v_channels,
    }
    assert len(widths) == 5
