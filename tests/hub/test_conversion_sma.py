"""The authors' SMA checkpoints through the command line: the converted folder against their reference vectors."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification, AutoTokenizer

import hf_maskssl
from hf_maskssl import scripts
from hf_maskssl.hub import conversion
from hf_maskssl.hub.conversion import sma as conversion_sma
from hf_maskssl.hub.conversion.sma import DECODER

VALUES = 1e-5  # absolute, float32
GRADIENTS = 1e-4  # relative to the largest entry of each tensor
MASK: dict[str, Any] = {"masking_ratio": 0.3, "num_per_query": 2}
# Another model than the reference's: latents, biases, a decoder with tables of its own.
SETTINGS: dict[str, Any] = {
    "model_type": "sma",
    "input_type": "discrete",
    "num_discrete_tokens": 262,
    "max_position_embeddings": 16,
    "embedded_channels": 8,
    "num_latents": 5,
    "latent_channels": 16,
    "qk_channels": 8,
    "v_channels": 16,
    "num_self_attends_per_block": 1,
    "num_blocks": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 2,
    "cross_attention_widening_factor": 2,
    "self_attention_widening_factor": 3,
    "dense_use_bias": True,
    "cross_train_noising_args": [["RandomlySelectedCrossAttentionMasking", MASK]],
    "teacher_args": {
        "reconstruction_decoder_args": {"num_heads": 2, "widening_factor": 4},
        "reconstruction_loss_fn": "crossentropy",
    },
}
CONTINUOUS = {"input_type": "continuous", "input_channels": 2}
MSE = {"reconstruction_decoder_args": {}, "reconstruction_loss_fn": "mse"}


def group(golden: dict[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors under `prefix.`, without it."""
    return {name.removeprefix(f"{prefix}."): value for name, value in golden.items() if name.startswith(f"{prefix}.")}


def save_as_authors(folder: Path, settings: dict[str, Any], state: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "sma", **settings}))
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=VALUES)


# ---- the reference ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden(shared_golden: Any) -> dict[str, Any]:
    return shared_golden("sma_self")


@pytest.fixture(scope="module")
def folder(golden: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("converted")
    theirs = save_as_authors(root / "sma-tiny", golden["case"]["config"], group(golden, "state"))
    conversion.main(["sma", str(theirs), str(root / "model")])
    return root / "model"


def inputs(golden: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {"input_ids": golden["input.x"], "attention_mask": golden["input.attention_mask"]}


def query_mask(golden: dict[str, Any]) -> torch.Tensor:
    """The set R that the authors' run drew."""
    chosen = torch.zeros_like(golden["input.x"], dtype=torch.bool)
    for sample in range(len(chosen)):
        chosen[sample, golden[f"chosen_queries.{sample}"]] = True
    return chosen


def run_step(folder: Path, golden: dict[str, Any], **options: Any) -> tuple[Any, Any]:
    """One training pass with the reference's draws: model (with gradients) and output."""
    model = AutoModelForPreTraining.from_pretrained(folder).train()
    output = model(**inputs(golden), query_mask=query_mask(golden), output_hidden_states=True, **options)
    output.loss.backward()
    return model, output


def test_configuration_is_the_files(folder: Path, golden: dict[str, Any]) -> None:
    config = AutoModel.from_pretrained(folder).config
    assert (config.encoder_type, config.num_hidden_layers, config.intermediate_size) == ("self_attention", 3, 128)
    assert (config.decoder_num_attention_heads, config.decoder_intermediate_size) == (2, 64)
    assert config.decoder_query_residual and config.decoder_mask_token and config.tie_word_embeddings
    assert (config.masking, config.mask_ratio, config.num_masked_per_query) == ("guided", 0.3, 2)
    assert not config.reconstruct_visible and config.mask_schedule == "none"


@pytest.mark.parametrize("predict_all", [False, True])
def test_mask_and_loss_are_the_authors(folder: Path, golden: dict[str, Any], predict_all: bool) -> None:
    _, output = run_step(folder, golden, predict_all=predict_all)
    assert torch.equal(output.mask, golden["loss_mask"])
    assert torch.equal(output.mask, golden["input.attention_mask"] * (1 - golden["keep_mask"]))
    assert_close(output.loss, golden["loss"])
    ids = output.masked_ids.unsqueeze(-1).expand(-1, -1, 40)
    expected = golden["reconstruction_logits"].gather(1, ids)
    if predict_all:
        assert_close(output.logits, expected)
    else:
        is_scored = output.mask.gather(1, output.masked_ids).bool()
        assert_close(output.logits[is_scored], expected[is_scored])


def test_hidden_states_are_the_authors(folder: Path, golden: dict[str, Any]) -> None:
    """Visible tokens in their order; ours are filled up to a longer row than theirs."""
    _, output = run_step(folder, golden)
    is_visible = golden["keep_mask"].bool()
    assert_close(golden["first_layer_output"][is_visible], torch.cat(_visible(golden["hidden.0"], is_visible)))
    states = [*output.hidden_states[-3:], output.latents]
    names = ["hidden.0", "hidden.1", "hidden.2", "last_hidden_state"]
    for ours, name in zip(states, names, strict=True):
        for actual, expected in zip(_visible(ours, is_visible), _visible(golden[name], is_visible), strict=True):
            assert_close(actual, expected)


def _visible(states: torch.Tensor, is_visible: torch.Tensor) -> list[torch.Tensor]:
    return [row[:count] for row, count in zip(states, is_visible.sum(1).tolist(), strict=True)]


def test_gradients_are_the_authors(folder: Path, golden: dict[str, Any]) -> None:
    model, _ = run_step(folder, golden)
    expected = conversion_sma.rename(group(golden, "grad"))
    actual = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert set(actual) == set(expected)
    for name, value in expected.items():
        distance = (actual[name] - value).abs().max() / value.abs().max()
        assert distance < GRADIENTS, f"{name}: {distance:.2e}"


def test_frozen_features_are_the_authors(folder: Path, golden: dict[str, Any]) -> None:
    encoder, info = AutoModel.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    assert not info["missing_keys"] and not info["mismatched_keys"]
    with torch.inference_mode():
        embedded = encoder.embeddings(encoder.embeddings.tokenize(golden["input.x"], None, None, None))
        output = encoder(**inputs(golden), output_attentions=True)
    is_real = golden["input.attention_mask"].bool()
    assert_close(embedded[is_real], golden["embeddings"][is_real])
    assert_close(output.last_hidden_state[is_real], golden["eval.last_hidden_state"][is_real])
    ours, theirs = output.attentions[0], golden["eval.first_layer_attention_probs"]
    assert_close(ours.transpose(1, 2)[is_real], theirs.transpose(1, 2)[is_real])


def test_folder_holds_weights_code_and_card(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "modeling_sma.py", "guided_masking.py", "README.md"} <= names
    assert "tokenizer_config.json" not in names, "40 tokens are not the authors' bytes"
    card = (folder / "README.md").read_text()
    assert "# SMA, converted from sma-tiny" in card and "Johnathan-Xie/sma" in card
    assert "no processor" in card and "these values were taken" not in card


# ---- other sizes and modalities, made here ------------------------------------------------------------------------


def authors_state(settings: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the authors' names, with the shapes that the fact sheet gives for these settings."""
    generator = torch.Generator().manual_seed(seed)
    settings = conversion_sma.DEFAULTS | settings
    length, embedding, hidden = (
        settings[name] for name in ("max_position_embeddings", "embedded_channels", "latent_channels")
    )
    is_cross, is_discrete = settings["encoder_type"] == "cross_attention", settings["input_type"] == "discrete"
    outputs = settings["num_discrete_tokens"] if is_discrete else settings["input_channels"]
    decoder = settings["teacher_args"]["reconstruction_decoder_args"]
    shapes: dict[str, tuple[int, ...]] = {}

    def add_norm(name: str, width: int) -> None:
        shapes.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    def add_layer(name: str, query: int, context: int, qk: int, width: int, factor: int) -> None:
        add_norm(f"{name}.attention.attention.layernorm1", query)
        add_norm(f"{name}.layernorm", query)
        linears = {"attention.attention.query": (qk, query), "attention.attention.key": (qk, context)}
        linears |= {"attention.attention.value": (width, context), "attention.output.dense": (width, width)}
        linears |= {"mlp.dense1": (factor * width, width), "mlp.dense2": (width, factor * width)}
        for part, shape in linears.items():
            shapes[f"{name}.{part}.weight"] = shape
            if settings["dense_use_bias"]:
                shapes[f"{name}.{part}.bias"] = shape[:1]

    preprocessor = "perceiver.input_preprocessor"
    if is_discrete:
        shapes[f"{preprocessor}.embeddings.weight"] = (outputs, embedding)
    else:
        shapes[f"{preprocessor}.input_projection.weight"] = (embedding, outputs)
        shapes[f"{preprocessor}.input_projection.bias"] = (embedding,)
    shapes[f"{preprocessor}.position_embeddings.weight"] = (length, embedding)
    add_norm(f"{preprocessor}.layernorm", embedding)
    if is_cross:
        shapes["perceiver.encoding_latents.latents"] = (settings["num_latents"], hidden)
    factor = settings[f"{'cross' if is_cross else 'self'}_attention_widening_factor"]
    qk = settings["qk_channels"]
    add_layer("perceiver.encoder.cross_attention", hidden, embedding, qk, hidden, factor)
    for layer in range(settings["num_self_attends_per_block"]):
        name = f"perceiver.encoder.self_attends.{layer}"
        add_layer(name, hidden, hidden, qk, hidden, settings["self_attention_widening_factor"])
    factor = decoder.get("widening_factor", 1)
    add_layer(f"{DECODER}decoding_cross_attention", embedding, hidden, embedding, embedding, factor)
    add_norm(f"{DECODER}pre_layernorm", hidden)
    add_norm(f"{DECODER}final_layernorm", embedding)
    shapes[f"{DECODER}final_project.weight"] = (outputs, embedding)
    shapes[f"{DECODER}final_project.bias"] = (outputs,)
    if not decoder.get("share_decoder_queries"):
        shapes[f"{DECODER}decoder_latents.latents"] = (length, embedding)
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for alias, original in conversion_sma.ALIASES:
        state |= {
            alias + name.removeprefix(original): value for name, value in state.items() if name.startswith(original)
        }
    return {name: value for name, value in state.items() if not name.startswith(f"{DECODER}embedding_layer")}


def convert(
    tmp_path: Path, settings: dict[str, Any], state: dict[str, torch.Tensor] | None = None, **options: Any
) -> Any:
    state = authors_state(settings) if state is None else state
    theirs = save_as_authors(tmp_path / "theirs", settings, state)
    return conversion.convert("sma", theirs, tmp_path / "out", **options)


def test_latents_biases_and_tables_of_its_own(tmp_path: Path) -> None:
    state = authors_state(SETTINGS)
    model = convert(tmp_path, SETTINGS, state)
    config = model.config
    assert (config.num_latents, config.num_layer_repeats, config.num_hidden_layers) == (5, 2, 2)
    assert (config.num_cross_attention_heads, config.num_attention_heads) == (2, 4)
    assert (config.cross_intermediate_size, config.intermediate_size) == (32, 48)
    assert config.use_bias and not config.decoder_shared_positions and not config.tie_word_embeddings
    assert config.pad_token_id == 0 and config.padded_query_count
    weights = model.state_dict()
    first = "perceiver.encoder.cross_attention.attention.attention"
    for kind in ("weight", "bias"):
        expected = torch.cat([state[f"{first}.key.{kind}"], state[f"{first}.value.{kind}"]])
        assert torch.equal(weights[f"sma.input_layer.attention.key_value.{kind}"], expected)
    # Not one tensor was left as it was initialised.
    known = {
        tuple(value.flatten()[:3].tolist())
        for value in conversion_sma.rename(conversion_sma.without_aliases(state)).values()
    }
    assert {tuple(value.flatten()[:3].tolist()) for value in weights.values()} == known


def test_byte_model_gets_its_tokenizer(tmp_path: Path) -> None:
    convert(tmp_path, SETTINGS)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("né")["input_ids"] == [ord("n") + 6, 0xC3 + 6, 0xA9 + 6, 5]
    assert tokenizer.model_max_length == 16
    assert "no processor" not in (tmp_path / "out" / "README.md").read_text()


def test_image_and_series_models(tmp_path: Path) -> None:
    teacher = {**MSE, "target_mean": [1, 2], "target_std": [2, 4], "target_clip": 3}
    settings = {**SETTINGS, **CONTINUOUS, "teacher_args": teacher}
    state = authors_state(settings)
    theirs = save_as_authors(tmp_path / "theirs", settings, state)
    image = conversion.convert("sma", theirs, tmp_path / "square", modality="image")
    wide = conversion.convert("sma", theirs, tmp_path / "wide", image_size=[2, 8])
    series = conversion.convert("sma", theirs, tmp_path / "series", modality="series")
    assert (image.config.image_size, wide.config.image_size) == ([4, 4], [2, 8])
    assert series.config.target_mean == [1.0, 2.0] and series.config.target_clip == 3.0
    values = torch.randn(3, 16, 2, generator=torch.Generator().manual_seed(0))
    pixels = values.transpose(1, 2).view(3, 2, 2, 8)
    with torch.inference_mode():
        expected = series.eval().base_model(input_values=values).last_hidden_state
        assert_close(wide.eval().base_model(pixel_values=pixels).last_hidden_state, expected)
    assert "| `modality` | series |" in (tmp_path / "series" / "README.md").read_text()
    message = "pass --modality image"
    with pytest.raises(ValueError, match=message):
        conversion.convert("sma", theirs, tmp_path / "out")
    with pytest.raises(ValueError, match="has 18 pixels, the checkpoint's position table 16"):
        conversion.convert("sma", theirs, tmp_path / "out", image_size=[3, 6])
    assert not (tmp_path / "out").exists()


def with_mask(**arguments: Any) -> dict[str, Any]:
    return {"cross_train_noising_args": [["RandomlySelectedCrossAttentionMasking", {**MASK, **arguments}]]}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"head_aggregation": "random_mix"}, {"head_aggregation": "random"}),
        ({"exclude_seen_reconstruction": False}, {"reconstruct_visible": True}),
        ({"select_initial_ratio": 0.5}, {"mask_schedule": "mix", "mask_schedule_start": 0.5}),
        (
            {"select_initial_ratio": 1, "varying_length": False},
            {"mask_schedule": "widen", "mask_schedule_start": 1.0},
        ),
        ({"relative_noise": 0.3}, {"mask_schedule": "none"}),
    ],
)
def test_mask_settings_are_kept(tmp_path: Path, arguments: dict[str, Any], expected: dict[str, Any]) -> None:
    config = convert(tmp_path, {**SETTINGS, **with_mask(**arguments)}).config
    assert {name: getattr(config, name) for name in expected} == expected
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("`mask_schedule_fraction`" in card) == ("select_initial_ratio" in arguments)
    assert ("counted padding" in card) == ("varying_length" in arguments)


def test_training_settings_that_differ_are_on_the_card(tmp_path: Path) -> None:
    convert(
        tmp_path, {**SETTINGS, "drop_path_rate": 0.1, "hidden_dropout_prob": 0.1, "cross_train_noising_args": None}
    )
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Stochastic depth" in card and "inside the MLPs" in card and "| `masking` | guided |" in card


def with_decoder(**arguments: Any) -> dict[str, Any]:
    return {"teacher_args": {**SETTINGS["teacher_args"], "reconstruction_decoder_args": arguments}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"qk_channels": None}, "`qk_channels` is None"),
        ({"v_channels": 8}, "`v_channels` is 8.*latent_channels, 16"),
        ({"encoder_cross_attention_channels": 16}, "`encoder_cross_attention_channels` is 16"),
        ({"use_query_residual": False}, "`use_query_residual` is False"),
        ({"final_project": False}, "`final_project` is False"),
        ({"input_type": "audio"}, "`input_type` is 'audio'"),
        ({"teacher_name": "BYOLTeacher"}, "`teacher_name` is 'BYOLTeacher'"),
        (with_mask(no_such_argument=1), "unknown key 'no_such_argument'"),
        (with_mask(head_aggregation="max"), "`head_aggregation` is 'max'"),
        (with_mask(num_per_query=576), "num_masked_per_query=576` chooses no query"),
        ({"cross_train_noising_args": [["IdentityTransform", {}]]}, "one RandomlySelectedCrossAttentionMasking"),
        (with_decoder(post_decoder_layers="64 gelu"), "`post_decoder_layers` is '64 gelu'"),
        (with_decoder(query_num_channels=4), "`query_num_channels` is 4.*embedded_channels, 8"),
        (with_decoder(num_heads=3), "`decoder_qk_channels` must be a positive multiple"),
        (with_decoder(depth=3), "unknown key 'depth'"),
        (
            {"teacher_args": {**SETTINGS["teacher_args"], "reconstruction_weighted_loss": True}},
            "weighted_loss` is True",
        ),
        ({"teacher_args": {**SETTINGS["teacher_args"], "reconstruction_loss_fn": "mse"}}, "loss_fn` is 'mse'"),
        (
            {"teacher_args": {**SETTINGS["teacher_args"], "train_transform_args": [["Blur", {}]]}},
            "train_transform_args",
        ),
        ({"model_type": "perceiver"}, "but of 'perceiver'"),
    ],
)
def test_what_has_no_counterpart_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    state = authors_state(SETTINGS)
    with pytest.raises(ValueError, match=words):
        convert(tmp_path, {**SETTINGS, **change}, state)
    assert {path.name for path in tmp_path.iterdir()} == {"theirs"}


FIRST = "perceiver.encoder.cross_attention.mlp.dense1.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teacher.student_model." + FIRST.removeprefix("perceiver."): torch.zeros(32, 16)}, "contradicts itself"),
        ({"perceiver.encoder.cross_attention.gate.weight": torch.zeros(2)}, "gate.weight, which an SMA does not have"),
        ({"perceiver.surprise": torch.zeros(2)}, "surprise, which an SMA does not have"),
        ({"perceiver.decoder.final_project.weight": torch.zeros(3, 16)}, "does not fit the model: missing .*'query'"),
        (
            {FIRST: torch.zeros(3, 16), "teacher.student_model." + FIRST.removeprefix("perceiver."): None},
            "does not fit",
        ),
        ({FIRST: None, "teacher.student_model." + FIRST.removeprefix("perceiver."): None}, "missing .*mlp.up.weight"),
    ],
)
def test_every_tensor_is_accounted_for(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    state = {name: value for name, value in {**authors_state(SETTINGS), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=words):
        convert(tmp_path, SETTINGS, state)
    assert {path.name for path in tmp_path.iterdir()} == {"theirs"}


def test_alias_alone_is_enough(tmp_path: Path) -> None:
    """safetensors keep one name of a shared tensor, and not always the first."""
    state = authors_state(SETTINGS)
    only_aliases = {name: value for name, value in state.items() if not name.startswith("perceiver.")}
    model = convert(tmp_path, SETTINGS, only_aliases)
    assert torch.equal(model.state_dict()["sma.input_layer.mlp.up.weight"], state[FIRST])


@pytest.mark.parametrize("missing", ["config.json", "pytorch_model.bin"])
def test_missing_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str) -> None:
    theirs = save_as_authors(tmp_path / "theirs", SETTINGS, {})
    (theirs / missing).unlink()
    with pytest.raises(SystemExit) as caught:
        scripts.run_script(lambda: conversion.main(["sma", str(theirs), str(tmp_path / "out")]))
    assert caught.value.code == 2 and missing in capsys.readouterr().err


def test_our_own_folder_is_refused(tmp_path: Path) -> None:
    config = hf_maskssl.SMAConfig(vocab_size=9, max_position_embeddings=8, hidden_size=12, num_masked_per_query=1)
    hf_maskssl.SMAForMaskedModeling(config).save_pretrained(tmp_path / "ours")
    with pytest.raises(ValueError, match="is not a configuration of the authors' SMA"):
        conversion.convert("sma", tmp_path / "ours", tmp_path / "out")


# ---- fine-tuned checkpoints ---------------------------------------------------------------------------------------

HEAD = {"use_decoder": True, "output_channels": 3, "decoder_heads": 2, "decoder_latent_channels": 16}


def finetuned_state(settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Random weights of the authors' classifier: one query of 16 channels, keys of 8, an MLP as wide as the query."""
    generator = torch.Generator().manual_seed(1)
    layer = "perceiver.decoder.decoding_cross_attention"
    linears = {"attention.attention.query": (8, 16), "attention.attention.key": (8, 16)}
    linears |= dict.fromkeys(
        ["attention.attention.value", "attention.output.dense", "mlp.dense1", "mlp.dense2"], (16, 16)
    )
    shapes: dict[str, tuple[int, ...]] = {f"{layer}.{name}.weight": shape for name, shape in linears.items()}
    shapes |= {f"{layer}.{name}.bias": shape[:1] for name, shape in linears.items()}
    norms = [f"{layer}.attention.attention.layernorm1", f"{layer}.layernorm"]
    norms += ["perceiver.decoder.pre_layernorm", "perceiver.decoder.final_layernorm"]
    shapes |= {f"{name}.{kind}": (16,) for name in norms for kind in ("weight", "bias")}
    shapes["perceiver.decoder.decoder_latents.latents"] = (1, 16)
    shapes |= {"perceiver.decoder.final_project.weight": (3, 16), "perceiver.decoder.final_project.bias": (3,)}
    encoder = {name: value for name, value in authors_state(settings).items() if name.startswith("perceiver.")}
    return encoder | {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def authors_logits(state: dict[str, torch.Tensor], hidden: torch.Tensor) -> torch.Tensor:
    """The authors' head, written out: (B, L, 16) -> (B, 3)."""
    part = {name.removeprefix("perceiver.decoder."): value for name, value in state.items()}

    def norm(values: torch.Tensor, name: str, eps: float) -> torch.Tensor:
        return F.layer_norm(values, (16,), part[f"{name}.weight"], part[f"{name}.bias"], eps)

    def linear(values: torch.Tensor, name: str) -> torch.Tensor:
        name = f"decoding_cross_attention.{name}"
        return F.linear(values, part[f"{name}.weight"], part[f"{name}.bias"])

    context = norm(hidden, "pre_layernorm", 1e-5)
    latents = part["decoder_latents.latents"].expand(len(hidden), 1, 16)
    normed = norm(latents, "decoding_cross_attention.attention.attention.layernorm1", 1e-5)
    query, key, value = (
        linear(values, f"attention.attention.{name}").unflatten(-1, (2, -1)).transpose(1, 2)
        for name, values in (("query", normed), ("key", context), ("value", context))
    )
    weights = (query @ key.transpose(2, 3) / 2).softmax(-1)  # four channels a head
    states = latents + linear((weights @ value).transpose(1, 2).flatten(2), "attention.output.dense")
    inner = linear(norm(states, "decoding_cross_attention.layernorm", 1e-5), "mlp.dense1")
    states = norm(states + linear(F.gelu(inner), "mlp.dense2"), "final_layernorm", 1e-12)[:, 0]
    return F.linear(states, part["final_project.weight"], part["final_project.bias"])


def test_a_fine_tuned_checkpoint_becomes_a_classifier(tmp_path: Path) -> None:
    settings = {**SETTINGS, **HEAD}
    state = finetuned_state(settings)
    convert(tmp_path, settings, state)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert isinstance(model, hf_maskssl.SMAForSequenceClassification)
    config = model.config
    assert (config.classifier_intermediate_size, config.intermediate_size, config.classifier_norm_eps) == (
        16,
        48,
        1e-12,
    )
    batch = {
        "input_ids": torch.tensor([[7, 8, 9, 5], [7, 5, 0, 0]]),
        "attention_mask": torch.tensor([[1] * 4, [1, 1, 0, 0]]),
    }
    with torch.inference_mode():
        expected = authors_logits(state, model.sma(**batch).last_hidden_state)
        torch.testing.assert_close(model(**batch).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decoder_type": "mean_pool"}, "`decoder_type` is 'mean_pool'"),
        ({"num_outputs": 4}, "`num_outputs` is 4"),
        ({"decoder_latent_channels": 8}, "`decoder_latent_channels` is 8.*16"),
        ({"decoder_attention_channels": 4}, "`decoder_attention_channels` is 4"),
        ({"share_decoder_queries": True}, "`share_decoder_queries` is True"),
        ({"output_channels": 5}, "does not fit"),
        ({"decoder_heads": 3}, "positive multiple of `classifier_num_attention_heads`"),
    ],
)
def test_a_fine_tuned_head_without_counterpart_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    state = finetuned_state(SETTINGS)
    with pytest.raises(ValueError, match=words):
        convert(tmp_path, {**SETTINGS, **HEAD, **change}, state)
    assert {path.name for path in tmp_path.iterdir()} == {"theirs"}
