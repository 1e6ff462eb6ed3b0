"""Opens every checkpoint of a folder through the Auto classes, and writes what they give.

Run as a program it does so without hf_maskssl, which it must therefore not import: `open_checkpoints.py FOLDER OUTPUT`.
"""

import importlib.abc
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoModelForPreTraining, AutoTokenizer

HEADS = ["AutoModelForSequenceClassification", "AutoModelForTokenClassification"]
DENSE_HEADS = ["AutoModelForSemanticSegmentation", "AutoModelForDepthEstimation", "AutoModelForImageToImage"]
IMAGE_HEADS = ["AutoModelForImageClassification", *DENSE_HEADS]
TEXT_HEADS = [*HEADS, "AutoModelForQuestionAnswering", "AutoModelForMultipleChoice", "AutoModelForMaskedLM"]
HEADS_OF = {"multimae": IMAGE_HEADS, "pos": TEXT_HEADS}


class Blocker(importlib.abc.MetaPathFinder):
    """The package is not installed."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.split(".")[0] == "hf_maskssl":
            raise ModuleNotFoundError(fullname)


def prepare(path: Path, remote: dict[str, bool]) -> tuple[dict[str, Any], list[str]]:
    """Two samples as the checkpoint's processors give them, and what these are."""
    inputs: dict[str, Any] = {}
    processors: list[Any] = []
    random = np.random.default_rng(0)
    if path.name in ("image", "pairs", "sma-image"):
        processors.append(AutoImageProcessor.from_pretrained(path, **remote))
        inputs |= processors[-1](random.random((2, processors[-1].num_channels, 9, 7)), return_tensors="pt")
    if path.name.endswith(("series", "spectrogram")):
        processors.append(AutoFeatureExtractor.from_pretrained(path, **remote))
        shape = (2, 2000) if path.name == "spectrogram" else (2, 3, 20)
        inputs |= processors[-1](random.random(shape), return_tensors="pt")
    if path.name.endswith("mixed"):
        processors.append(AutoFeatureExtractor.from_pretrained(path, **remote))
        rows = [[0.5, "y", -1.0, True, 4, 0.1], [None, "unheard of", 2.0, False, 1, 0.3]]
        inputs |= processors[-1](rows, return_tensors="pt")
    if path.name.startswith("pos") or path.name.endswith(("tokens", "pairs", "bytes")):
        processors.append(AutoTokenizer.from_pretrained(path, **remote))
        words = ["ACCGT", "GT"]
        inputs |= processors[-1](words, padding=True, add_special_tokens=False, return_tensors="pt")
    if path.name.startswith("multimae"):
        processors.append(AutoImageProcessor.from_pretrained(path, **remote))
        pictures = {
            "rgb": random.random((2, 3, 20, 18)),
            "depth": random.random((2, 1, 20, 18)),
            "semseg": list(random.integers(0, 5, (2, 20, 18))),
        }
        given = {name: pictures[name] for name in processors[-1].modalities}
        inputs |= processors[-1](given, return_tensors="pt")
    return inputs, [f"{type(each).__module__}.{type(each).__name__}" for each in processors]


def open_head(auto_class: str, path: Path, inputs: dict[str, Any], remote: dict[str, bool]) -> tuple[Any, list[str]]:
    """What a head gives whose new weights are no random ones, and the names of these."""
    head, info = getattr(transformers, auto_class).from_pretrained(path, output_loading_info=True, **remote)
    for name in info["missing_keys"]:
        head.get_parameter(name).fill_(0.0 if name.endswith("bias") else 0.1)
    if auto_class.endswith("MultipleChoice"):
        inputs = {name: value[None] for name, value in inputs.items()}
    outputs = head.eval()(**inputs)
    names = ("logits", "predicted_depth", "reconstruction", "start_logits")
    return next(outputs[name] for name in names if name in outputs), sorted(info["missing_keys"])


@torch.no_grad()
def open_all(folder: Path, remote: dict[str, bool]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors by checkpoint and name, and a report of classes and of keys that were missing or too many."""
    results: dict[str, torch.Tensor] = {}
    report: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        inputs, processors = prepare(path, remote)
        encoder, info = AutoModel.from_pretrained(path, output_loading_info=True, **remote)
        own = report[path.name] = {name: sorted(map(str, keys)) for name, keys in info.items()}
        own |= {"class": f"{type(encoder).__module__}.{type(encoder).__name__}", "processors": processors}
        outputs = encoder(**inputs)
        results |= {f"{path.name}/states": outputs.last_hidden_state, f"{path.name}/pooled": outputs.pooler_output}
        results |= {f"{path.name}/inputs/{name}": value for name, value in inputs.get("inputs", inputs).items()}
        whole, info = AutoModelForPreTraining.from_pretrained(path, output_loading_info=True, **remote)
        own["whole"] = sorted({*info["missing_keys"], *info["unexpected_keys"]})
        torch.manual_seed(0)
        labels = {}
        if path.name.startswith("pos"):
            ids, real = inputs["input_ids"], inputs["attention_mask"]
            labels = {"labels": ids.where(real == 1, -100), "tasks": ids % 2, "next_sentence_label": real.sum(1) % 2}
        results[f"{path.name}/loss"] = whole(**inputs, **labels).loss
        results |= {f"{path.name}/buffers/{name}": value for name, value in whole.named_buffers()}
        for auto_class in HEADS_OF.get(path.name.split("-")[0], HEADS):
            results[f"{path.name}/{auto_class}"], own[auto_class] = open_head(auto_class, path, inputs, remote)
    report["package"] = "hf_maskssl" in sys.modules
    return results, report


if __name__ == "__main__":
    sys.meta_path.insert(0, Blocker())
    tensors, what = open_all(Path(sys.argv[1]), {"trust_remote_code": True})
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, sys.argv[2])
    print(json.dumps(what))
