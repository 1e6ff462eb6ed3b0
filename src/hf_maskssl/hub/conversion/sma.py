"""Checkpoints of Johnathan-Xie/sma (their `SMAForSSL`, a folder as `save_pretrained` wrote it) into models of this
package."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel

import hf_maskssl

from ...data.text.tokenizers import build_byte_tokenizer
from .official_files import Converted, State, load_completely, read_checkpoint

# Fields of the authors' config.json that are read, with the values their code takes where one is absent.
DEFAULTS: dict[str, Any] = {
    "encoder_type": "cross_attention",
    "input_type": "continuous",
    "num_discrete_tokens": 262,
    "input_channels": 3,
    "max_position_embeddings": 50176,
    "use_position_embeddings": True,
    "embedded_channels": 256,
    "num_latents": 512,
    "latent_channels": 1024,
    "num_blocks": 1,
    "num_self_attends_per_block": 6,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 1,
    "qk_channels": None,
    "v_channels": None,
    "encoder_cross_attention_channels": None,
    "self_attention_widening_factor": 1,
    "cross_attention_widening_factor": 1,
    "dense_use_bias": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "initializer_range": 0.02,
    "use_query_residual": True,
    "final_project": True,
    "decoder_heads": 1,
    # Read of fine-tuned checkpoints alone.
    "decoder_type": "cross_attention",
    "decoder_latent_channels": None,
    "decoder_attention_channels": None,
    "num_outputs": 1,
    "output_channels": 3,
    "share_decoder_queries": False,
    "share_embedding_weights": False,
    "post_decoder_layers": None,
    "pad_token_id": None,
    "cross_train_noising_args": None,
    "teacher_name": "ReconstructionTeacher",
    "teacher_args": {},
}
GUIDED_MASK = "RandomlySelectedCrossAttentionMasking"
GUIDED_MASK_DEFAULTS: dict[str, Any] = {
    "masking_ratio": 0.5,
    "num_per_query": 576,
    "exclude_seen_reconstruction": True,
    "varying_length": True,
    "select_initial_ratio": None,
    "mask_self": False,
    "head_aggregation": "mean",
    "relative_noise": 0.0,  # their code never reads it
}
HEAD_AGGREGATIONS = {"mean": "mean", "random_mix": "random"}
DECODER_DEFAULTS: dict[str, Any] = {
    "query_num_channels": None,
    "qk_channels": None,
    "v_channels": None,
    "num_heads": None,
    "widening_factor": 1,
    "use_query_residual": False,
    "post_decoder_layers": None,
    # The tensors show the values of these fields.
    "share_decoder_queries": False,
    "share_embedding_weights": False,
    "add_mask_token": False,
    "num_outputs": None,
    "output_channels": None,
}
TEACHER_DEFAULTS: dict[str, Any] = {
    "reconstruction_decoder_args": None,
    "reconstruction_loss_fn": None,
    "reconstruction_weighted_loss": False,
    "target_mean": None,
    "target_std": None,
    "target_clip": None,
    "train_transform_args": None,
    "eval_transform_args": None,  # serves evaluation during their pre-training
    "ema_args": None,  # belongs to a teacher that they never use
}
BYTE_VOCABULARY = 262

DECODER = "teacher.reconstruction_decoder."
CLASSIFIER = "perceiver.decoder."
# The same tensors under further names, which older transformers write out.
ALIASES = [
    ("teacher.student_model.", "perceiver."),
    ("teacher.encoder_input_preprocesor.", "perceiver.input_preprocessor."),  # their spelling
    (f"{DECODER}encoder_input_preprocessor.", "perceiver.input_preprocessor."),
    (f"{DECODER}embedding_layer.", "perceiver.input_preprocessor.embeddings."),
]
NAMES = {
    "perceiver.input_preprocessor.embeddings.weight": "sma.embeddings.token_embeddings.weight",
    "perceiver.input_preprocessor.input_projection.weight": "sma.embeddings.value_projection.weight",
    "perceiver.input_preprocessor.input_projection.bias": "sma.embeddings.value_projection.bias",
    "perceiver.input_preprocessor.position_embeddings.weight": "sma.embeddings.position_embeddings.weight",
    "perceiver.input_preprocessor.layernorm.weight": "sma.embeddings.norm.weight",
    "perceiver.input_preprocessor.layernorm.bias": "sma.embeddings.norm.bias",
    "perceiver.encoding_latents.latents": "sma.latents",
    f"{DECODER}pre_layernorm.weight": "decoder.norm.weight",
    f"{DECODER}pre_layernorm.bias": "decoder.norm.bias",
    f"{DECODER}final_layernorm.weight": "decoder.output_norm.weight",
    f"{DECODER}final_layernorm.bias": "decoder.output_norm.bias",
    f"{DECODER}final_project.weight": "decoder.output.weight",
    f"{DECODER}final_project.bias": "decoder.output.bias",
    f"{DECODER}learned_mask_token": "decoder.mask_token",
    f"{DECODER}decoder_latents.latents": "decoder.positions.weight",
    f"{CLASSIFIER}pre_layernorm.weight": "hidden_norm.weight",
    f"{CLASSIFIER}pre_layernorm.bias": "hidden_norm.bias",
    f"{CLASSIFIER}final_layernorm.weight": "query_norm.weight",
    f"{CLASSIFIER}final_layernorm.bias": "query_norm.bias",
    f"{CLASSIFIER}final_project.weight": "classifier.weight",
    f"{CLASSIFIER}final_project.bias": "classifier.bias",
    f"{CLASSIFIER}decoder_latents.latents": "query",
}
LAYERS = re.compile(
    r"(perceiver\.encoder\.cross_attention|perceiver\.encoder\.self_attends\.\d+|"
    rf"(?:{DECODER}|{CLASSIFIER})decoding_cross_attention)"
    r"\.(.+)\.(weight|bias)"
)
# Names inside a layer; the key and the value projection become one.
LAYER_NAMES = {
    "attention.attention.layernorm1": "attention_norm",
    "attention.attention.query": "attention.query",
    "attention.attention.key": "attention.key",
    "attention.attention.value": "attention.value",
    "attention.output.dense": "attention.output",
    "layernorm": "mlp_norm",
    "mlp.dense1": "mlp.up",
    "mlp.dense2": "mlp.down",
}


def convert_folder(
    checkpoint: Path, modality: str | None = None, image_size: Sequence[int] | None = None, **config_fields: Any
) -> Converted:
    """A checkpoint of the authors as `SMAForMaskedModeling`, or a fine-tuned one as `SMAForSequenceClassification`.

    Args:
        checkpoint: A folder with config.json and pytorch_model.bin.
        modality: Name of the modality, "series" or "image", of a model of continuous inputs: the file does not say which.
        image_size: Height and width of an image model; None takes the square that the position table fits.
        config_fields: Further `SMAConfig` fields, which replace the file's.

    Raises:
        ValueError: A file is missing or damaged, a setting has no counterpart here, tensors are missing, left over or
            contradict each other, or an argument does not fit.
    """
    settings = _read_settings(checkpoint / "config.json")
    state = without_aliases(read_checkpoint(checkpoint / "pytorch_model.bin"))
    is_finetuned = any(name.startswith(CLASSIFIER) for name in state)
    if not is_finetuned:
        _check_pretraining(state)
    mask_fields, notes = _mask_fields(settings)
    fields = {
        **_encoder_fields(settings),
        **_input_fields(settings, modality, image_size),
        **(_classifier_fields(settings) if is_finetuned else _decoder_fields(settings, state)),
        **mask_fields,
        **config_fields,
    }
    try:
        config = hf_maskssl.SMAConfig(**fields)
    except StrictDataclassError as error:
        raise ValueError(f"the checkpoint's settings and the arguments do not make an SMA: {error}") from error
    kind = hf_maskssl.SMAForSequenceClassification if is_finetuned else hf_maskssl.SMAForMaskedModeling
    model: PreTrainedModel = kind(config)
    renamed = rename(state)
    if is_finetuned and "query" in renamed:
        renamed["query"] = renamed["query"].unsqueeze(0)
    elif config.tie_word_embeddings:  # the file has one table
        renamed["decoder.output.weight"] = renamed["sma.embeddings.token_embeddings.weight"]
    load_completely(model, renamed)
    # What a fine-tuned file does not say of masks concerns no classifier.
    not_stored = ["modality"] * (settings["input_type"] == "continuous") if is_finetuned else _not_stored(settings)
    assumed = {name: vars(config)[name] for name in not_stored}
    tokenizer = None
    if config.vocab_size == BYTE_VOCABULARY:  # theirs is one of bytes with the same numbers
        tokenizer = build_byte_tokenizer(config.num_tokens)
    if is_finetuned:
        notes.append(
            "The file is a classifier's: open it with `AutoModelForSequenceClassification`; `AutoModelForPreTraining` would "
            "start a new decoder."
        )
    if config.drop_path_rate:
        notes.append("Stochastic depth grows over the layers here; the authors drop every layer alike.")
    if config.hidden_dropout_prob:
        notes.append("In training, dropout also acts inside the MLPs here; the authors' acts on their outputs alone.")
    return Converted(model, assumed, tokenizer, notes)


def _read_settings(path: Path) -> dict[str, Any]:
    """config.json over the defaults of the authors' class."""
    if not path.is_file():
        raise ValueError(
            f"checkpoint {path.parent} has no config.json: give the authors' folder, as downloaded from the Hub."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("model_type") != "sma" or "auto_map" in config:
        kind = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        raise ValueError(f"{path} is not a configuration of the authors' SMA, but of {kind!r}.")
    return DEFAULTS | config


def _refuse(field: str, value: object, expected: str) -> None:
    raise ValueError(f"config.json: `{field}` is {value!r}, which has no counterpart here: expected {expected}.")


def _arguments(settings: Mapping[str, Any] | None, defaults: Mapping[str, Any], field: str) -> dict[str, Any]:
    """A nested dictionary over its defaults, every key of it known."""
    for name in settings or {}:
        if name not in defaults:
            raise ValueError(f"config.json: `{field}` has the unknown key {name!r}; known: {sorted(defaults)}.")
    return {**defaults, **(settings or {})}


def _encoder_fields(settings: dict[str, Any]) -> dict[str, Any]:
    is_cross = settings["encoder_type"] == "cross_attention"
    hidden_size, qk_channels = settings["latent_channels"], settings["qk_channels"]
    if qk_channels is None:
        _refuse("qk_channels", None, "a width")
    if settings["v_channels"] != hidden_size:
        _refuse("v_channels", settings["v_channels"], f"latent_channels, {hidden_size}")
    if is_cross and settings["encoder_cross_attention_channels"] not in (None, 0, qk_channels):
        _refuse(
            "encoder_cross_attention_channels",
            settings["encoder_cross_attention_channels"],
            f"qk_channels, {qk_channels}",
        )
    if not settings["use_query_residual"]:
        _refuse("use_query_residual", False, "true")
    fields = {
        "encoder_type": settings["encoder_type"],
        "hidden_size": hidden_size,
        "embedding_size": settings["embedded_channels"],
        "qk_channels": qk_channels,
        "v_channels": hidden_size,
        "num_hidden_layers": settings["num_self_attends_per_block"] + 1,
        "num_layer_repeats": settings["num_blocks"],
        "num_attention_heads": settings["num_self_attention_heads"],
        "intermediate_size": settings["self_attention_widening_factor"] * hidden_size,
        "use_bias": settings["dense_use_bias"],
        "hidden_act": settings["hidden_act"],
        "hidden_dropout_prob": settings["hidden_dropout_prob"],
        "attention_probs_dropout_prob": settings["attention_dropout_prob"],
        "drop_path_rate": settings["drop_path_rate"],
        "initializer_range": settings["initializer_range"],
    }
    if is_cross:
        fields["num_latents"] = settings["num_latents"]
        fields["num_cross_attention_heads"] = settings["num_cross_attention_heads"]
        fields["cross_intermediate_size"] = settings["cross_attention_widening_factor"] * hidden_size
    return fields


def _input_fields(settings: dict[str, Any], modality: str | None, image_size: Sequence[int] | None) -> dict[str, Any]:
    length = settings["max_position_embeddings"]
    if settings["input_type"] == "discrete":
        if modality is not None or image_size is not None:
            raise ValueError("`modality` and `image_size` belong to continuous inputs; this checkpoint reads ids.")
        vocab_size, pad_token_id = settings["num_discrete_tokens"], settings["pad_token_id"]
        if pad_token_id is None and vocab_size == BYTE_VOCABULARY:
            pad_token_id = 0
        fields = {"modality": "tokens", "vocab_size": vocab_size, "max_position_embeddings": length}
        return {**fields, "pad_token_id": pad_token_id}
    if settings["input_type"] != "continuous":
        _refuse("input_type", settings["input_type"], "'discrete' or 'continuous'")
    if not settings["use_position_embeddings"]:
        _refuse("use_position_embeddings", False, "true")
    if modality is None and image_size is None:
        raise ValueError(
            f"the file does not say whether its {length} positions are pixels or steps of a series: pass --modality "
            "image (with --image_size HEIGHT WIDTH unless square) or --modality series."
        )
    if modality == "series":
        if image_size is not None:
            raise ValueError(f"`image_size` {list(image_size)} was given for a series: leave it out.")
        return {"modality": "series", "series_length": length, "num_channels": settings["input_channels"]}
    size = [math.isqrt(length)] * 2 if image_size is None else list(image_size)
    if math.prod(size) != length:
        raise ValueError(
            f"`image_size` {size} has {math.prod(size)} pixels, the checkpoint's position table {length}: pass "
            "--image_size HEIGHT WIDTH of the pre-training images."
        )
    return {"modality": "image", "image_size": size, "num_channels": settings["input_channels"]}


def _decoder_fields(settings: dict[str, Any], state: State) -> dict[str, Any]:
    teacher = _arguments(settings["teacher_args"], TEACHER_DEFAULTS, "teacher_args")
    decoder = _arguments(
        teacher["reconstruction_decoder_args"], DECODER_DEFAULTS, "teacher_args.reconstruction_decoder_args"
    )
    loss = "crossentropy" if settings["input_type"] == "discrete" else "mse"
    transforms = {name for name, _ in teacher["train_transform_args"] or []}
    embedding = settings["embedded_channels"]
    query_width = decoder["query_num_channels"] or embedding
    for field, value, is_fine, expected in [
        (
            "teacher_name",
            settings["teacher_name"],
            settings["teacher_name"] == DEFAULTS["teacher_name"],
            "its default",
        ),
        ("final_project", settings["final_project"], settings["final_project"], "true"),
        ("reconstruction_loss_fn", teacher["reconstruction_loss_fn"], teacher["reconstruction_loss_fn"] == loss, loss),
        (
            "reconstruction_weighted_loss",
            teacher["reconstruction_weighted_loss"],
            not teacher["reconstruction_weighted_loss"],
            "false",
        ),
        ("train_transform_args", sorted(transforms), transforms <= {"IdentityTransform"}, "none"),
        ("query_num_channels", query_width, query_width == embedding, f"embedded_channels, {embedding}"),
        ("post_decoder_layers", decoder["post_decoder_layers"], decoder["post_decoder_layers"] is None, "null"),
    ]:
        if not is_fine:
            _refuse(field, value, expected)
    v_channels = decoder["v_channels"] or query_width
    clip = teacher["target_clip"]
    return {
        "decoder_qk_channels": decoder["qk_channels"] or query_width,
        "decoder_v_channels": v_channels,
        "decoder_intermediate_size": decoder["widening_factor"] * v_channels,
        "decoder_num_attention_heads": decoder["num_heads"] or settings["decoder_heads"],
        "decoder_query_residual": decoder["use_query_residual"],
        # Their code shares tables under conditions; the tensors show the result.
        "decoder_shared_positions": f"{DECODER}decoder_latents.latents" not in state,
        "tie_word_embeddings": f"{DECODER}final_project.weight" not in state,
        "decoder_mask_token": f"{DECODER}learned_mask_token" in state,
        "target_mean": _floats(teacher["target_mean"]),
        "target_std": _floats(teacher["target_std"]),
        "target_clip": None if clip is None else float(clip),
    }


def _classifier_fields(settings: dict[str, Any]) -> dict[str, Any]:
    """The authors' task head: one learned query, as wide as the hidden states, that attends to them."""
    width, qk_channels = settings["latent_channels"], settings["qk_channels"]
    for field, expected, default in [
        ("decoder_type", "cross_attention", None),
        ("decoder_latent_channels", width, width),
        ("decoder_attention_channels", qk_channels, qk_channels),
        ("num_outputs", 1, 1),
        ("share_decoder_queries", False, False),
        ("share_embedding_weights", False, False),
        ("post_decoder_layers", None, None),
    ]:
        value = default if settings[field] is None else settings[field]
        if value != expected:
            _refuse(field, settings[field], repr(expected))
    return {
        "num_labels": settings["output_channels"],
        "classifier_pooling": "query",
        "classifier_intermediate_size": width,
        "classifier_num_attention_heads": settings["decoder_heads"],
        "classifier_norm_eps": 1e-12,
    }


def _floats(value: float | list[float] | None) -> float | list[float] | None:
    if value is None:
        return None
    return [float(item) for item in value] if isinstance(value, list) else float(value)


def _mask_fields(settings: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The choice of masks, and notes on it for the card."""
    transforms = settings["cross_train_noising_args"]
    if not transforms:
        return {}, []
    if len(transforms) != 1 or transforms[0][0] != GUIDED_MASK:
        _refuse("cross_train_noising_args", [name for name, _ in transforms], f"one {GUIDED_MASK}")
    mask = _arguments(transforms[0][1], GUIDED_MASK_DEFAULTS, "cross_train_noising_args")
    if mask["head_aggregation"] not in HEAD_AGGREGATIONS:
        _refuse("head_aggregation", mask["head_aggregation"], "'mean' or 'random_mix'")
    if mask["mask_self"] and not mask["varying_length"]:
        mask["mask_self"] = False  # their code reads it for varying lengths alone
    fields = {
        "masking": "guided",
        "mask_ratio": float(mask["masking_ratio"]),
        "num_masked_per_query": mask["num_per_query"],
        "head_aggregation": HEAD_AGGREGATIONS[mask["head_aggregation"]],
        "mask_queries": mask["mask_self"],
        "reconstruct_visible": not mask["exclude_seen_reconstruction"],
        # Their code draws as many latents for a short sample as for the batch's longest.
        "padded_query_count": settings["encoder_type"] == "cross_attention",
    }
    if mask["select_initial_ratio"]:
        fields["mask_schedule"] = "mix" if mask["varying_length"] else "widen"
        fields["mask_schedule_start"] = float(mask["select_initial_ratio"])
    notes = []
    if not mask["varying_length"] and settings["input_type"] == "discrete":
        notes.append("Masked tokens are counted over a sample's real tokens; the authors' run counted padding too.")
    return fields, notes


def _not_stored(settings: dict[str, Any]) -> list[str]:
    """Our fields that this file does not store."""
    names = []
    if settings["input_type"] == "continuous":
        names.append("modality")
    transforms = settings["cross_train_noising_args"]
    if not transforms:
        return [*names, "masking", "mask_ratio", "num_masked_per_query"]
    return [*names, "mask_schedule_fraction"] if transforms[0][1].get("select_initial_ratio") else names


# ---- weights ------------------------------------------------------------------------------------------------------


def without_aliases(state: State) -> State:
    """Every tensor once, under its first name.

    Raises:
        ValueError: Two names of one tensor hold different values.
    """
    kept: State = {}
    for name, value in state.items():
        original = name
        for alias, target in ALIASES:
            if name.startswith(alias):
                original = target + name.removeprefix(alias)
        if original in kept and not torch.equal(kept[original], value):
            raise ValueError(f"the checkpoint contradicts itself: {name} differs from {original}, its other name.")
        kept.setdefault(original, value)
    return kept


def _check_pretraining(state: State) -> None:
    if not any(name.startswith(DECODER) for name in state) or not any(name.startswith("perceiver.") for name in state):
        raise ValueError(
            f"not a checkpoint of SMA: expected perceiver.* and {DECODER}* of pre-training, or {CLASSIFIER}* of a classifier, "
            f"got {sorted(state)[:5]}."
        )


def rename(state: State) -> State:
    """The authors' names and layout -> ours.

    Args:
        state: Result of `without_aliases`.

    Raises:
        ValueError: A name is unknown.
    """
    renamed = {_our_name(name): value for name, value in state.items()}
    for name in [name for name in renamed if ".attention.key." in name]:
        value = renamed.pop(name.replace(".key.", ".value."), renamed[name][:0])
        renamed[name.replace(".key.", ".key_value.")] = torch.cat([renamed.pop(name), value])
    return renamed


def _our_name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    match = LAYERS.fullmatch(name)
    if match is None or match[2] not in LAYER_NAMES:
        raise ValueError(f"the checkpoint has the tensor {name}, which an SMA does not have.")
    layer = match[1]
    for theirs, ours in (
        ("perceiver.encoder.cross_attention", "sma.input_layer"),
        ("perceiver.encoder.self_attends", "sma.layers"),
        (f"{DECODER}decoding_cross_attention", "decoder.layer"),
        (f"{CLASSIFIER}decoding_cross_attention", "query_layer"),
    ):
        layer = layer.replace(theirs, ours)
    return f"{layer}.{LAYER_NAMES[match[2]]}.{match[3]}"
