"""Files in models/ travel with a checkpoint, which then opens with the package and without it."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_checkpoints
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForPreTraining

import hf_maskssl
import tiny_models
from hf_maskssl.data.text.tokenizers import build_byte_tokenizer, build_character_tokenizer
from hf_maskssl.models.image_processing_multimae import MultiMAEImageProcessor

MODELS = Path(hf_maskssl.__file__).resolve().parent / "models"
FILES = sorted(path for path in MODELS.glob("*.py") if path.name != "__init__.py")
ALLOWED = {"torch", "transformers"}
PROCESSOR_FILES = ("feature_extraction_", "image_processing_", "standardization", "table_values")
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


# ---- both ways of loading: here, where the package is imported, and in a process that must not import it ------------

Fields = dict[str, Any]
METAMAE: dict[str, Fields] = {
    "image": {"modality": "image", "image_size": [8, 12], "num_channels": 2, "patch_size": 4},
    "series": {"modality": "series", "series_length": 20, "num_channels": 3, "patch_size": 5},
    "mixed": tiny_models.MODALITIES["metamae"]["mixed"],
    "spectrogram": {"modality": "image", "image_size": [8, 8], "num_channels": 1, "patch_size": 2},
    "tokens": {"modality": "tokens", "vocab_size": 8, "max_position_embeddings": 10},
    "emix-series": {
        "modality": "series",
        "series_length": 20,
        "num_channels": 3,
        "patch_size": 5,
        "objective": "emix",
        "head_dim": 4,
    },
    "mae-tokens": {
        "modality": "tokens",
        "vocab_size": 8,
        "max_position_embeddings": 10,
        "objective": "mae",
        "position_embeddings": "learned",
    },
    "pairs": {**tiny_models.MODALITIES["metamae"]["vision_language"], "num_channels": 1, "vocab_size": 8},
}
SMA: dict[str, Fields] = {
    "sma-image": {"modality": "image", "image_size": [8, 12], "num_channels": 2, "encoder_type": "cross_attention"},
    "sma-series": {"modality": "series", "series_length": 20, "num_channels": 3},
    "sma-mixed": tiny_models.MIXED,
    "sma-tokens": METAMAE["tokens"],
    "sma-bytes": {**tiny_models.LATENTS, "modality": "tokens", "vocab_size": 262, "max_position_embeddings": 12},
}
MULTIMAE: dict[str, Fields] = {
    "multimae-rgb": {"modalities": {"rgb": tiny_models.RGB}, "final_norm": True},
    "multimae-scenes": {"modalities": tiny_models.SCENES, "task_balancing": "minimax"},
}
POS: dict[str, Fields] = {
    "pos-minimax": {},
    "pos-inside": {"task_balancing": "gradnorm", "next_sentence_prediction": "inside"},
}
# What a method's models have beside the catalogue's sizes.
METHODS: list[tuple[str, dict[str, Fields], Fields]] = [
    ("metamae", METAMAE, {"num_labels": 3}),
    # Then no layer of the head is new but the last.
    ("sma", SMA, {"num_labels": 3, "classifier_pooling": "mean", "num_masked_per_query": 1}),
    ("multimae", MULTIMAE, {"num_labels": 3, "num_hidden_layers": 4}),
    ("pos_minimax_bert", POS, {"vocab_size": 8, "max_position_embeddings": 10, "tasks": ["noun", "verb"]}),
]
CHECKPOINTS = [name for _, cases, _ in METHODS for name in cases]
HEADS, IMAGE_HEADS, TEXT_HEADS = open_checkpoints.HEADS, open_checkpoints.IMAGE_HEADS, open_checkpoints.TEXT_HEADS


def save_processor(name: str, folder: Path) -> None:
    statistics: Fields
    if name in ("image", "pairs", "sma-image"):
        config = (METAMAE | SMA)[name]
        channels = config["num_channels"]
        statistics = {"standardize": "dataset", "mean": [0.5] * channels, "std": [2.0] * channels}
        hf_maskssl.ArrayImageProcessor(channels, config["image_size"], **statistics).save_pretrained(folder)
    if name.endswith("series"):
        statistics = {"standardize": "dataset", "mean": [0.0, 1.0, 2.0], "std": [1.0, 2.0, 3.0]}
        statistics["channels_last"] = name == "sma-series"
        hf_maskssl.SeriesFeatureExtractor(3, 20, **statistics).save_pretrained(folder)
    if name.endswith("mixed"):
        categories = [None, ["x", "y", "z"], None, [False, True], [1, 2, 3, 4], None]
        settings: Fields = {"statistics_axis": "feature", "feature_names": list("abcdef"), "categories": categories}
        settings["channels_last"] = name == "sma-mixed"
        hf_maskssl.SeriesFeatureExtractor(1, 6, **settings).save_pretrained(folder)
    if name == "spectrogram":
        statistics = {"standardize": "dataset", "mean": [-40.0], "std": [20.0]}
        hf_maskssl.SpectrogramFeatureExtractor(8000, num_mel_bins=8, num_frames=8, **statistics).save_pretrained(
            folder
        )
    if name == "pairs" or name.endswith("tokens") or name in POS:
        build_character_tokenizer("ACGT", 10).save_pretrained(folder)
    if name == "sma-bytes":
        build_byte_tokenizer(12).save_pretrained(folder)
    if name in MULTIMAE:
        processor = MultiMAEImageProcessor(MULTIMAE[name]["modalities"], 16, crop_fraction=0.9)
        processor.save_pretrained(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Folders of pre-training checkpoints, and the models they were saved from."""
    root = tmp_path_factory.mktemp("cargo") / "checkpoints"
    models = {}
    for model_type, cases, fields in METHODS:
        for name, changes in cases.items():
            torch.manual_seed(len(models))
            config = tiny_models.config(model_type, **fields, **changes)
            models[name] = AutoModelForPreTraining.from_config(config).eval()
            models[name].save_pretrained(root / name)
            save_processor(name, root / name)
    return root, models


@pytest.fixture(scope="module")
def loaded(checkpoints: tuple[Path, Any]) -> dict[str, tuple[dict[str, torch.Tensor], dict[str, Any]]]:
    """Way of loading -> (tensors, report)."""
    root = checkpoints[0]
    environment = os.environ | {"PYTHONPATH": "", "HF_MODULES_CACHE": str(root.parent / "modules")}
    command = [sys.executable, open_checkpoints.__file__, str(root), str(root.parent / "absent.safetensors")]
    process = subprocess.Popen(
        command, env=environment, cwd=root.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    registered = open_checkpoints.open_all(root, {})
    answer, errors = process.communicate()
    assert process.returncode == 0, errors
    return {
        "registered": registered,
        "absent": (load_file(root.parent / "absent.safetensors"), json.loads(answer)),
    }


def test_each_way_ran_the_code_it_was_meant_to(loaded: dict[str, Any]) -> None:
    registered, absent = loaded["registered"][1], loaded["absent"][1]
    assert registered["package"] and not absent["package"]
    for name in CHECKPOINTS:
        expected = "modeling_metamae.MetaMAEModel" if name in METAMAE else "modeling_sma.SMAModel"
        expected = "modeling_multimae.MultiMAEModel" if name in MULTIMAE else expected
        expected = "modeling_pos_minimax_bert.PoSMinimaxBertModel" if name in POS else expected
        assert registered[name]["class"] == f"hf_maskssl.models.{expected}"
        assert absent[name]["class"].startswith("transformers_modules.")
        own = [kind for kind in registered[name]["processors"] if kind.startswith("hf_maskssl.")]
        assert own or "Tokenizer" in registered[name]["processors"][0]
        for kind, found in zip(registered[name]["processors"], absent[name]["processors"], strict=True):
            assert kind.split(".")[-1] == found.split(".")[-1]
            assert kind not in own or found.startswith("transformers_modules.")


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
        parts = [{"classifier", "classifier_norm"}, {"segmentation_head"}, {"depth_head"}, {"regression_head"}]
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
