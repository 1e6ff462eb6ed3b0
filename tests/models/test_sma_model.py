"""SMA as a transformers model: what its common tests ask of every model, and every refusal of bad input."""

from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from sma_cases import CASES, PADDED_CASES, make_batch, make_draws, small_config, small_model
from transformers import AutoModel, AutoModelForPreTraining, masking_utils

from hf_maskssl import SMAConfig, SMAForSequenceClassification, SMAForTokenClassification, SMAModel
from hf_maskssl.models import input_checks, layers, masking
from hf_maskssl.models.layers import drop_path, enable_checkpointing

ALL = [*CASES, *PADDED_CASES]


def encoder(case: str, **changes: Any) -> SMAModel:
    torch.manual_seed(0)
    return SMAModel(small_config(case, **changes)).eval()


def real_rows(case: str, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """What of each sample's hidden states is no padding."""
    config = small_config(case)
    if config.is_cross_attention or "attention_mask" not in batch:
        return [torch.ones(config.num_queries, dtype=torch.bool)] * 4
    return list(batch["attention_mask"].bool())


# Shapes and meaning


@pytest.mark.parametrize("case", ALL)
def test_encoder_shapes_and_pooling(case: str) -> None:
    model, batch = encoder(case), make_batch(case)
    output = model(**batch)
    assert output.last_hidden_state.shape == (4, model.config.num_queries, 16)
    for row, real in enumerate(real_rows(case, batch)):
        torch.testing.assert_close(output.pooler_output[row], output.last_hidden_state[row, real].mean(0))


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


# Loading


@pytest.mark.parametrize("case", ALL)
def test_save_and_load_give_the_same_outputs(case: str, tmp_path: Path) -> None:
    model = small_model(case, decoder_mask_token=True, mask_schedule="mix").eval()
    model.save_pretrained(tmp_path)
    batch, draws = make_batch(case), make_draws(case)
    again = AutoModelForPreTraining.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**batch, **draws).loss, model(**batch, **draws).loss)
    for name, buffer in model.named_buffers():
        assert torch.equal(dict(again.named_buffers())[name], buffer), name
    alone, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    torch.testing.assert_close(alone.eval()(**batch).pooler_output, model.sma(**batch).pooler_output)


@pytest.mark.parametrize("case", ["self-tokens", "cross-tokens"])
@pytest.mark.parametrize("head_class", [SMAForSequenceClassification, SMAForTokenClassification])
def test_only_the_head_is_new_after_pretraining(case: str, head_class: Any, tmp_path: Path) -> None:
    small_model(case).save_pretrained(tmp_path)
    head, info = head_class.from_pretrained(tmp_path, num_labels=3, output_loading_info=True)
    assert {name.split(".")[0] for name in info["missing_keys"]} <= {
        "classifier", "query", "query_layer", "query_norm", "hidden_norm"
    }  # fmt: skip
    for name, parameter in AutoModel.from_pretrained(tmp_path).named_parameters():
        assert torch.equal(parameter, dict(head.sma.named_parameters())[name])
    head.save_pretrained(tmp_path / "head")
    _, info = SMAModel.from_pretrained(tmp_path / "head", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert all(torch.isfinite(parameter).all() for parameter in head.parameters())


def test_missing_weights_and_buffers_are_made_anew(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"decoder_mask_token": True, "tie_word_embeddings": True, "decoder_v_channels": 12}
    torch.manual_seed(0)
    SMAModel(small_config("cross-tokens", **fields)).save_pretrained(tmp_path)
    model = AutoModelForPreTraining.from_pretrained(tmp_path)
    for name, buffer in small_model("cross-tokens", **fields).named_buffers():
        assert torch.equal(dict(model.named_buffers())[name], buffer), name
    assert 0.1 < model.decoder.mask_token.std().item() < 0.6 and not model.decoder.output.bias.any()
    head = SMAForSequenceClassification.from_pretrained(tmp_path)
    assert 0.1 < head.query.std().item() < 0.6


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


@pytest.mark.parametrize("case", CASES)
def test_config_survives_json_and_a_folder(case: str, tmp_path: Path) -> None:
    config = small_config(case, masking="random")
    config.save_pretrained(tmp_path)
    again = SMAConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict() | {key: again.to_dict()[key] for key in ("transformers_version",)}


# Kernels, precisions, compilation


@pytest.mark.parametrize("case", ALL)
def test_sdpa_gives_what_eager_gives(case: str) -> None:
    batch, draws, found = make_batch(case), make_draws(case), []
    for implementation in ("sdpa", "eager"):
        model = small_model(case)
        model.set_attn_implementation(implementation)
        outputs = model(**batch, **draws)
        outputs.loss.backward()
        found.append([outputs.loss, *(parameter.grad for parameter in model.parameters())])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ALL)
def test_training_step_under_bfloat16_autocast(case: str) -> None:
    model, batch, draws = small_model(case), make_batch(case), make_draws(case)
    expected = model(**batch, **draws)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(**batch, is_masked=expected.mask.bool())  # the choice may flip where two tokens nearly tie
        assert model(**batch, **draws).mask.sum() == expected.mask.sum()
    assert found.loss.dtype == torch.float32
    found.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    torch.testing.assert_close(found.loss, expected.loss, rtol=0.05, atol=0.05)


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


@pytest.mark.parametrize("case", ["padded-self-tokens", "padded-cross-series"])
def test_padding_is_not_looked_at_where_that_would_wait(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: no part of a padded step may ask whether a mask is all ones."""
    for module in (layers, masking, input_checks):
        monkeypatch.setattr(module, "values_are_readable", lambda tensor: False)
    looked: list[int] = []
    original = masking_utils._ignore_bidirectional_mask_sdpa
    monkeypatch.setattr(
        masking_utils,
        "_ignore_bidirectional_mask_sdpa",
        lambda *args, **kwargs: looked.append(1) or original(*args, **kwargs),
    )
    model, batch, draws = small_model(case), make_batch(case), make_draws(case)
    found = model(**batch, **draws)
    assert not looked
    monkeypatch.undo()
    torch.testing.assert_close(found.loss, model(**batch, **draws).loss)


@pytest.mark.parametrize("case", ["self-tokens", "cross-series"])
def test_weights_may_wait_elsewhere(case: str) -> None:
    """Offloaded weights arrive when their module's forward begins: none may be read before."""
    model, batch = encoder(case), make_batch(case)
    expected = model(**batch).pooler_output
    offloaded = accelerate.cpu_offload(model, torch.device("cpu"))
    torch.testing.assert_close(offloaded(**batch).pooler_output, expected)


@pytest.mark.parametrize("case", ["padded-self-tokens", "cross-image"])
def test_training_step_of_a_bfloat16_model(case: str) -> None:
    model = small_model(case, decoder_mask_token=True).to(torch.bfloat16)
    loss = model(**make_batch(case), **make_draws(case)).loss
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("case", ["padded-self-tokens", "padded-cross-series"])
def test_gradient_checkpointing_gives_the_same_gradients(case: str) -> None:
    batch, draws, gradients = make_batch(case), make_draws(case), []
    for use_checkpointing in (False, True):
        model = small_model(case)
        if use_checkpointing:
            enable_checkpointing(model)
        model.train()(**batch, **draws).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("padded-self-tokens", {}),
        ("cross-image", {}),
        ("padded-self-tokens", {"masking": "iterative", "head_aggregation": "random"}),
        ("cross-image", {"masking": "span"}),
        ("padded-self-tokens", {"mask_schedule": "mix"}),
        ("cross-image", {"mask_schedule": "widen", "head_aggregation": "random"}),
    ],
    ids=str,
)
def test_no_value_is_read_while_training(case: str, changes: dict[str, Any]) -> None:
    """One graph from inputs to loss: a number read from a tensor, which would make a GPU's host wait, breaks it."""
    torch._dynamo.reset()
    model, batch = small_model(case, **changes), make_batch(case)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    loss = compiled(**batch, **(make_draws(case) if not changes else {})).loss
    loss.backward()
    assert torch.isfinite(loss)
    if not changes:
        torch.testing.assert_close(loss, model(**batch, **make_draws(case)).loss)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["padded-self-tokens", "cross-image"])
def test_compiled_layers_give_the_same_gradients(case: str) -> None:
    batch, draws = make_batch(case), make_draws(case)
    plain, compiled = small_model(case), small_model(case)
    for module in compiled.compilable_modules():
        module.compile()
    for model in (plain, compiled):
        model(**batch, **draws).loss.backward()
    for (name, left), right in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-4, atol=1e-5, msg=name)


# Outputs and heads


def test_hidden_states_and_attentions() -> None:
    model, batch = small_model("cross-series"), make_batch("cross-series")
    model.set_attn_implementation("eager")
    output = model(**batch, output_hidden_states=True, output_attentions=True)
    visible = 10 - output.mask[0].sum()
    # The first layer's input is the latents, shared by the batch.
    assert [tuple(states.shape) for states in output.hidden_states[1:]] == [(4, 5, 16)] * 3
    assert [tuple(weights.shape) for weights in output.attentions] == [(4, 4, 5, visible), (4, 2, 5, 5), (4, 2, 5, 5)]
    torch.testing.assert_close(output.hidden_states[-1], output.latents)


def test_tuple_output_equals_dict_output() -> None:
    model, batch, draws = small_model("self-image").eval(), make_batch("self-image"), make_draws("self-image")
    as_tuple, as_dict = model(**batch, **draws, return_dict=False), model(**batch, **draws)
    torch.testing.assert_close(as_tuple[0], as_dict.loss)
    assert len(as_tuple) == len(as_dict.to_tuple())


def test_masks_differ_from_draw_to_draw() -> None:
    """Different masks from the same weights keep the model from learning one by heart (appendix C)."""
    model, batch = small_model("self-image"), make_batch("self-image")
    masks = {tuple(model.sample_mask(**batch)[0].tolist()) for _ in range(10)}
    assert len(masks) > 3


@pytest.mark.parametrize("pooling", ["query", "mean"])
@pytest.mark.parametrize("case", ALL)
def test_sequence_classification_and_regression(case: str, pooling: str) -> None:
    batch = make_batch(case)
    torch.manual_seed(0)
    model = SMAForSequenceClassification(small_config(case, num_labels=3, classifier_pooling=pooling))
    output = model(**batch, labels=torch.tensor([0, 1, 2, 1]))
    assert output.logits.shape == (4, 3)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    torch.testing.assert_close(
        output.loss, torch.nn.functional.cross_entropy(output.logits, torch.tensor([0, 1, 2, 1]))
    )
    if "attention_mask" in batch:
        name = "input_ids" if "input_ids" in batch else "input_values"
        other = batch | {name: batch[name].clone()}
        other[name][batch["attention_mask"] == 0] = 2
        torch.testing.assert_close(model(**other).logits, output.logits)
    regression = SMAForSequenceClassification(small_config(case, num_labels=1, classifier_pooling=pooling))
    labels = torch.tensor([0.5, 1.5, -1.0, 2.0])
    output = regression(**batch, labels=labels)
    torch.testing.assert_close(output.loss, (output.logits[:, 0] - labels).pow(2).mean())


@pytest.mark.parametrize("case", ["padded-self-tokens", "padded-cross-tokens"])
def test_token_classification_sees_every_token(case: str) -> None:
    batch, labels = make_batch(case), torch.randint(0, 3, (4, 12))
    labels[batch["attention_mask"] == 0] = -100
    torch.manual_seed(0)
    model = SMAForTokenClassification(small_config(case, num_labels=3))
    output = model(**batch, labels=labels)
    assert output.logits.shape == (4, 12, 3)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    is_scored = labels != -100
    expected = torch.nn.functional.cross_entropy(output.logits[is_scored], labels[is_scored])
    torch.testing.assert_close(output.loss, expected)
    assert not torch.allclose(output.logits[0, 0], output.logits[0, 1])
    other = SMAForTokenClassification(small_config(case, num_labels=1))
    output = other(**batch, labels=labels.float())
    torch.testing.assert_close(output.loss, (output.logits[..., 0] - labels)[is_scored].pow(2).mean())


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


# Bad input

TOKENS = {"modality": "tokens", "vocab_size": 5, "max_position_embeddings": 20}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"modality": "tokens"}, "needs a positive `vocab_size`"),
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
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=str)
def test_impossible_configurations_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        SMAConfig(**changes)


BAD_INPUTS: list[tuple[str, dict[str, Any], str]] = [
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


@pytest.mark.parametrize(("case", "batch", "message"), BAD_INPUTS)
def test_bad_input_is_refused(case: str, batch: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model(case)(**batch)


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


@pytest.mark.parametrize(("draws", "message"), BAD_DRAWS)
def test_bad_draws_are_refused(draws: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model("self-tokens")(**make_batch("self-tokens"), **draws)


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


@pytest.mark.parametrize("head_class", [SMAForSequenceClassification, SMAForTokenClassification])
def test_a_heads_output_keeps_its_digits_under_autocast(head_class: Any) -> None:
    """Years near 2000 are eight apart in bfloat16."""
    model = head_class(small_config("self-tokens", num_labels=1)).eval()
    with torch.no_grad():
        model.classifier.bias.fill_(2000.0)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(**make_batch("self-tokens")).logits
    assert logits.dtype == torch.float32 and logits.flatten().unique().numel() == logits.numel()
