"""Checkpoints of EPFL-VILAB/MultiMAE into models of this package: their training checkpoints, the released weights
("multimae", "multivit"), the rgb path in timm's names ("timm"), and fine-tuned checkpoints with one head; and the ViTs that
the paper's Table 1 compares with, from their authors' files in timm's names (DeiT, DINO, MoCo-v3, MAE) or from transformers."""

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel

import hf_maskssl

from ...models.configuration_multimae import Modality
from ...models.image_processing_multimae import MultiMAEImageProcessor
from ...models.layers import sincos_positions
from ...models.vit_exchange import position_fields
from .metamae import BLOCK_NAMES
from .multimae_heads import ConvertedHead, take_head
from .official_files import Converted, State, load_completely, read_file, rename_weight, weights_in
from .vit import convert_vit, without_others

# Configuration fields that the weights do not determine; a training checkpoint's `args` do.
NOT_IN_WEIGHTS = {
    "num_attention_heads": "number of heads of the encoder (default: the file's, else 12 for ViT-B and 16 for ViT-L)",
    "decoder_num_attention_heads": "number of heads of the decoders (default: the file's, else 8)",
    "num_visible_tokens": "number of visible tokens in pre-training (default: the file's, else 98)",
    "dirichlet_alpha": "concentration of the Dirichlet distribution in pre-training (default: the file's, else 1)",
    "segmenter_num_attention_heads": "number of heads of a fine-tuned checkpoint's Segmenter head (default: 12)",
}
HEADS_OF_WIDTH = {768: 12, 1024: 16}
# Modalities with fixed names in the authors' code: (loss, stride).
KNOWN_MODALITIES = {"rgb": ("mse", 1), "depth": ("l1", 1), "semseg": ("cross_entropy", 4)}
# Settings of `args` under which their model computes something that ours does not.
ONLY_VALUES = {"decoder_use_task_queries": True, "decoder_use_xattn": True, "loss_on_unmasked": False}
TOLERANCE = 1e-4  # largest difference of position tables, which the authors compute in float32

NAMES = [
    ("global_tokens", "multimae.embeddings.global_tokens"),
    ("encoder.", "multimae.layers."),
    ("norm.", "multimae.norm."),
]
DECODER_NAMES = [
    ("task_embeddings.", "modality_embeddings."),
    ("proj_context.", "context_projection."),
    ("out_norm.", "output_norm."),
    ("decoder.q.", "cross_attention.query."),
    ("decoder.kv.", "cross_attention.key_value."),
    ("decoder.proj.", "cross_attention.output."),
    ("mlp.fc1.", "mlp.up."),
    ("mlp.fc2.", "mlp.down."),
    ("decoder_transformer.", "layers."),
    ("out_proj.", "prediction."),
]
# Every key that is converted (the authors' names); any other is refused by name.
BLOCK = r"\d+\.(norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(weight|bias)"
KNOWN_KEYS = re.compile(
    r"global_tokens|norm\.(weight|bias)"
    r"|input_adapters\.\w+\.(pos_emb|class_emb\.weight|proj\.(weight|bias))"
    rf"|encoder\.{BLOCK}"
    r"|output_adapters\.\w+\.(pos_emb|mask_token|task_embeddings\.\w+"
    r"|(proj_context|query_norm|context_norm|out_norm|out_proj|decoder\.(q|kv|proj)|mlp\.fc[12])\.(weight|bias)"
    rf"|decoder_transformer\.{BLOCK})"
)


def convert_file(checkpoint: Path, **fields: Any) -> Converted:
    """A file of the authors as `MultiMAEForPretraining`, as the model of its head, or as `MultiMAEModel` where it has neither.

    Sizes are read off the tensors; objective and numbers of heads off the `args` of a training checkpoint. Inputs whose position
    table is not the fixed one get learned positions. What is no file is a ViT of transformers, see `convert_vit`.

    Args:
        checkpoint: File checkpoint-<epoch>.pth, or released weights, or a ViT in timm's names; or folder or Hub name of a ViT of
            transformers.
        fields: Further `MultiMAEConfig` fields, which replace the file's.

    Raises:
        ValueError: The file cannot be read, has tensors or settings without a counterpart here (another position table of an
            output among them), or an argument does not fit.
        FileNotFoundError: There is no such folder or Hub name.
    """
    if checkpoint.is_dir() or not (checkpoint.exists() or checkpoint.suffix):
        return convert_vit(str(checkpoint), **fields)
    content = read_file(checkpoint, [argparse.Namespace])
    settings: dict[str, Any] = {}
    if isinstance(content, dict) and isinstance(content.get("args"), argparse.Namespace):
        settings = dict(vars(content["args"]))
    weights = weights_in(content, checkpoint)
    state, head = take_head(from_timm(weights), settings)
    _check_keys(state)
    _check_settings(settings)
    state, notes = without_padding_class(state)
    log_variances = _log_variances(content)
    stored = _stored_fields(settings, state)
    heads = HEADS_OF_WIDTH.get(state["global_tokens"].shape[-1])
    defaults = {"decoder_num_attention_heads": 8, "num_visible_tokens": 98, "dirichlet_alpha": 1.0}
    defaults |= {} if heads is None else {"num_attention_heads": heads}
    if log_variances is not None:
        stored["task_balancing"] = "uncertainty"
    own = {} if head is None else head.fields
    model = _fill({**defaults, **_sizes(state), **stored, **own, **fields}, state, log_variances, head)
    unsaid = [name for name in NOT_IN_WEIGHTS if name not in stored]
    if own.get("segmentation_head") != "segmenter":
        unsaid.remove("segmenter_num_attention_heads")
    assumed = {name: vars(model.config)[name] for name in unsaid}
    processor = _processor(model.config, settings)
    if processor is not None:
        notes.append("The file holds no processor: the one beside it prepares images as the authors' code does.")
    origin = "a file in timm's names" if "cls_token" in without_others(weights) else None
    return Converted(model, assumed, processor, notes, origin)


def _processor(config: PreTrainedConfig, settings: dict[str, Any]) -> MultiMAEImageProcessor | None:
    """A processor of rgb, depth and class maps, as in the authors' training script; None for any other modality."""
    modalities = {name: dict(fields) for name, fields in config.modalities.items() if "target_of" not in fields}
    if not set(modalities) <= set(KNOWN_MODALITIES):
        return None
    if "depth" in modalities:
        modalities["depth"]["invalid_value"] = None  # theirs reads zeros as depths like any other
    if "depth" in modalities and not settings.get("standardize_depth", True):
        modalities["depth"] |= {"standardize": "none", "scale": 2**-16}
    return MultiMAEImageProcessor(modalities, config.image_size, ignore_index=config.semantic_loss_ignore_index)


def _fill(
    fields: dict[str, Any], state: State, log_variances: torch.Tensor | None, head: ConvertedHead | None
) -> PreTrainedModel:
    """The model of these fields with these weights."""
    if "num_attention_heads" not in fields:
        raise ValueError(
            f"the file does not say how many heads an encoder of width {fields['hidden_size']} has: pass "
            "--num_attention_heads."
        )
    try:
        config = hf_maskssl.MultiMAEConfig(**fields)
    except StrictDataclassError as error:
        raise ValueError(f"the checkpoint's sizes and the arguments do not make a MultiMAE: {error}") from error
    weights = rename(state, config)
    if head is not None:
        weights |= head.state()
        converted = head.model_class(config)
        load_completely(converted, weights)
        return converted
    model: PreTrainedModel
    if _names(state, "output_adapters"):
        pretraining = hf_maskssl.MultiMAEForPretraining(config)
        if log_variances is not None:
            tasks = _names(state, "output_adapters")
            weights["balancer.rule.log_variances"] = _in_order(log_variances, tasks, list(pretraining.decoders))
        # The rest of a balancer's state starts as in a new run.
        weights = {k: v for k, v in pretraining.state_dict().items() if k.startswith("balancer.")} | weights
        model = pretraining
    else:
        model = hf_maskssl.MultiMAEModel(config)
        weights = {name.removeprefix("multimae."): value for name, value in weights.items()}
    load_completely(model, weights)
    return model


# ---- content of the file ------------------------------------------------------------------------------------------


def from_timm(state: State) -> State:
    """timm's names (cls_token, pos_embed, patch_embed, blocks) -> MultiMAE's; files in other names stay as they are.

    The rows of `pos_embed` for the class token, and for a distillation token, are added to these, which have no position here.
    A ViT's classifier is left behind, and of a MoCo-v3 everything but its `base_encoder`.

    Raises:
        ValueError: The position table is not one of a square grid with these tokens.
    """
    timm = without_others(state)
    if "cls_token" not in timm or "pos_embed" not in timm:
        return state
    tokens = torch.cat([timm[name] for name in ("cls_token", "dist_token") if name in timm], dim=1)
    rows = timm["pos_embed"].shape[1] - tokens.shape[1]
    side = math.isqrt(max(0, rows))
    if side < 1 or side * side != rows:
        raise ValueError(f"pos_embed has {rows} rows besides those of class tokens, which is no square grid.")
    grid = timm["pos_embed"][:, tokens.shape[1] :].transpose(1, 2)
    named: State = {
        "global_tokens": tokens + timm["pos_embed"][:, : tokens.shape[1]],
        "input_adapters.rgb.pos_emb": grid.reshape(1, -1, side, side),
    }
    for name, value in timm.items():
        if name not in ("cls_token", "dist_token", "pos_embed"):
            name = re.sub(r"^patch_embed\.", "input_adapters.rgb.", name)
            named[re.sub(r"^blocks\.", "encoder.", name)] = value
    return named


def _check_keys(state: State) -> None:
    if "global_tokens" not in state or not _names(state, "input_adapters"):
        raise ValueError(
            "not a MultiMAE checkpoint: expected global_tokens, input_adapters.* and encoder.* (or timm's cls_token, "
            f"pos_embed, patch_embed.* and blocks.*), got {sorted(state)[:5]}."
        )
    if any(re.match(r"input_adapters\.\w+\.proj\.\d", name) for name in state):
        raise ValueError(
            "its class embeddings are interpolated before they are projected (interpolate_class_emb, proj.1.*), which "
            "has no counterpart here."
        )
    unknown = [name for name in state if KNOWN_KEYS.fullmatch(name) is None]
    if unknown:
        raise ValueError(f"the checkpoint has tensors that a MultiMAE does not have: {unknown[:8]}.")
    # Tensors from which sizes are read, with the number of their dimensions.
    landmarks = {"global_tokens": 3, "encoder.0.mlp.fc1.weight": 2}
    for name in _names(state, "input_adapters"):
        landmarks |= {f"input_adapters.{name}.pos_emb": 4, f"input_adapters.{name}.proj.weight": 4}
    for name in _names(state, "output_adapters"):
        landmarks |= {f"output_adapters.{name}.mlp.fc1.weight": 2, f"output_adapters.{name}.out_proj.bias": 1}
    wrong = [name for name, dims in landmarks.items() if name not in state or state[name].dim() != dims]
    if wrong:
        raise ValueError(f"the checkpoint lacks these tensors, or they are not of a MultiMAE's shape: {wrong[:8]}.")


def _check_settings(settings: dict[str, Any]) -> None:
    for name, only in ONLY_VALUES.items():
        if settings.get(name, only) != only:
            raise ValueError(f"`args.{name}` is {settings[name]!r}, which has no counterpart here: expected {only}.")


def without_padding_class(state: State) -> tuple[State, list[str]]:
    """The state without the row of zeros that stands for "no class" at the end of a class-embedding table.

    Returns:
        The state, and notes for the card.

    Raises:
        ValueError: The table has another number of rows than its decoder predicts classes, and not because of that row.
    """
    state, notes = dict(state), []
    for name in _names(state, "input_adapters"):
        table = state.get(f"input_adapters.{name}.class_emb.weight")
        if table is None:
            continue
        predicted = _predicted_values(state, name)
        classes = len(table) if predicted is None else predicted // _pixels_of_patch(state, name)
        if predicted is None and len(table) > 1 and not table[-1].any():
            classes = len(table) - 1
        if len(table) == classes:
            continue
        if len(table) != classes + 1 or table[-1].any():
            raise ValueError(
                f"input_adapters.{name}.class_emb.weight has {len(table)} rows, its decoder predicts {classes} classes: "
                "expected as many, or one more of zeros."
            )
        state[f"input_adapters.{name}.class_emb.weight"] = table[:-1]
        notes.append(f"Class {classes} of '{name}' stood for no class; here that is `semantic_loss_ignore_index`.")
    return state, notes


def _log_variances(content: object) -> torch.Tensor | None:
    """The log variances of uncertainty weighting, one per output in the outputs' order."""
    balancer = content.get("loss_balancer") if isinstance(content, dict) else None
    if not balancer:
        return None
    values = {name.removeprefix("module."): value for name, value in balancer.items()}
    if set(values) != {"log_vars"}:
        raise ValueError(f"loss_balancer: expected log_vars of uncertainty weighting, got {sorted(values)}.")
    return values["log_vars"].detach()


def _in_order(log_variances: torch.Tensor, theirs: list[str], ours: list[str]) -> torch.Tensor:
    """Log variances, one per output, from the file's order of outputs into the model's."""
    if len(log_variances) != len(theirs):
        raise ValueError(f"loss_balancer.log_vars has {len(log_variances)} entries for the outputs {theirs}.")
    return log_variances[[theirs.index(name) for name in ours]]


# ---- sizes and settings -------------------------------------------------------------------------------------------


def _names(state: State, group: str) -> list[str]:
    """Modalities under `input_adapters` or `output_adapters`, in the file's order."""
    return list(dict.fromkeys(name.split(".")[1] for name in state if name.startswith(f"{group}.")))


def _depth(state: State, prefix: str) -> int:
    return sum(1 for name in state if name.startswith(prefix) and name.endswith(".norm1.weight"))


def _pixels_of_patch(state: State, name: str) -> int:
    return math.prod(state[f"input_adapters.{name}.proj.weight"].shape[-2:])


def _predicted_values(state: State, name: str) -> int | None:
    """The number of values of a patch that an output's decoder predicts."""
    bias = state.get(f"output_adapters.{name}.out_proj.bias")
    return None if bias is None else len(bias)


def _sizes(state: State) -> dict[str, Any]:
    first = _names(state, "input_adapters")[0]
    grid = state[f"input_adapters.{first}.pos_emb"].shape[-2:]
    patch = [size * _stride(first) for size in state[f"input_adapters.{first}.proj.weight"].shape[-2:]]
    fields = {
        "image_size": [rows * size for rows, size in zip(grid, patch, strict=True)],
        "patch_size": patch,
        "modalities": _modalities(state, patch),
        "hidden_size": state["global_tokens"].shape[-1],
        "num_global_tokens": state["global_tokens"].shape[1],
        "num_hidden_layers": _depth(state, "encoder."),
        "intermediate_size": len(state["encoder.0.mlp.fc1.weight"]),
        "qkv_bias": "encoder.0.attn.qkv.bias" in state,
        "final_norm": "norm.weight" in state,
        **_positions(state),
    }
    tasks = _names(state, "output_adapters")
    if tasks:
        prefix = f"output_adapters.{tasks[0]}."
        fields["decoder_hidden_size"] = state[f"{prefix}mask_token"].shape[-1]
        fields["decoder_num_hidden_layers"] = _depth(state, f"{prefix}decoder_transformer.")
        fields["decoder_intermediate_size"] = len(state[f"{prefix}mlp.fc1.weight"])
    return fields


def _positions(state: State) -> dict[str, str]:
    """The fields of the inputs' position tables: fixed in one order for all of them, or learned."""
    tables = [state[f"input_adapters.{name}.pos_emb"][0] for name in _names(state, "input_adapters")]
    found = [position_fields(table.flatten(1).T, (table.shape[1], table.shape[2])) for table in tables]
    return found[0] if all(fields == found[0] for fields in found) else {"position_embeddings": "learned"}


def _stride(name: str) -> int:
    return KNOWN_MODALITIES.get(name, ("", 1))[1]


def _modalities(state: State, patch: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Their adapters as `MultiMAEConfig.modalities`. An encoder without decoders could be trained further on all of
    its inputs."""
    inputs, outputs = _names(state, "input_adapters"), _names(state, "output_adapters")
    entries: dict[str, dict[str, Any]] = {}
    for name in inputs:
        weight = state[f"input_adapters.{name}.proj.weight"]
        table = state.get(f"input_adapters.{name}.class_emb.weight")
        entry: dict[str, Any] = {"kind": "continuous", "num_channels": weight.shape[1]}
        if table is not None:
            entry = {"kind": "categorical", "num_classes": len(table), "embedding_size": table.shape[1]}
        if patch[0] % weight.shape[-2] or patch[0] // weight.shape[-2] != patch[1] // weight.shape[-1]:
            raise ValueError(
                f"input_adapters.{name} has patches {list(weight.shape[-2:])}, another one {list(patch)}."
            )
        entries[name] = {**entry, "stride": patch[0] // weight.shape[-2], "loss": _loss(name, table is not None)}
        if outputs and name not in outputs:
            entries[name]["is_output"] = False
    for name in outputs:
        source = name.removeprefix("norm_")
        if name in entries:
            continue
        if source != name and (source in inputs or source in outputs):
            entries[name] = {"target_of": source, "loss": "standardized_mse"}
        else:
            entries[name] = _output_alone(state, name, patch)
    return entries


def _output_alone(state: State, name: str, patch: Sequence[int]) -> dict[str, Any]:
    """A modality that is predicted but not read, so that only its name shows its kind."""
    stride = _stride(name)
    count = (_predicted_values(state, name) or 0) // math.prod(size // stride for size in patch)
    entry: dict[str, Any] = {"kind": "continuous", "num_channels": count}
    if name == "semseg":
        entry = {"kind": "categorical", "num_classes": count}
    return {**entry, "stride": stride, "loss": _loss(name, name == "semseg"), "is_input": False}


def _loss(name: str, is_categorical: bool) -> str:
    return "cross_entropy" if is_categorical else KNOWN_MODALITIES.get(name, ("mse", 1))[0]


def _stored_fields(settings: dict[str, Any], state: State) -> dict[str, Any]:
    """Configuration fields that the `args` of a training checkpoint hold."""
    fields: dict[str, Any] = {}
    for theirs, ours in (
        ("decoder_num_heads", "decoder_num_attention_heads"),
        ("num_encoded_tokens", "num_visible_tokens"),
        ("sample_tasks_uniformly", "sample_modalities_uniformly"),
        ("drop_path", "drop_path_rate"),
    ):
        if theirs in settings:
            fields[ours] = settings[theirs]
    alphas = settings.get("alphas")
    if isinstance(alphas, (list, tuple)):
        names = _names(state, "input_adapters")
        if len(alphas) != len(names):
            raise ValueError(f"`args.alphas` {alphas} must have one number per input, {names}.")
        fields["dirichlet_alpha"] = dict(zip(names, map(float, alphas), strict=True))
    elif alphas is not None:
        fields["dirichlet_alpha"] = float(alphas)
    for size, heads in (("base", 12), ("large", 16)):
        if str(settings.get("model", "")).endswith(f"multimae_{size}"):
            fields["num_attention_heads"] = heads
    return fields


# ---- weights ------------------------------------------------------------------------------------------------------


def rename(state: State, config: PreTrainedConfig) -> State:
    """The authors' names and layouts -> ours. Fixed position tables are computed here: theirs are compared, then left out.

    Raises:
        ValueError: A position table is of another grid, or is not the fixed one although no input learns its positions.
    """
    modalities = config.modality_table()
    renamed: State = {}
    for name, value in state.items():
        group, _, rest = name.partition(".")
        modality, _, rest = rest.partition(".")
        if rest == "pos_emb":
            is_learned = group == "input_adapters" and config.position_embeddings == "learned"
            _check_positions(name, value, modalities[modality].grid(tuple(config.image_size)), config, is_learned)
            if is_learned:
                renamed[f"multimae.embeddings.positions_{modality}"] = value[0].flatten(1).T.contiguous()
        elif group == "input_adapters" and rest == "class_emb.weight":
            renamed[f"multimae.embeddings.class_embeddings.{modality}.weight"] = value
        elif group == "input_adapters":
            if rest == "proj.weight":  # a convolution's channels come first, ours last (fastest)
                value = value.movedim(1, -1).flatten(1)
            renamed[f"multimae.embeddings.projections.{modality}.{rest.removeprefix('proj.')}"] = value
        elif group == "output_adapters":
            if rest.startswith("out_proj."):
                value = _channels_last(name, value, modalities[modality])
            renamed[f"decoders.{modality}.{rename_weight(rest, DECODER_NAMES, BLOCK_NAMES)}"] = value
        else:
            renamed[rename_weight(name, NAMES, BLOCK_NAMES)] = value
    return renamed


def _channels_last(name: str, value: torch.Tensor, output: Modality) -> torch.Tensor:
    """Rows in the order (channel, row, column) -> (row, column, channel)."""
    shape = (output.output_channels, *output.patch_shape)
    if len(value) != math.prod(shape):
        raise ValueError(f"{name} has {len(value)} rows, a patch of '{output.name}' {math.prod(shape)} values.")
    return value.unflatten(0, shape).movedim(0, 2).flatten(0, 2)


def _check_positions(
    name: str, theirs: torch.Tensor, grid: tuple[int, int], config: PreTrainedConfig, is_learned: bool
) -> None:
    """Refuse positions `theirs` (1, D, rows, columns) of another grid, or that are not its fixed table where they must be.

    A decoder's learned table and the authors' scrambled one of a grid that is not square would make another model.
    """
    if tuple(theirs.shape[-2:]) != grid:
        raise ValueError(f"{name} is a table of {list(theirs.shape[-2:])} patches, its inputs have {list(grid)}.")
    if is_learned:
        return
    ours = sincos_positions(grid, theirs.shape[1], row_first=config.position_order == "row_first")
    difference = (ours - theirs[0].flatten(1).T.float()).abs().max().item()
    if not difference <= TOLERANCE:
        raise ValueError(
            f"{name} differs by up to {difference:.3g} from the fixed sine-cosine table of {list(grid)} patches: "
            "a decoder's learned positions have no counterpart here, neither has the authors' table of a grid that is not square."
        )
