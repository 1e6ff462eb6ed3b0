"""Missing values (`observed_mask`): never read, never scored, and a token without any is treated as padding is."""

from typing import Any

import metamae_cases
import pytest
import sma_cases
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_behaviours import check_slopes, look_at_nothing, step

from hf_maskssl import (
    MetaMAEForSequenceClassification,
    MetaMAEModel,
    SMAForSequenceClassification,
    SMAForTokenClassification,
)
from hf_maskssl.evaluation.features import real_tokens
from hf_maskssl.models.layers import SquaredError, masked_mean, squared_error
from hf_maskssl.models.observed_values import fill_missing, with_gaps, with_observed
from hf_maskssl.models.tokenized_input import TokenizedInput

Batch = dict[str, torch.Tensor]
CASES: list[tuple[Any, str]] = [
    *((metamae_cases, case) for case in metamae_cases.HOLED_CASES),
    *((sma_cases, case) for case in sma_cases.HOLED_CASES),
    (sma_cases, "holed-cross-series"),
]
each_case = pytest.mark.parametrize(("kit", "case"), CASES, ids=[case for _, case in CASES])


def with_garbage(batch: Batch, value: float) -> Batch:
    """Other values under the mask."""
    name = next(iter(batch))
    return batch | {name: batch[name].masked_fill(batch["observed_mask"] == 0, value)}


def with_ones(batch: Batch) -> Batch:
    name = next(iter(batch))
    values = torch.nan_to_num(batch[name])
    return {name: values, "observed_mask": torch.ones_like(values)}


# Never read, never scored


@each_case
def test_what_stands_under_the_mask_changes_nothing(kit: Any, case: str) -> None:
    batch, draws = kit.make_batch(case), kit.make_draws(case)
    assert next(iter(batch.values())).isnan().any()
    expected = step(kit.small_model(case), batch | draws)
    assert all(value.isfinite().all() for value in expected.values())
    for value in (0.0, 1e30, torch.inf):
        found = step(kit.small_model(case), with_garbage(batch, value) | draws)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@each_case
def test_a_mask_of_ones_changes_no_bit(kit: Any, case: str) -> None:
    batch, draws = with_ones(kit.make_batch(case)), kit.make_draws(case)
    plain = {name: value for name, value in batch.items() if name != "observed_mask"}
    expected = step(kit.small_model(case), plain | draws)
    for mask in (batch["observed_mask"], batch["observed_mask"].bool(), batch["observed_mask"].long()):
        found = step(kit.small_model(case), plain | draws | {"observed_mask": mask})
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@each_case
def test_a_mask_of_ones_on_a_device_that_is_not_looked_at(
    kit: Any, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, draws = with_ones(kit.make_batch(case)), kit.make_draws(case)
    plain = {name: value for name, value in batch.items() if name != "observed_mask"}
    expected = step(kit.small_model(case), plain | draws)
    look_at_nothing(monkeypatch)
    torch.testing.assert_close(step(kit.small_model(case), batch | draws), expected, rtol=1e-4, atol=1e-5)


@each_case
def test_missing_tokens_are_neither_masked_nor_pooled(kit: Any, case: str) -> None:
    """The encoder gives what it gives of the tokens with something observed alone, and the share masked is one of these."""
    model, batch = kit.small_model(case).eval(), kit.make_batch(case)
    outputs, tokens = model(**batch, **kit.make_draws(case)), tokenized(model, batch)
    real = tokens.is_real
    assert real is not None and not real.all() and not (outputs.mask.bool() & ~real).any()
    for row in range(4):
        one = {name: value[row : row + 1] for name, value in batch.items()}
        ids = real[row].nonzero().T
        alone = model.base_model(**one, ids_keep=ids).pooler_output
        torch.testing.assert_close(alone[0], model.base_model(**batch).pooler_output[row])
        count, ratio = len(ids[0]), model.config.mask_ratio
        wanted = count - max(1, int(count * (1 - ratio))) if kit is metamae_cases else max(1, round(count * ratio))
        assert outputs.mask[row].sum() == wanted


@each_case
def test_whoever_pools_by_hand_finds_the_tokens_that_are_there(kit: Any, case: str) -> None:
    model, batch = kit.small_model(case).base_model.eval(), kit.make_batch(case)
    outputs = model(**batch)
    tokens = outputs.last_hidden_state[:, model.num_prefix_tokens :]
    torch.testing.assert_close(masked_mean(tokens, real_tokens(model, batch, tokens)), outputs.pooler_output)


def tokenized(model: Any, batch: Batch) -> TokenizedInput:
    names = ("input_ids", "input_values", "pixel_values", "attention_mask", "observed_mask")
    return model.base_model.embeddings.tokenize(**(dict.fromkeys(names) | batch))


@pytest.mark.parametrize("kit", [metamae_cases, sma_cases])
def test_missing_ends_are_padding_and_a_shorter_series(kit: Any) -> None:
    case = "series" if kit is metamae_cases else "self-series"
    model, batch = kit.small_model(case).base_model.eval(), kit.make_batch(case)
    axis = 2 if kit is metamae_cases else 1
    values = batch["input_values"]
    observed = torch.ones_like(values)
    observed.narrow(axis, 6, values.shape[axis] - 6).zero_()
    holed = values.masked_fill(observed == 0, torch.nan)
    found = model(input_values=holed, observed_mask=observed).pooler_output
    padding = observed.any(1)[:, ::2] if kit is metamae_cases else observed.any(-1)
    torch.testing.assert_close(found, model(input_values=values, attention_mask=padding.long()).pooler_output)
    torch.testing.assert_close(found, model(input_values=values.narrow(axis, 0, 6)).pooler_output)
    both = model(input_values=holed, observed_mask=observed, attention_mask=torch.ones_like(padding.long()))
    torch.testing.assert_close(both.pooler_output, found)


def test_pixels_may_be_missing_beside_a_text() -> None:
    case = "vision_language"
    model, batch = metamae_cases.small_model(case), metamae_cases.make_batch(case)
    observed = torch.ones_like(batch["pixel_values"], dtype=torch.bool)
    observed[0], observed[1, :, :2, :2] = False, False  # no picture at all; one patch of four
    inputs = metamae_cases.make_draws(case) | batch | {"observed_mask": observed}
    expected = model(**inputs)
    assert not expected.mask[0, :4].any() and not expected.mask[1, 0] and expected.loss.isfinite()
    holed = inputs | {"pixel_values": batch["pixel_values"].masked_fill(~observed, torch.nan)}
    assert torch.equal(model(**holed).loss, expected.loss)


# Read in part


@pytest.mark.parametrize(
    ("kit", "case"),
    [(metamae_cases, "holed_series"), (metamae_cases, "holed_image"), (sma_cases, "holed-self-series")],
)
def test_tokens_observed_in_part_may_have_an_embedding(kit: Any, case: str) -> None:
    plain, model = (kit.small_model(case, partly_observed_embedding=on) for on in (False, True))
    missing = model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == [f"{model.base_model_prefix}.embeddings.partly_observed"]
    batch, draws = kit.make_batch(case), kit.make_draws(case)
    pooled = [each.base_model(**batch).pooler_output for each in (plain, model)]
    differs = (pooled[0] - pooled[1]).abs().amax(1) > 1e-4
    tokens = tokenized(model, batch)
    assert tokens.observed is not None
    assert torch.equal(differs, (tokens.observed.any(-1) & ~tokens.observed.all(-1)).any(1))
    assert differs.any() and not differs.all()
    model(**with_ones(batch), **draws).loss.backward()  # other processes wait for this gradient
    assert model.base_model.embeddings.partly_observed.grad is not None
    model = kit.small_model(case, partly_observed_embedding=True).double()
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    draws = {"is_masked": model(**batch, **draws).mask} if kit is sma_cases else draws
    model(**batch, **draws).loss.backward()
    check_slopes(model, batch | draws)


def test_an_embedding_of_parts_wants_tokens_that_have_parts() -> None:
    for kit, case in ((metamae_cases, "tabular"), (metamae_cases, "tokens"), (sma_cases, "self-tokens")):
        with pytest.raises(Exception, match="`partly_observed_embedding` is for tokens of several values"):
            kit.small_config(case, partly_observed_embedding=True)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), rows=st.integers(1, 3), patches=st.integers(1, 4), size=st.integers(1, 5))
def test_the_error_of_a_patch_is_that_of_its_observed_values(seed: int, rows: int, patches: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn(2, rows, patches, size, generator=generator, dtype=torch.float64)
    observed = torch.rand(rows, patches, size, generator=generator) < 0.6
    prediction.requires_grad_()
    found = squared_error(prediction, target, observed)
    assert found.shape == (rows, patches)
    for row in range(rows):
        for patch in range(patches):
            own = observed[row, patch]
            error = prediction[row, patch][own] - target[row, patch][own]
            assert torch.isclose(found[row, patch], error.pow(2).mean() if own.any() else found.new_zeros(()))
    found.sum().backward()
    assert prediction.grad is not None and not prediction.grad[~observed].any()
    whole = torch.ones_like(observed)
    torch.testing.assert_close(squared_error(prediction, target, whole), SquaredError.apply(prediction, target))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), share=st.floats(0.0, 1.0), padded=st.booleans(), size=st.integers(1, 4))
def test_tokens_with_something_observed_are_real(seed: int, share: float, padded: bool, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(3, 5, size, generator=generator)
    observed = torch.rand(values.shape, generator=generator) < share
    observed[:, 0, 0] = True
    attention_mask = (torch.arange(5) < torch.tensor([[5], [1], [3]])).long() if padded else None
    filled, is_observed = fill_missing("x", values.masked_fill(~observed, torch.nan), observed)
    assert filled is not None and torch.equal(filled, values.masked_fill(~observed, 0.0))
    assert (is_observed is None) == bool(observed.all())
    tokens = with_observed(TokenizedInput(filled, None, attention_mask), is_observed)
    real = torch.ones(3, 5, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    real = real & observed.any(-1)
    assert torch.equal(real, torch.ones_like(real) if tokens.is_real is None else tokens.is_real)
    assert (tokens.observed is None) == (size == 1 or bool(observed.all()))


# Gaps on purpose


@pytest.mark.parametrize(
    ("kit", "case"),
    [
        (metamae_cases, "series"),
        (metamae_cases, "holed_series"),
        (sma_cases, "self-series"),
        (sma_cases, "cross-series"),
    ],
)
def test_a_gap_is_what_a_mask_would_say(kit: Any, case: str) -> None:
    """One channel of the second row drops out from the second token on, for geometric lengths; the third row loses nothing."""
    plain, model = kit.small_model(case), kit.small_model(case, gap_ratio=0.5, mean_gap_length=3)
    batch, draws = kit.make_batch(case), kit.make_draws(case)
    count, steps = model.config.num_tokens, 2 if kit is metamae_cases else 1
    gaps = torch.full((4, 3, 3), 0.9)
    gaps[1, 0] = torch.tensor([0.1, 1.5 / count, 0.6])  # two tokens: ln 0.4 / ln (2 / 3) is 2.26, and one more
    gaps[3, :, 0], gaps[3, :, 1], gaps[3, :, 2] = 0.0, 0.0, 0.999999  # all of it, and so nothing
    observed = batch.get("observed_mask", torch.ones_like(batch["input_values"])).bool().clone()
    time = slice(steps, 4 * steps)
    observed[(1, 0, time) if kit is metamae_cases else (1, time, 0)] = False
    found = step(model, batch | draws | {"gap_noise": gaps})
    expected = step(plain, batch | draws | {"observed_mask": observed})
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert found["loss"] != step(kit.small_model(case), batch | draws)["loss"]
    given = {"is_masked": torch.eye(4, count)}  # whoever asks for tokens gets an answer from all others
    assert model(**batch, **given, **draws).loss == plain(**batch, **given, **draws).loss
    with pytest.raises(ValueError, match=r"`gap_noise` must .* the shape \(4, 3, 3\)"):
        model(**batch, gap_noise=gaps[:, :2])


def test_gaps_have_the_share_and_the_length_of_the_configuration() -> None:
    config = metamae_cases.small_config("series", series_length=400, gap_ratio=0.3, mean_gap_length=8)
    tokens = TokenizedInput(torch.randn(500, 200, 6), None, None)
    torch.manual_seed(0)
    gaps = with_gaps(tokens, config, None)
    assert gaps.observed is not None and gaps.patches is not None
    lost = (~gaps.observed).view(500, 200, 2, 3)
    assert torch.equal(lost[:, :, 0], lost[:, :, 1])  # both steps of a patch
    length = lost[:, :, 0].sum(1).flatten()  # of each channel
    assert (
        0.27 < (length > 0).float().mean() < 0.33 and 7 < length[length > 0].float().mean() < 8.5
    )  # the end cuts some
    assert not gaps.patches[~gaps.observed].any()
    for kit, case in ((metamae_cases, "image"), (sma_cases, "self-tokens")):
        with pytest.raises(Exception, match="`gap_ratio` makes gaps in series, but modality is"):
            kit.small_config(case, gap_ratio=0.1)


# Heads


@pytest.mark.parametrize("pooling", ["query", "mean"])
def test_heads_never_read_what_is_missing(pooling: str) -> None:
    models: list[tuple[Any, Any, str]] = [
        (SMAForSequenceClassification, sma_cases, "holed-self-series"),
        (SMAForSequenceClassification, sma_cases, "holed-cross-image"),
        (SMAForTokenClassification, sma_cases, "holed-cross-series"),
        (MetaMAEForSequenceClassification, metamae_cases, "holed_image"),
    ]
    for kind, kit, case in models:
        fields = {"classifier_pooling": pooling} if kit is sma_cases else {}
        model, batch = kind(kit.small_config(case, num_labels=3, **fields)).eval(), kit.make_batch(case)
        logits = model(**batch).logits
        if kind is SMAForTokenClassification:
            real = tokenized(model, batch).is_real
            assert logits[real].isfinite().all()
        else:
            assert logits.isfinite().all()
        torch.testing.assert_close(model(**with_garbage(batch, 7.5)).logits, logits)


# Refusals


def test_bad_masks_are_refused() -> None:
    for kit, case in ((metamae_cases, "series"), (sma_cases, "self-series")):
        model, batch = kit.small_model(case), kit.make_batch(case)
        ones = torch.ones_like(batch["input_values"])
        wrong = [
            (ones[:, :, :-1], r"`observed_mask` must have one entry per value of `input_values`, \(4, .*got \(4"),
            (ones.transpose(1, 2), "one entry per value of `input_values`"),
            (0.5 * ones, "must be 1 where a value was observed and 0 where it is missing, got 0.5"),
            (2 * ones.long(), "1 where a value was observed and 0 .* got 2"),
            (0 * ones, r"\(1 = observed\) marks nothing as observed in rows \[0, 1, 2, 3\]"),
        ]
        for mask, message in wrong:
            for each in (model, model.base_model):
                with pytest.raises(ValueError, match=message):
                    each(**batch, observed_mask=mask)
        # The other polarity: what is missing is marked as observed.
        holed = batch["input_values"].clone()
        holed[0, :, 0] = torch.nan
        with pytest.raises(ValueError, match=r"finite.*rows \[0\].*`observed_mask` \(1 = observed\)"):
            model(input_values=holed, observed_mask=holed.isnan())
        with pytest.raises(ValueError, match=r"finite.*rows \[0\].*0 in `observed_mask`"):
            model(input_values=holed)
    for kit, case in ((metamae_cases, "tokens"), (sma_cases, "self-tokens")):
        batch = kit.make_batch(case)
        with pytest.raises(ValueError, match="reads ids, which have no `observed_mask`"):
            kit.small_model(case)(**batch, observed_mask=torch.ones_like(batch["input_ids"]))


def test_missing_and_padding_together_leave_something() -> None:
    model = MetaMAEModel(metamae_cases.small_config("series"))
    values = metamae_cases.make_batch("series")["input_values"]
    observed, padding = torch.ones_like(values), torch.ones(4, 6, dtype=torch.long)
    observed[2, :, :4], padding[2, 2:] = 0, 0
    with pytest.raises(ValueError, match=r"nothing as observed in rows \[2\]"):
        model(input_values=values, observed_mask=observed, attention_mask=padding)
