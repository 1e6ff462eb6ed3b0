"""The cargo rule: files in models/ travel with a checkpoint, which then opens with the package and without it."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hf_maskssl
from hf_maskssl.data.text.tokenizers import build_byte_tokenizer, build_character_tokenizer
from hf_maskssl.models.image_processing_multimae import MultiMAEImageProcessor

MODELS = Path(hf_maskssl.__file__).resolve().parent / "models"
FILES = sorted(path for path in MODELS.glob("*.py") if path.name != "__init__.py")
ALLOWED = {"torch", "transformers"}
PROCESSOR_FILES = ("feature_extraction_", "image_processing_", "standardization")
OUTSIDE_WORLD = {"open", "exec", "eval", "compile", "__import__", "print"}
NETWORK_MODULES = {"socket", "urllib", "http", "ftplib", "subprocess", "requests", "shutil", "tempfile", "pickle"}
FILE_METHODS = {"read_text", "write_text", "read_bytes", "write_bytes", "unlink", "mkdir"}


def problems_of(source: str, name: str, siblings: set[str]) -> list[str]:
    """Everything in a file of models/ that would keep it from travelling."""
    found = []
    allowed = ALLOWED | ({"numpy", "PIL"} if name.startswith(PROCESSOR_FILES) else set())
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"import {alias.name}" for alias in node.names if not _may_import(alias.name, allowed)]
        elif isinstance(node, ast.ImportFrom):
            found += _problems_of_import(node, allowed, siblings)
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in OUTSIDE_WORLD:
                found.append(f"calls {called.id}()")
            if isinstance(called, ast.Attribute) and called.attr in FILE_METHODS:
                found.append(f"calls .{called.attr}()")
    # transformers finds siblings by this pattern in the text, docstrings included.
    written = {match.strip() for match in re.findall(r"^\s*from\s+\.\S*\s+import\b", source, flags=re.MULTILINE)}
    real = {
        f"from {'.' * node.level}{node.module or ''} import"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.level
    }
    return found + [f"text that looks like an import: {line}" for line in written - real]


def _may_import(module: str, allowed: set[str]) -> bool:
    top = module.split(".")[0]
    return top in allowed or (top in sys.stdlib_module_names and top not in NETWORK_MODULES)


def _problems_of_import(node: ast.ImportFrom, allowed: set[str], siblings: set[str]) -> list[str]:
    text = f"from {'.' * node.level}{node.module or ''} import {', '.join(alias.name for alias in node.names)}"
    if node.level:
        return [] if node.level == 1 and node.module in siblings else [text]
    if text == "from huggingface_hub.dataclasses import strict":
        return []
    return [] if _may_import(node.module or "", allowed) else [text]


def test_there_are_files_to_look_at() -> None:
    assert {"modeling_metamae.py", "configuration_metamae.py", "layers.py"} <= {path.name for path in FILES}
    assert [path.name for path in MODELS.iterdir() if path.is_dir() and path.name != "__pycache__"] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_can_travel(path: Path) -> None:
    siblings = {sibling.stem for sibling in FILES}
    assert problems_of(path.read_text(encoding="utf-8"), path.name, siblings) == []


@pytest.mark.parametrize(
    "source",
    [
        "import numpy",
        "import datasets",
        "import hf_maskssl",
        "import urllib.request",
        "from hf_maskssl.models.layers import patchify",
        "from . import layers",
        "from ..data.rows import Rows",
        "from .layers.attention import SelfAttention",
        "from .nowhere import Thing",
        "from huggingface_hub import hf_hub_download",
        "with open('x') as file:\n    pass",
        "def f(path):\n    return path.read_text()",
        '"""Example:\n\n    from .other import Thing\n"""',
    ],
)
def test_what_cannot_travel_is_found(source: str) -> None:
    assert problems_of(source, "modeling_x.py", {"layers"}) != []


def test_what_can_travel_passes() -> None:
    source = (
        "import math\nimport torch\nfrom torch.nn import functional as F\nfrom .layers import (\n    patchify,\n)\n"
        "from huggingface_hub.dataclasses import strict\n"
    )
    assert problems_of(source, "modeling_x.py", {"layers"}) == []
    assert problems_of("import numpy as np\nfrom PIL import Image", "image_processing_x.py", set()) == []


# ---- both ways of loading, in fresh processes ---------------------------------------------------------------------

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 16,
    "projector_output_size": 8,
    "num_labels": 3,
}
METAMAE: dict[str, dict[str, Any]] = {
    "image": {"modality": "image", "image_size": [8, 12], "num_channels": 2, "patch_size": 4},
    "series": {"modality": "series", "series_length": 20, "num_channels": 3, "patch_size": 5},
    "spectrogram": {"modality": "image", "image_size": [8, 8], "num_channels": 1, "patch_size": 2},
    "tokens": {"modality": "tokens", "vocab_size": 8, "max_position_embeddings": 10},
    "pairs": {
        "modality": "vision_language",
        "image_size": 8,
        "patch_size": 4,
        "num_channels": 1,
        "vocab_size": 8,
        "max_position_embeddings": 6,
    },
}
SMA_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_masked_per_query": 1,
    "num_labels": 3,
    "classifier_pooling": "mean",  # no layer of the head is new but the last
}
SMA: dict[str, dict[str, Any]] = {
    "sma-image": {"modality": "image", "image_size": [8, 12], "num_channels": 2, "encoder_type": "cross_attention"},
    "sma-series": {"modality": "series", "series_length": 20, "num_channels": 3},
    "sma-tokens": {"modality": "tokens", "vocab_size": 8, "max_position_embeddings": 10},
    "sma-bytes": {
        "modality": "tokens",
        "vocab_size": 262,
        "max_position_embeddings": 12,
        "encoder_type": "cross_attention",
        "num_latents": 4,
        "embedding_size": 8,
    },
}
MULTIMAE_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 16,
    "image_size": 16,
    "patch_size": 8,
    "num_visible_tokens": 3,
    "segmentation_hidden_size": 64,
    "segmentation_patch_size": 4,
    "depth_hidden_size": 8,
    "depth_reassemble_sizes": [4, 4, 8, 8],
    "num_labels": 3,
}
RGB: dict[str, Any] = {"rgb": {"kind": "continuous", "num_channels": 3}}
MULTIMAE: dict[str, dict[str, Any]] = {
    "multimae-rgb": {"modalities": RGB, "final_norm": True},
    "multimae-scenes": {
        "modalities": {
            **RGB,
            "depth": {"kind": "continuous", "num_channels": 1, "loss": "l1"},
            "semseg": {"kind": "categorical", "num_classes": 5, "stride": 4, "embedding_size": 4},
            "norm_rgb": {"target_of": "rgb", "loss": "standardized_mse"},
        },
        "task_balancing": "minimax",
    },
}
POS_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 8,
    "max_position_embeddings": 10,
    "tasks": ["noun", "verb"],
}
POS: dict[str, dict[str, Any]] = {
    "pos-minimax": {},
    "pos-inside": {"task_balancing": "gradnorm", "next_sentence_prediction": "inside"},
}
CHECKPOINTS = [*METAMAE, *SMA, *MULTIMAE, *POS]
HEADS = ["AutoModelForSequenceClassification", "AutoModelForTokenClassification"]
IMAGE_HEADS = ["AutoModelForImageClassification", "AutoModelForSemanticSegmentation", "AutoModelForDepthEstimation"]
TEXT_HEADS = [*HEADS, "AutoModelForQuestionAnswering", "AutoModelForMultipleChoice", "AutoModelForMaskedLM"]
# Run in a process of its own: opens every checkpoint under FOLDER through the Auto classes, writes what they give.
SCRIPT = """
import importlib.abc, json, sys
from pathlib import Path
folder, output, way = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_maskssl":
            raise ModuleNotFoundError(name)
if way == "absent":
    sys.meta_path.insert(0, Blocker())
    remote = {"trust_remote_code": True}
else:
    import hf_maskssl
    remote = {}
import numpy as np, torch
import transformers
from safetensors.torch import save_file
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoModelForPreTraining, AutoTokenizer
results, report = {}, {}
def prepare(path):
    inputs = {}
    if path.name in ("image", "pairs", "sma-image"):
        processor = AutoImageProcessor.from_pretrained(path, **remote)
        size = (2, processor.num_channels, 9, 7)
        inputs |= processor(np.random.default_rng(0).random(size), return_tensors="pt")
    if path.name.endswith("series"):
        inputs |= AutoFeatureExtractor.from_pretrained(path, **remote)(
            np.random.default_rng(0).random((2, 3, 20)), return_tensors="pt")
    if path.name == "spectrogram":
        inputs |= AutoFeatureExtractor.from_pretrained(path, **remote)(
            np.random.default_rng(0).random((2, 2000)), return_tensors="pt")
    if path.name in ("tokens", "pairs", "sma-tokens", "sma-bytes", "pos-minimax", "pos-inside"):
        inputs |= AutoTokenizer.from_pretrained(path, **remote)(
            ["ACCGT", "GT"], padding=True, add_special_tokens=False, return_tensors="pt")
    if path.name.startswith("multimae"):
        processor, random = AutoImageProcessor.from_pretrained(path, **remote), np.random.default_rng(0)
        pictures = {"rgb": random.random((2, 3, 20, 18)), "depth": random.random((2, 1, 20, 18)),
            "semseg": list(random.integers(0, 5, (2, 20, 18)))}
        inputs |= processor({name: pictures[name] for name in processor.modalities}, return_tensors="pt")
    return inputs
with torch.no_grad():
    for path in sorted(folder.iterdir()):
        inputs = prepare(path)
        encoder, info = AutoModel.from_pretrained(path, output_loading_info=True, **remote)
        report[path.name] = {name: sorted(map(str, keys)) for name, keys in info.items()}
        report[path.name]["class"] = f"{type(encoder).__module__}.{type(encoder).__name__}"
        outputs = encoder(**inputs)
        results[f"{path.name}/states"] = outputs.last_hidden_state
        results[f"{path.name}/pooled"] = outputs.pooler_output
        tensors = inputs.get("inputs", inputs)
        results |= {f"{path.name}/inputs/{name}": value for name, value in tensors.items()}
        whole, info = AutoModelForPreTraining.from_pretrained(path, output_loading_info=True, **remote)
        report[path.name]["whole"] = sorted({*info["missing_keys"], *info["unexpected_keys"]})
        torch.manual_seed(0)
        labels = {}
        if path.name.startswith("pos"):
            ids, real = inputs["input_ids"], inputs["attention_mask"]
            labels = {"labels": ids.where(real == 1, -100), "tasks": ids % 2, "next_sentence_label": real.sum(1) % 2}
        results[f"{path.name}/loss"] = whole(**inputs, **labels).loss
        results |= {f"{path.name}/buffers/{name}": value for name, value in whole.named_buffers()}
        for auto_class in sys.argv[{"multimae": 5, "pos": 6}.get(path.name.split("-")[0], 4)].split(","):
            head, info = getattr(transformers, auto_class).from_pretrained(path, output_loading_info=True, **remote)
            report[path.name][auto_class] = sorted(info["missing_keys"])
            for name in info["missing_keys"]:
                head.get_parameter(name).fill_(0.0 if name.endswith("bias") else 0.1)
            is_choice = auto_class.endswith("MultipleChoice")
            outputs = head.eval()(**({name: value[None] for name, value in inputs.items()} if is_choice else inputs))
            results[f"{path.name}/{auto_class}"] = next(
                outputs[name] for name in ("logits", "predicted_depth", "start_logits") if name in outputs)
report["package"] = "hf_maskssl" in sys.modules
save_file({name: value.contiguous().clone() for name, value in results.items()}, output)
print(json.dumps(report))
"""


def save_processor(name: str, folder: Path) -> None:
    if name in ("image", "pairs", "sma-image"):
        config = (METAMAE | SMA)[name]
        hf_maskssl.ArrayImageProcessor(config["num_channels"], config["image_size"]).save_pretrained(folder)
    if name.endswith("series"):
        statistics: dict[str, Any] = {"standardize": "dataset", "mean": [0.0, 1.0, 2.0], "std": [1.0, 2.0, 3.0]}
        statistics["channels_last"] = name == "sma-series"
        hf_maskssl.SeriesFeatureExtractor(3, 20, **statistics).save_pretrained(folder)
    if name == "spectrogram":
        hf_maskssl.SpectrogramFeatureExtractor(8000, num_mel_bins=8, num_frames=8).save_pretrained(folder)
    if name in ("tokens", "pairs", "sma-tokens", *POS):
        build_character_tokenizer("ACGT", 10).save_pretrained(folder)
    if name == "sma-bytes":
        build_byte_tokenizer(12).save_pretrained(folder)
    if name in MULTIMAE:
        MultiMAEImageProcessor(MULTIMAE[name]["modalities"], 16).save_pretrained(folder)


def build(name: str) -> Any:
    if name in METAMAE:
        return hf_maskssl.MetaMAEForPretraining(hf_maskssl.MetaMAEConfig(**SIZES, **METAMAE[name]))
    if name in SMA:
        return hf_maskssl.SMAForMaskedModeling(hf_maskssl.SMAConfig(**SMA_SIZES, **SMA[name]))
    if name in POS:
        return hf_maskssl.PoSMinimaxBertForPreTraining(hf_maskssl.PoSMinimaxBertConfig(**POS_SIZES, **POS[name]))
    return hf_maskssl.MultiMAEForPretraining(hf_maskssl.MultiMAEConfig(**MULTIMAE_SIZES, **MULTIMAE[name]))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Folders of pre-training checkpoints, and the models they were saved from."""
    root = tmp_path_factory.mktemp("cargo") / "checkpoints"
    models = {}
    for number, name in enumerate(CHECKPOINTS):
        torch.manual_seed(number)
        models[name] = build(name).eval()
        models[name].save_pretrained(root / name)
        save_processor(name, root / name)
    return root, models


@pytest.fixture(scope="module")
def loaded(checkpoints: tuple[Path, Any]) -> dict[str, tuple[dict[str, torch.Tensor], dict[str, Any]]]:
    """Way of loading -> (tensors, report); one process each, side by side."""
    root = checkpoints[0]
    processes = {}
    for way in ("registered", "absent"):
        environment = os.environ | {
            "PYTHONPATH": str(MODELS.parent.parent) if way == "registered" else "",
            "HF_MODULES_CACHE": str(root.parent / f"modules-{way}"),
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-c", SCRIPT, str(root), str(root.parent / f"{way}.safetensors"), way]
        command += [",".join(heads) for heads in (HEADS, IMAGE_HEADS, TEXT_HEADS)]
        processes[way] = subprocess.Popen(
            command, env=environment, cwd=root.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    answers = {way: process.communicate() for way, process in processes.items()}
    for way, process in processes.items():
        assert process.returncode == 0, f"{way}: {answers[way][1]}"
    return {way: (load_file(root.parent / f"{way}.safetensors"), json.loads(answers[way][0])) for way in processes}


def test_each_process_ran_the_code_it_was_meant_to(loaded: dict[str, Any]) -> None:
    registered, absent = loaded["registered"][1], loaded["absent"][1]
    assert registered["package"] and not absent["package"]
    for name in CHECKPOINTS:
        expected = "modeling_metamae.MetaMAEModel" if name in METAMAE else "modeling_sma.SMAModel"
        expected = "modeling_multimae.MultiMAEModel" if name in MULTIMAE else expected
        expected = "modeling_pos_minimax_bert.PoSMinimaxBertModel" if name in POS else expected
        assert registered[name]["class"] == f"hf_maskssl.models.{expected}"
        assert absent[name]["class"].startswith("transformers_modules.")


def test_both_ways_give_the_same(loaded: dict[str, Any]) -> None:
    registered, absent = loaded["registered"][0], loaded["absent"][0]
    assert set(registered) == set(absent)
    for name, value in registered.items():
        assert torch.isfinite(value).all(), name
        torch.testing.assert_close(absent[name], value, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("way", ["registered", "absent"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_encoder_of_a_pretraining_checkpoint_is_complete(loaded: dict[str, Any], name: str, way: str) -> None:
    report = loaded[way][1][name]
    assert report["missing_keys"] == [] and report["mismatched_keys"] == [] and report["error_msgs"] == []
    # What the encoder leaves behind is the decoder and the projector, nothing of its own.
    left = ("decoder.", "projector.", "decoders.", "balancer.")
    assert all(key.startswith(left) for key in report["unexpected_keys"])
    assert report["whole"] == []
    if name in MULTIMAE:
        parts = [{"classifier", "classifier_norm"}, {"segmentation_head"}, {"depth_head"}]
        assert [{key.split(".")[0] for key in report[head]} for head in IMAGE_HEADS] == parts
        return
    if name in POS:
        parts = [{"classifier"}, {"classifier"}, {"qa_outputs"}, {"classifier"}, set()]
        assert [{key.split(".")[0] for key in report[head]} for head in TEXT_HEADS] == parts
        return
    for head in HEADS:
        new = {"classifier"} if name in METAMAE else {"classifier", "hidden_norm", "query_layer", "query_norm"}
        assert {"classifier.bias", "classifier.weight"} <= set(report[head])
        assert {key.split(".")[0] for key in report[head]} <= new


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_loaded_models_are_the_saved_ones(
    checkpoints: tuple[Path, dict[str, Any]], loaded: dict[str, Any], name: str
) -> None:
    model = checkpoints[1][name]
    tensors = loaded["absent"][0]
    inputs = {key.rpartition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{name}/inputs/")}
    with torch.inference_mode():
        outputs = model.base_model(**({"inputs": inputs} if name in MULTIMAE else inputs))
    torch.testing.assert_close(tensors[f"{name}/states"], outputs.last_hidden_state, rtol=0, atol=1e-6)
    torch.testing.assert_close(tensors[f"{name}/pooled"], outputs.pooler_output, rtol=0, atol=1e-6)
    # Buffers that no file holds are made anew while loading; uninitialised memory would show here.
    for key, buffer in model.named_buffers():
        assert torch.equal(tensors[f"{name}/buffers/{key}"], buffer), key
