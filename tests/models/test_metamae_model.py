"""MetaMAE as a transformers model: what every method's models do, its own meaning, and every refusal of bad input."""

from typing import Any

import metamae_cases
import pytest
import torch
from metamae_cases import CASES, make_batch, make_draws, small_model
from model_behaviours import ClassifierBehaviours, Refusals

from hf_maskssl import MetaMAEForSequenceClassification, MetaMAEForTokenClassification, MetaMAEModel
from hf_maskssl.models.layers import patchify, sincos_positions, unpatchify

PLAIN_MAE: dict[str, Any] = {"num_adaptation_steps": 0, "contrastive_weight": 0.0}
GUIDED: dict[str, Any] = {"masking": "guided", "num_masked_per_query": 2, "mask_schedule": "mix"}
TABLE: dict[str, Any] = {"modality": "series", "series_length": 3, "num_channels": 1, "patch_size": 1}
REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"modality": "series", "series_length": 10, "patch_size": 3},
        r"series_length.*multiple of `patch_size`.*10.*3",
    ),
    ({"modality": "image", "image_size": [8, 9], "patch_size": 4}, r"image_size.*multiple"),
    ({"modality": "tokens"}, "vocab_size"),
    ({"modality": "series"}, "series_length"),
    ({"image_size": 8, "mask_ratio": 0.9}, r"mask_ratio=0.9.*0 of 4 tokens visible"),
    ({"image_size": 8, "mask_ratio": 1.0}, "mask_ratio"),
    ({"image_size": 8, "mask_ratio": 0.0}, "mask_ratio"),
    ({"image_size": 4, "patch_size": 4}, "mask_ratio"),
    ({"image_size": 8, "num_adaptation_steps": 0}, "contrastive_weight=0"),
    ({"image_size": 8, "hidden_size": 30}, "hidden_size"),
    ({"image_size": 8, "decoder_hidden_size": 34}, "decoder_hidden_size"),
    ({"image_size": 8, "contrastive_temperature": 0.0}, "contrastive_temperature"),
    ({"image_size": 8, "nearby_ratio": 1.5}, "nearby_ratio"),
    ({"image_size": 8, "num_channels": 0}, "num_channels"),
    ({"image_size": 8, "decoder_num_hidden_layers": -1}, "decoder_num_hidden_layers"),
    ({"image_size": 8, "masking": "span"}, "masking='span' needs modality 'tokens' or 'series', got 'image'"),
    (
        {"image_size": 8, "masking": "guided", "objective": "emix"},
        "chooses tokens, but objective 'emix' mixes whole samples",
    ),
    ({"image_size": 8, "masking": "guided", "num_masked_per_query": 0}, "`num_masked_per_query` must be at least 1"),
    ({"image_size": 8, "mask_schedule": "mix"}, "`mask_schedule` leads to guided masking, but `masking` is 'random'"),
    (
        {"image_size": 8, "masking": "guided", "mask_schedule": "widen", "mask_schedule_start": 0.4},
        "must be at least `mask_ratio` 0.5",
    ),
    ({"image_size": 8, "mean_span_length": 0.5}, "`mean_span_length` must be at least 1"),
    ({"image_size": 8, "category_counts": [2, 3]}, "`category_counts` is for tables.*got 'image', 3"),
    (TABLE | {"category_counts": [0, 3]}, "one number per column, series_length=3, got 2"),
    (TABLE | {"category_counts": [0, 3, 1]}, "got 1 for column 2: a column of one category says nothing"),
    (TABLE | {"category_counts": [0, 0, 0]}, "is 0 for every column: set it to None"),
    (TABLE | {"category_counts": [0, 3, 2], "patch_size": 3}, "`category_counts` is for tables.*'series', 1, 3"),
    (TABLE | {"category_counts": [0, 3, 2], "objective": "mae"}, "objective='mae' predicts numbers and words only"),
]
BAD_INPUTS: Refusals = [
    ("series", {"input_values": torch.randn(2, 4, 12)}, r"num_channels=3.*got 4"),
    ("series", {"input_values": torch.randn(2, 3, 11)}, r"patch_size=2.*got 11"),
    ("series", {"input_values": torch.randn(2, 3, 14)}, r"series_length=12.*got 14"),
    ("series", {"input_values": torch.randn(3, 12)}, r"shape \(batch, channels, time\)"),
    ("series", {"input_values": torch.ones(2, 3, 12, dtype=torch.int64)}, "floating point"),
    ("series", {"input_values": torch.full((2, 3, 12), float("nan"))}, r"finite.*rows \[0, 1\]"),
    ("series", {"input_values": torch.randn(2, 3, 12), "attention_mask": torch.ones(2, 5)}, "one entry per patch"),
    ("series", {"pixel_values": torch.randn(2, 3, 4, 4)}, "takes input_values"),
    ("series", {}, "none of them"),
    ("mixed", {"input_values": torch.ones(2, 1, 5)}, "must have the 6 columns of `category_counts`, got 5"),
    ("mixed", {"input_values": 3 * torch.ones(2, 1, 6)}, "has 3 in row 0, column 1, .* a class number from 0 to 2"),
    ("mixed", {"input_values": 0.5 * torch.ones(2, 1, 6)}, "has 0.5 in row 0, column 1, which holds categories"),
    ("image", {"pixel_values": torch.randn(2, 5, 6, 4)}, r"image_size=\[4, 6\].*\[6, 4\]"),
    ("tokens", {"input_ids": torch.tensor([[0, 7]])}, r"vocab_size=7.*0 to 7"),
    ("tokens", {"input_ids": torch.tensor([[0, -1]])}, "vocab_size=7"),
    ("tokens", {"input_ids": torch.tensor([[0.0, 1.0]])}, "must be integers"),
    ("tokens", {"input_ids": torch.zeros(2, 10, dtype=torch.int64)}, "max_position_embeddings=9.*10"),
    (
        "tokens",
        {
            "input_ids": torch.zeros(2, 4, dtype=torch.int64),
            "attention_mask": torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]]),
        },
        r"nothing as real in rows \[1\]",
    ),
]


class TestMetaMAE(ClassifierBehaviours):
    kit = metamae_cases
    encoder_class = MetaMAEModel
    cases, shapes = CASES, ["series", "image", "vision_language", "padded_tokens", "holed_series"]
    anew = ("image", {})
    variants = [
        *((case, PLAIN_MAE) for case in CASES),
        ("holed_series", {"masking": "span"}),
        *((case, GUIDED) for case in CASES),
    ]
    impossible = REFUSED
    bad_inputs = BAD_INPUTS
    bad_draws = [
        ("series", {"noise": torch.rand(4, 5)}, r"`noise` must .* per place, the shape \(4, 6\), got \(4, 5\)"),
        ("series", {"is_masked": torch.zeros(4, 5)}, "`is_masked` must have one draw per place"),
        ("series", {"is_masked": torch.ones(4, 6)}, r"`is_masked` hides every token in rows \[0, 1, 2, 3\]"),
    ]
    sequence_classifier, token_classifier = MetaMAEForSequenceClassification, MetaMAEForTokenClassification
    token_cases = ["padded_tokens"]

    def is_token(self, encoder: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        names = ("input_ids", "input_values", "pixel_values", "attention_mask", "observed_mask")
        tokens = encoder.embeddings.tokenize(**(dict.fromkeys(names) | batch))
        real = torch.ones(tokens.shape) if tokens.attention_mask is None else tokens.attention_mask
        return torch.nn.functional.pad(real.bool(), (1, 0))


encoder = TestMetaMAE().encoder


# Shapes and meaning


@pytest.mark.parametrize("case", ["padded_tokens", "vision_language"])
def test_padding_is_never_read(case: str) -> None:
    batch, draws = make_batch(case), make_draws(case)
    changed = batch | {
        "input_ids": torch.where(batch["attention_mask"].bool(), batch["input_ids"], 6 - batch["input_ids"])
    }
    assert not torch.equal(batch["input_ids"], changed["input_ids"])
    model = small_model(case).eval()
    first, second = model(**batch, **draws), model(**changed, **draws)
    torch.testing.assert_close(first.loss, second.loss)
    torch.testing.assert_close(model.metamae(**batch).pooler_output, model.metamae(**changed).pooler_output)
    padding = first.mask[:, -batch["attention_mask"].shape[1] :][~batch["attention_mask"].bool()]
    assert not padding.any()


def test_a_row_gives_what_it_gave_in_a_padded_batch() -> None:
    model, batch = encoder("padded_tokens"), make_batch("padded_tokens")
    together = model(**batch).pooler_output
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        alone = model(input_ids=batch["input_ids"][row : row + 1, :length]).pooler_output
        torch.testing.assert_close(alone[0], together[row])


def test_positions_are_those_of_the_paper() -> None:
    """One value by hand: place 3, frequency 1 of 4 in one dimension; column and row halves in two."""
    table = sincos_positions((5,), 8)
    assert table[3, 1].item() == pytest.approx(torch.tensor(3 * 10000 ** (-1 / 4)).sin().item(), abs=1e-6)
    assert table[3, 5].item() == pytest.approx(torch.tensor(3 * 10000 ** (-1 / 4)).cos().item(), abs=1e-6)
    grid = sincos_positions((2, 3), 8).view(2, 3, 8)
    torch.testing.assert_close(grid[1, 2, :4], sincos_positions((3,), 4)[2])
    torch.testing.assert_close(grid[1, 2, 4:], sincos_positions((2,), 4)[1])


def test_patchify_puts_the_channel_last_and_unpatchify_undoes_it() -> None:
    values = torch.randn(2, 3, 4, 6)
    patches = patchify(values, (2, 3))
    assert patches.shape == (2, 4, 18)
    torch.testing.assert_close(patches[0, 1].view(2, 3, 3), values[0, :, 0:2, 3:6].permute(1, 2, 0))
    torch.testing.assert_close(unpatchify(patches, (2, 3), (2, 2), 3), values)
    series = torch.randn(2, 3, 12)
    torch.testing.assert_close(unpatchify(patchify(series, (4,)), (4,), (3,), 3), series)


def test_initial_values_are_those_of_the_authors() -> None:
    model = small_model("image", hidden_size=64, decoder_hidden_size=32, intermediate_size=128)
    layer = model.metamae.layers[0]
    # Xavier-uniform of the fused (3D, D) matrix
    bound = (6 / (64 + 3 * 64)) ** 0.5
    assert layer.attention.qkv.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
    assert not layer.mlp.up.bias.any() and not model.decoder.patch_head.bias.any()
    assert model.metamae.embeddings.cls_token.std().item() == pytest.approx(0.02, rel=0.4)
    # the projector keeps PyTorch's own: uniform within 1 / sqrt(fan_in)
    assert model.projector.up.weight.abs().max().item() == pytest.approx(64**-0.5, rel=0.02)


def test_float16_autocast_adapts_in_float32() -> None:
    model, batch, draws = small_model("series"), make_batch("series"), make_draws("series")
    with torch.autocast("cpu", torch.float16):
        output = model(**batch, **draws)
    assert output.patch_predictions.dtype == torch.float32
    torch.testing.assert_close(output.loss, model(**batch, **draws).loss, rtol=0.02, atol=0.02)


def test_shorter_series_with_a_patch_mask() -> None:
    model = encoder("series")
    values = make_batch("series")["input_values"]
    short = model(input_values=values[..., :8]).pooler_output
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]] * 4)
    torch.testing.assert_close(model(input_values=values, attention_mask=mask).pooler_output, short)


def test_resizing_the_token_table() -> None:
    model = small_model("tokens")
    model.resize_token_embeddings(11)
    assert model.config.vocab_size == 11
    output = model(input_ids=torch.full((4, 9), 10))
    assert output.token_logits.shape[-1] == 11


def test_float64_input_is_read_in_the_models_precision() -> None:
    model, batch = encoder("series"), make_batch("series")
    expected = model(**batch).pooler_output
    torch.testing.assert_close(model(input_values=batch["input_values"].double()).pooler_output, expected)


@pytest.mark.parametrize("case", ["series", "padded_tokens", "holed_tabular"])
def test_a_mask_may_be_given(case: str) -> None:
    model, batch, draws = small_model(case).eval(), make_batch(case), make_draws(case)
    drawn = model(**batch, **draws)
    given = model(**batch, nearby_noise=draws["nearby_noise"], is_masked=drawn.mask)
    assert torch.equal(given.mask, drawn.mask) and torch.equal(given.support_mask, drawn.support_mask)
    torch.testing.assert_close(given.loss, drawn.loss)
    for name in {"patch_predictions", "token_logits"} & set(drawn):
        torch.testing.assert_close(given[name], drawn[name], rtol=1e-4, atol=1e-5)
    everything = model(**batch, is_masked=torch.zeros_like(drawn.mask))  # one more visible token than is ever drawn
    assert everything.loss.isfinite() and not everything.mask.any()


def test_spans_hide_runs_of_neighbours_and_as_many_tokens() -> None:
    fields: dict[str, Any] = {"series_length": 60, "patch_size": 1, "num_channels": 1, "mask_ratio": 0.5}
    runs = {}
    for masking in ("random", "span"):
        model = small_model("series", masking=masking, mean_span_length=6, **PLAIN_MAE, **fields).eval()
        torch.manual_seed(0)
        mask = model(input_values=torch.randn(50, 1, 60)).mask
        assert (mask.sum(1) == 30).all()
        starts = mask.diff(dim=1, prepend=torch.zeros(50, 1, dtype=torch.long)) == 1
        runs[masking] = (mask.sum() / starts.sum()).item()
    assert runs["random"] < 2.5 and runs["span"] > 6  # neighbouring runs join
    model = small_model("holed_series", masking="span").eval()
    batch, draws = make_batch("holed_series"), make_draws("holed_series")
    spans = {"span_noise": draws["nearby_noise"]}
    first = model(**batch, **draws, **spans)
    assert first.mask.sum(1).tolist() == [3, 3, 3, 1]
    assert torch.equal(first.mask, model(**batch, **draws, **spans).mask)
