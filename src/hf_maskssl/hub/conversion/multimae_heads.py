"""Heads of EPFL-VILAB/MultiMAE's fine-tuned checkpoints: which head a file has, its sizes, and its weights under our names."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

import hf_maskssl

from .metamae import BLOCK_NAMES
from .official_files import State, rename_weight

# The authors' names in a head -> ours; those of DPT are made by `_dpt_name`.
SEGMENTER_NAMES = [
    ("cls_emb", "class_tokens"),
    ("proj_dec.", "projection."),
    ("blocks.", "layers."),
    ("decoder_norm.", "norm."),
    ("patch_proj.", "patch_projection."),
    ("classes_proj.", "class_projection."),
]
CONVNEXT_NAMES = [("proj_dec.", "projection."), ("blocks.", "layers."), ("final_layer.", "classifier.")]
CONVNEXT_PARTS = [(".norm.", ".layernorm.")]
LINEAR_NAMES = [("norm.", "classifier_norm."), ("head.", "classifier.")]
DPT_OUTPUTS = {"regression": {"0": "output_in", "2": "output_mid", "4": "output_out"}}
DPT_OUTPUTS["classes"] = {"0": "output_in", "4": "classifier"}
# The same tensors as act_{1..4}_postprocess and layer{1..4}_rn, which the authors' modules hold twice.
DPT_TWICE = re.compile(r"act_postprocess\.|scratch\.layer_rn\.")


@dataclass(frozen=True)
class ConvertedHead:
    """A head of the authors as one of ours.

    Attributes:
        model_class: Class of the model.
        prefix: Name of the head in the model, with a dot; "" where its layers are the model's own.
        fields: Configuration fields of its sizes.
        weights: Our name below the prefix -> tensor.
    """

    model_class: type[PreTrainedModel]
    prefix: str
    fields: dict[str, Any]
    weights: State

    def state(self) -> State:
        """Its weights under their names in the model."""
        return {f"{self.prefix}{name}": value for name, value in self.weights.items()}


def head_names(state: State) -> list[str]:
    """Outputs of a checkpoint that are heads, and no decoders of pre-training."""
    tasks = dict.fromkeys(name.split(".")[1] for name in state if name.startswith("output_adapters."))
    return [task for task in tasks if f"output_adapters.{task}.mask_token" not in state]


def take_head(state: State, settings: Mapping[str, Any]) -> tuple[State, ConvertedHead | None]:
    """Split a fine-tuned checkpoint into its encoder and its head, None where it has none.

    Args:
        state: The file's weights.
        settings: The `args` of a training checkpoint: `decoder_main_tasks` are the inputs that a head reads.

    Raises:
        ValueError: Several heads, a head beside decoders, or one that is none of the authors' Segmenter, ConvNeXt, DPT and linear
            heads.
    """
    names = head_names(state)
    if not names:
        return state, None
    prefixes = [name for name in state if name.startswith("output_adapters.")]
    own = {name: state[name] for name in prefixes if name.split(".")[1] in names}
    if len(names) > 1 or len(own) < len(prefixes):
        raise ValueError(
            f"this is a fine-tuned checkpoint: its output_adapters {names} are heads, beside others. Checkpoints of "
            "pre-training and those with one head are converted: convert the one it was made from and fine-tune that."
        )
    body = {name: value for name, value in state.items() if name not in own}
    start = f"output_adapters.{names[0]}."
    head = {name.removeprefix(start): value for name, value in own.items()}
    found = _convert(names[0], head)
    return body, _with_inputs(found, body, head, settings)


def _convert(task: str, head: State) -> ConvertedHead:
    converters: list[tuple[str, Callable[[str, State], ConvertedHead]]] = [
        ("cls_emb", _segmenter),
        ("final_layer.weight", _convnext),
        ("scratch.layer1_rn.weight", _dpt),
        ("norm.weight", _linear),
    ]
    for landmark, convert in converters:
        if landmark in head:
            return convert(task, head)
    raise ValueError(
        f"this is a fine-tuned checkpoint: its output_adapters ['{task}'] are no head that the authors' code has (Segmenter, "
        f"ConvNeXt, DPT, linear), but {sorted(head)[:5]}."
    )


def _segmenter(task: str, head: State) -> ConvertedHead:
    fields = {
        "segmentation_head": "segmenter",
        "num_labels": head["cls_emb"].shape[1],
        "segmenter_hidden_size": head["cls_emb"].shape[-1],
        "segmenter_num_layers": sum(name.endswith(".norm1.weight") for name in head),
    }
    if "blocks.0.mlp.fc1.weight" in head:
        fields["segmenter_intermediate_size"] = len(head["blocks.0.mlp.fc1.weight"])
    weights = {rename_weight(name, SEGMENTER_NAMES, BLOCK_NAMES): value for name, value in head.items()}
    return ConvertedHead(hf_maskssl.MultiMAEForSemanticSegmentation, "segmentation_head.", fields, weights)


def _convnext(task: str, head: State) -> ConvertedHead:
    num_labels, width = head["final_layer.weight"].shape[:2]
    fields = {
        "segmentation_head": "convnext",
        "num_labels": num_labels,
        "segmentation_hidden_size": len(head["proj_dec.weight"]),
        "segmentation_cells_per_token": len(head["proj_dec.weight"]) // width,
        "segmentation_num_layers": sum(name.endswith(".dwconv.weight") for name in head),
    }
    weights = {rename_weight(name, CONVNEXT_NAMES, CONVNEXT_PARTS): value for name, value in head.items()}
    return ConvertedHead(hf_maskssl.MultiMAEForSemanticSegmentation, "segmentation_head.", fields, weights)


def _linear(task: str, head: State) -> ConvertedHead:
    fields = {"num_labels": len(head["head.weight"]), "classifier_pooling": "mean"}
    weights = {rename_weight(name, LINEAR_NAMES, []): value for name, value in head.items()}
    return ConvertedHead(hf_maskssl.MultiMAEForImageClassification, "", fields, weights)


def _dpt(task: str, head: State) -> ConvertedHead:
    if any("running_mean" in name for name in head):
        raise ValueError(f"the DPT head '{task}' has batch norm (use_bn), which has no counterpart here.")
    kind = "regression" if "head.2.weight" in head else "classes"
    fields: dict[str, Any] = {
        "depth_hidden_size": len(head["scratch.layer1_rn.weight"]),
        "depth_reassemble_sizes": [head[f"scratch.layer{number}_rn.weight"].shape[1] for number in (1, 2, 3, 4)],
        "num_labels": len(head["head.4.weight"]),
    }
    # The coarsest map is fused with no other, so that this layer of it is never used.
    unused = "scratch.refinenet4.resConfUnit1."
    kept = {name: value for name, value in head.items() if not DPT_TWICE.match(name) and not name.startswith(unused)}
    weights = {_dpt_name(name, DPT_OUTPUTS[kind]): value for name, value in kept.items()}
    if kind == "classes":
        fields["segmentation_head"] = "dpt"
        return ConvertedHead(hf_maskssl.MultiMAEForSemanticSegmentation, "segmentation_head.", fields, weights)
    if task == "depth":
        return ConvertedHead(hf_maskssl.MultiMAEForDepthEstimation, "depth_head.", fields, weights)
    return ConvertedHead(hf_maskssl.MultiMAEForDenseRegression, "regression_head.", fields, weights)


def _dpt_name(name: str, outputs: Mapping[str, str]) -> str:
    """Our name of a tensor of a DPT head; stages are counted from the finest, theirs from 1."""
    if match := re.fullmatch(r"act_(\d)_postprocess\.(\d)\.(\w+)", name):
        return f"reassemble.{int(match[1]) - 1}.{('projection', 'resize')[int(match[2])]}.{match[3]}"
    if match := re.fullmatch(r"scratch\.layer(\d)_rn\.weight", name):
        return f"projections.{int(match[1]) - 1}.weight"
    if match := re.fullmatch(r"scratch\.refinenet(\d)\.out_conv\.(\w+)", name):
        return f"fusion.{int(match[1]) - 1}.projection.{match[2]}"
    if match := re.fullmatch(r"scratch\.refinenet(\d)\.resConfUnit(\d)\.conv(\d)\.(\w+)", name):
        return f"fusion.{int(match[1]) - 1}.residual_layer{match[2]}.convolution{match[3]}.{match[4]}"
    if (match := re.fullmatch(r"head\.(\d)\.(\w+)", name)) and match[1] in outputs:
        return f"{outputs[match[1]]}.{match[2]}"
    return name  # `load_completely` refuses what is left over


def _with_inputs(found: ConvertedHead, body: State, head: State, settings: Mapping[str, Any]) -> ConvertedHead:
    """The head with the modalities whose tokens it reads: the file's `decoder_main_tasks`, or as many as it has channels for.

    Raises:
        ValueError: It reads some of the inputs, and the file does not say which.
    """
    if found.model_class is hf_maskssl.MultiMAEForImageClassification:
        return found
    inputs = list(dict.fromkeys(name.split(".")[1] for name in body if name.startswith("input_adapters.")))
    first = next(name for name in ("proj_dec.weight", "act_1_postprocess.0.weight") if name in head)
    read = _channels(head[first]) // body["global_tokens"].shape[-1]
    named = settings.get("decoder_main_tasks")
    names = named.split("-") if isinstance(named, str) else list(named or [])
    if not names:
        names = inputs if read == len(inputs) else ["rgb"] if read == 1 and "rgb" in inputs else []
    if len(names) != read or not set(names) <= set(inputs):
        raise ValueError(
            f"the head reads {read} of the inputs {inputs}, and the file's decoder_main_tasks are {named!r}, which does not say "
            "which: convert a checkpoint that has its `args`."
        )
    found.fields["head_modalities"] = names
    return found


def _channels(weight: torch.Tensor) -> int:
    return int(weight.shape[1])
