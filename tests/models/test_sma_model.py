"""SMA as a transformers model: what every method's models do, its own meaning, and every refusal of bad input."""

from pathlib import Path
from typing import Any

import pytest
import sma_cases
import torch
from model_behaviours import ClassifierBehaviours, Refusals
from sma_cases import CASES, HOLED_CASES, PADDED_CASES, is_real, make_batch, make_draws, small_config, small_model
from transformers import AutoModelForPreTraining

from hf_maskssl import SMAForSequenceClassification, SMAForTokenClassification, SMAModel
from hf_maskssl.models.layers import drop_path

ALL = [*CASES, *PADDED_CASES, *HOLED_CASES]
TOKENS = {"modality": "tokens", "vocab_size": 5, "max_position_embeddings": 20}
TABLE: dict[str, Any] = {"modality": "series", "series_length": 3, "num_channels": 1, "num_masked_per_query": 1}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"modality": "tokens", "max_position_embeddings": 8}, "needs a positive `vocab_size`"),
    (TOKENS | {"padded_query_count": True}, "`padded_query_count` needs encoder_type 'cross_attention'"),
    (TOKENS | {"classifier_num_attention_heads": 5}, "positive multiple of `classifier_num_attention_heads`"),
    ({"modality": "series", "num_channels": 1}, "needs a positive `series_length`"),
    ({"modality": "image", "image_size": [4, 4, 4]}, "`image_size` must be a height and a width"),
    (TOKENS | {"mask_ratio": 0.01}, r"`mask_ratio=0.01` masks 0 of 20 tokens"),
    (TOKENS | {"mask_ratio": 0.99}, r"`mask_ratio=0.99` masks 20 of 20 tokens"),
    (TOKENS | {"mask_ratio": 1.0}, "`mask_ratio` must lie between 0 and 1"),
    (
        TOKENS | {"num_masked_per_query": 12},
        "`num_masked_per_query=12` chooses no query for 20 tokens of which 6.*at most about 11",
    ),
    (TOKENS | {"num_masked_per_query": 0}, "`num_masked_per_query` must be at least 1"),
    (TOKENS | {"hidden_size": 30}, "`qk_channels` must be a positive multiple of `num_attention_heads`"),
    (TOKENS | {"v_channels": 30}, "`v_channels` must be a positive multiple"),
    (TOKENS | {"embedding_size": 24}, "`embedding_size` 24 must equal `hidden_size` 768"),
    (TOKENS | {"masking": "word"}, "masking='word' needs modality 'tokens' and `word_delimiter_id`"),
    (TOKENS | {"masking": "patch"}, "masking='patch' needs modality 'image'"),
    (TOKENS | {"masking": "span", "mean_span_length": 0.5}, "`mean_span_length` must be at least 1"),
    (TOKENS | {"masking": "random", "mask_schedule": "mix"}, "`mask_schedule` leads to guided masking"),
    (TOKENS | {"mask_schedule": "widen", "mask_schedule_start": 0.1}, "must be at least `mask_ratio`"),
    (TOKENS | {"mask_schedule": "mix", "mask_schedule_fraction": 0.0}, "`mask_schedule_fraction` must be above 0"),
    (TOKENS | {"encoder_type": "cross_attention", "mask_queries": True}, "`mask_queries` needs encoder_type"),
    (TOKENS | {"target_mean": 0.5}, "`target_mean` standardises continuous targets"),
    ({"modality": "series", "series_length": 8, "num_channels": 2, "target_std": [1.0]}, "one number per channel"),
    (
        {"modality": "series", "series_length": 8, "num_channels": 1, "target_std": 0.0},
        "`target_std` must be positive",
    ),
    ({"modality": "image", "image_size": 20, "num_channels": 1, "masking": "patch"}, "must divide `image_size`"),
    (TOKENS | {"decoder_v_channels": 8, "decoder_query_residual": True}, "`decoder_query_residual` adds queries"),
    (TOKENS | {"decoder_v_channels": 8, "tie_word_embeddings": True}, "`tie_word_embeddings` reads tokens"),
    (TOKENS | {"drop_path_rate": 1.5}, "`drop_path_rate` is a probability"),
    (TOKENS | {"category_counts": [2, 3]}, "`category_counts` is for tables.*got 'tokens'"),
    (TABLE | {"category_counts": [0, 3, -1]}, "`category_counts` must be 0 .* or at least 2, got -1 for column 2"),
    (TABLE | {"category_counts": [0, 3, 2], "target_std": 2.0}, "`target_std` would change class numbers"),
    (TABLE | {"category_counts": [0, 3, 2], "target_clip": 2.0}, "`target_clip` would change class numbers"),
]
BAD_INPUTS: Refusals = [
    ("self-tokens", {}, "An SMA of modality 'tokens' takes input_ids, got none of them"),
    ("self-tokens", {"input_values": torch.rand(2, 4, 1)}, r"takes input_ids, got \['input_values'\]"),
    (
        "self-tokens",
        {"input_ids": torch.zeros(2, 13, dtype=torch.long)},
        "1 to max_position_embeddings=12 tokens, got 13",
    ),
    ("self-tokens", {"input_ids": torch.full((2, 4), 11)}, r"must lie in \[0, vocab_size=11\), got 11 to 11"),
    ("self-tokens", {"input_ids": torch.rand(2, 4)}, "must be integers"),
    ("self-series", {"input_values": torch.rand(2, 11, 3)}, "1 to series_length=10 tokens, got 11"),
    ("self-series", {"input_values": torch.rand(2, 3, 10)}, r"num_channels=3 channels, got 10 in \(2, 3, 10\)"),
    ("self-series", {"input_values": torch.rand(2, 10)}, r"must have the shape \(batch, tokens, channels\)"),
    (
        "cross-series",
        {"input_values": torch.full((2, 5, 3), torch.nan)},
        r"finite, found NaN or infinity in rows \[0, 1\]",
    ),
    ("self-mixed", {"input_values": -torch.ones(2, 6, 1)}, "has -1 in row 0, column 1, .* a class number from 0 to 2"),
    ("cross-image", {"pixel_values": torch.rand(2, 2, 6, 4)}, r"must have image_size=\[4, 6\], got \[6, 4\]"),
    (
        "self-tokens",
        {"input_ids": torch.ones(2, 4, dtype=torch.long), "attention_mask": torch.ones(2, 5)},
        r"one entry per token, \(2, 4\), got \(2, 5\)",
    ),
    (
        "cross-tokens",
        {
            "input_ids": torch.ones(2, 4, dtype=torch.long),
            "attention_mask": torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0]]),
        },
        r"marks nothing as real in rows \[1\]",
    ),
]
BAD_DRAWS: list[tuple[dict[str, torch.Tensor], str]] = [
    ({"query_mask": torch.zeros(4, 12)}, "at least one query in every row: the set R is empty"),
    (
        {"query_mask": torch.ones(4, 11)},
        r"`query_mask` must have one draw per place, the shape \(4, 12\), got \(4, 11\)",
    ),
    ({"noise": torch.rand(4, 5)}, "`noise` must have one draw per place"),
    ({"is_masked": torch.zeros(4, 5)}, "`is_masked` must have one draw per place"),
    ({"is_masked": torch.ones(4, 12)}, r"`is_masked` hides every token in rows \[0, 1, 2, 3\]"),
]


class TestSMA(ClassifierBehaviours):
    kit = sma_cases
    encoder_class = SMAModel
    cases, shapes = (
        ALL,
        ["self-image", "cross-tokens", "padded-self-tokens", "padded-cross-series", "holed-self-series"],
    )
    saved = {"decoder_mask_token": True, "mask_schedule": "mix"}
    anew = ("cross-tokens", {"decoder_mask_token": True, "tie_word_embeddings": True, "decoder_v_channels": 12})
    random = {"drop_path_rate": 0.4}
    variants = [
        ("padded-self-tokens", {"masking": "random"}),
        ("padded-self-tokens", {"masking": "span"}),
        ("cross-image", {"masking": "span"}),
        ("padded-self-tokens", {"masking": "iterative"}),
        ("padded-self-tokens", {"mask_schedule": "mix"}),
        ("cross-image", {"mask_schedule": "mix"}),
        ("cross-image", {"mask_schedule": "widen"}),
    ]
    impossible = REFUSED
    bad_inputs = BAD_INPUTS
    bad_draws = [("self-tokens", *each) for each in BAD_DRAWS]
    sequence_classifier, token_classifier = SMAForSequenceClassification, SMAForTokenClassification
    token_cases = ["padded-self-tokens", "padded-cross-tokens"]
    new_in_heads = {"query", "query_layer", "query_norm", "hidden_norm"}
    poolings = [{"classifier_pooling": "query"}, {"classifier_pooling": "mean"}]

    def is_token(self, encoder: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        real = None if encoder.config.is_cross_attention else is_real(batch)
        return torch.ones(4, encoder.config.num_queries, dtype=torch.bool) if real is None else real

    def same_choice(self, outputs: Any, draws: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"is_masked": outputs.mask.bool()}  # the choice may flip where two tokens nearly tie


encoder = TestSMA().encoder


# Shapes and meaning


@pytest.mark.parametrize("case", ["self-tokens", "cross-image"])
def test_encoding_a_part_is_encoding_it_alone(case: str) -> None:
    model, batch = encoder(case), make_batch(case)
    ids = torch.tensor([[1, 4, 5], [0, 2, 3], [3, 4, 5], [0, 1, 5]])
    keep_mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]])
    attention_mask = torch.zeros(4, model.config.num_tokens, dtype=torch.int64)
    for row in range(4):
        attention_mask[row, ids[row][keep_mask[row].bool()]] = 1
    part = model(**batch, ids_keep=ids, keep_mask=keep_mask)
    whole = model(**batch, attention_mask=attention_mask)
    torch.testing.assert_close(part.pooler_output, whole.pooler_output)


def test_layers_can_be_repeated_with_the_same_weights() -> None:
    model, batch = encoder("cross-tokens", num_layer_repeats=2), make_batch("cross-tokens")
    embedded = model.embeddings(model.embeddings.tokenize(batch["input_ids"], None, None, None))
    hidden = model.input_layer(model.queries(embedded), embedded)
    for layer in [*model.layers, *model.layers]:
        hidden = layer(hidden)
    torch.testing.assert_close(model(**batch).last_hidden_state, hidden)


@pytest.mark.parametrize("case", ["self-series", "cross-tokens"])
def test_drop_path_grows_with_depth_and_is_off_in_evaluation(case: str) -> None:
    model = small_model(case, drop_path_rate=0.4, num_hidden_layers=5)
    rates = [layer.drop_path_rate for layer in [model.sma.input_layer, *model.sma.layers, model.decoder.layer]]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.0])
    batch, draws = make_batch(case), make_draws(case)
    losses = {model.train()(**batch, **draws).loss.item() for _ in range(4)}
    assert len(losses) > 1
    assert len({model.eval()(**batch, **draws).loss.item() for _ in range(3)}) == 1


def test_drop_path_keeps_the_mean() -> None:
    values = torch.ones(20000, 2)
    dropped = drop_path(values, 0.3, training=True)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert (dropped[:, 0] == dropped[:, 1]).all() and dropped.mean() == pytest.approx(1.0, abs=0.03)
    assert drop_path(values, 0.3, training=False) is values


def test_initial_values_are_those_of_the_authors() -> None:
    model = small_model("cross-tokens", hidden_size=64, embedding_size=64, num_latents=50, initializer_range=0.02)
    drawn = [
        model.sma.latents,
        model.sma.embeddings.token_embeddings.weight,
        model.sma.embeddings.position_embeddings.weight,
        model.sma.layers[0].attention.query.weight,
        model.decoder.output.weight,
    ]
    for weight in drawn:
        assert weight.std().item() == pytest.approx(0.02, rel=0.15) and abs(weight.mean().item()) < 0.002
    assert not model.decoder.output.bias.any() and not model.sma.layers[0].attention.query.bias.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masking", ["guided", "iterative"])
def test_masks_under_autocast_are_those_of_float32(dtype: torch.dtype, masking: str) -> None:
    """Sums of a fresh model's nearly uniform attention differ in digits that half precision does not have."""
    fields: dict[str, Any] = {"max_position_embeddings": 256, "initializer_range": 0.02, "num_masked_per_query": 10}
    model = small_model("cross-tokens", masking=masking, num_latents=64, **fields)
    batch = {"input_ids": torch.randint(0, 11, (4, 256), generator=torch.Generator().manual_seed(0))}
    query_mask = torch.rand(4, 64).argsort(1) < 10
    expected = model.sample_mask(**batch, query_mask=query_mask)
    with torch.autocast("cpu", dtype):
        found = model.sample_mask(**batch, query_mask=query_mask)
    assert (found & expected).sum() > 0.97 * expected.sum()


def test_the_schedule_ends_in_guided_masks_in_a_bfloat16_model() -> None:
    batch = {"input_values": torch.randn(2, 1024, 3, dtype=torch.bfloat16)}
    fields: dict[str, Any] = {"series_length": 1024, "mask_ratio": 0.7, "num_masked_per_query": 100}
    query_mask = torch.rand(2, 1024).argsort(1) < 7
    masks = []
    for schedule in ("none", "mix", "widen"):
        model = small_model("self-series", mask_schedule=schedule, **fields).to(torch.bfloat16)
        masks.append(model.sample_mask(**batch, query_mask=query_mask))
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "fields"),
    [("padded-self-tokens", {}), ("cross-image", {"head_aggregation": "random"})],
    ids=str,
)
def test_a_step_is_one_graph(case: str, fields: dict[str, Any]) -> None:
    torch._dynamo.reset()
    model, batch = small_model(case, num_hidden_layers=2, **fields), make_batch(case)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    loss = compiled(**batch, **make_draws(case)).loss
    loss.backward()
    if not fields:  # then nothing is drawn inside
        torch.testing.assert_close(loss, model(**batch, **make_draws(case)).loss)


def test_heads_never_read_padding() -> None:
    for case in PADDED_CASES:
        batch = make_batch(case)
        name = "input_ids" if "input_ids" in batch else "input_values"
        other = batch | {name: batch[name].clone()}
        other[name][batch["attention_mask"] == 0] = 2
        for pooling in ("query", "mean"):
            model = SMAForSequenceClassification(small_config(case, classifier_pooling=pooling))
            torch.testing.assert_close(model(**other).logits, model(**batch).logits)


def test_the_first_layer_attends_to_what_is_visible() -> None:
    model, batch = small_model("cross-series"), make_batch("cross-series")
    model.set_attn_implementation("eager")
    output = model(**batch, output_attentions=True)
    visible = 10 - output.mask[0].sum()
    assert [tuple(weights.shape) for weights in output.attentions] == [(4, 4, 5, visible), (4, 2, 5, 5), (4, 2, 5, 5)]


def test_masks_differ_from_draw_to_draw() -> None:
    """Different masks from the same weights keep the model from learning one by heart (appendix C)."""
    model, batch = small_model("self-image"), make_batch("self-image")
    masks = {tuple(model.sample_mask(**batch)[0].tolist()) for _ in range(10)}
    assert len(masks) > 3


@pytest.mark.parametrize("is_tied", [False, True])
def test_resizing_the_token_table(is_tied: bool, tmp_path: Path) -> None:
    model = small_model("self-tokens", tie_word_embeddings=is_tied)
    model.resize_token_embeddings(15)
    assert model.sma.embeddings.token_embeddings.weight.shape == (15, 16) and model.config.vocab_size == 15
    assert (model.decoder.output.weight is model.sma.embeddings.token_embeddings.weight) == is_tied
    batch = {"input_ids": torch.full((2, 8), 14), "query_mask": torch.eye(8)[:2]}
    expected = model(**batch)
    assert expected.logits.shape[-1] == 15
    model.save_pretrained(tmp_path)
    again = AutoModelForPreTraining.from_pretrained(tmp_path)
    torch.testing.assert_close(again(**batch).loss, expected.loss)
    assert small_model("self-series").get_output_embeddings() is None


def test_a_query_that_is_padding_is_refused() -> None:
    batch = make_batch("padded-self-tokens")
    with pytest.raises(ValueError, match=r"`query_mask` chooses padding in rows \[1, 2, 3\]"):
        small_model("padded-self-tokens")(**batch, query_mask=torch.ones(4, 12))


def test_one_token_can_be_encoded_and_has_nothing_to_mask() -> None:
    model = small_model("self-tokens")
    outputs = model(
        input_ids=torch.tensor([[3, 1, 2], [4, 0, 0]]), attention_mask=torch.tensor([[1, 1, 1], [1, 0, 0]])
    )
    assert outputs.mask.sum(1).tolist() == [1, 0] and torch.isfinite(outputs.loss)


def test_latents_that_nothing_would_load_are_refused(tmp_path: Path) -> None:
    model, batch = small_model("cross-tokens").eval(), make_batch("cross-tokens") | make_draws("cross-tokens")
    model.save_pretrained(tmp_path)
    modules = {f"sma.{name}" for name, _ in model.sma.named_children()} | {name for name, _ in model.named_children()}
    places: dict[str, Any] = dict.fromkeys(modules - {"sma"}, "cpu")
    settings = {"offload_folder": str(tmp_path / "disk")}
    with pytest.raises(ValueError, match=r"device_map: expected a device for `sma\.latents`, got 'disk'"):
        type(model).from_pretrained(tmp_path, device_map=places | {"sma.latents": "disk"}, **settings)
    placed = type(model).from_pretrained(tmp_path, device_map=places | {"sma.latents": "cpu"}, **settings)
    assert torch.equal(placed(**batch).loss, model(**batch).loss)
    whole = {name: place for name, place in places.items() if not name.startswith("sma.")} | {"sma": "disk"}
    waiting = type(model).from_pretrained(tmp_path, device_map=whole, **settings)
    assert waiting.sma.latents.device.type == "meta"
    torch.testing.assert_close(waiting(**batch).loss, model(**batch).loss)
