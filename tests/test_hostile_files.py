"""No file that a command reads runs code: a pickle, or modelling code, that leaves a trace lies at every such place.

The files of a checkpoint that is resumed are tested in training/test_resume.py.
"""

import builtins
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from transformers import AutoConfig, AutoModelForPreTraining

import tiny_models
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.processors import load_processor
from hf_maskssl.data.tables.pictures import read_map
from hf_maskssl.data.tables.splits import read_splits
from hf_maskssl.data.text.tokenizers import load_tokenizer
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.evaluate_checkpoint import evaluate_checkpoint
from hf_maskssl.evaluation.metrics import load_metric
from hf_maskssl.hub.cards import write_finetuned_card
from hf_maskssl.hub.conversion import convert
from hf_maskssl.recipes import load_recipe
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe
from hf_maskssl.training.finetuning.models import load_model, read_config
from hf_maskssl.training.finetuning.predictions import load_predictions
from hf_maskssl.training.pretraining.arguments import PretrainingArguments
from hf_maskssl.training.pretraining.starting import Start

CODE = "open({trace!r}, 'w').close()\n"
AUTO_MAP = {
    "AutoConfig": "evil.EvilConfig",
    "AutoModel": "evil.EvilModel",
    "AutoModelForPreTraining": "evil.EvilModel",
    "AutoModelForSequenceClassification": "evil.EvilModel",
    "AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"],
    "AutoImageProcessor": "evil.EvilProcessor",
    "AutoFeatureExtractor": "evil.EvilProcessor",
}


class Evil:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.trace), "w"))


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that code leaves; nobody may be asked whether to run it, either."""
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("the user was asked whether to run code"))
    return tmp_path / "trace"


def write_pickle(path: Path, trace: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(Evil(trace)))
    return path


def write_torch(path: Path, trace: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": {"weight": Evil(trace)}}, path)
    return path


def write_objects(path: Path, trace: Path) -> Path:
    """An array of objects, which NumPy keeps as a pickle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, image=np.array([Evil(trace)], dtype=object), split=np.array(Evil(trace), dtype=object))
    else:
        np.save(path, np.array([Evil(trace)], dtype=object), allow_pickle=True)
    return path


def checkpoint(folder: Path, trace: Path, model_type: str = "metamae") -> Path:
    """A folder with code of its own, a pickle for weights and for a tokenizer, of a model that is known or not."""
    known = model_type == "metamae"
    fields = tiny_models.section("metamae", **tiny_models.MODALITIES["metamae"]["image"]) if known else {}
    if known:
        AutoConfig.for_model(**fields).save_pretrained(folder)
    folder.mkdir(exist_ok=True)
    settings = json.loads((folder / "config.json").read_text()) if known else {}
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": model_type, "auto_map": AUTO_MAP}))
    names = {"tokenizer_config.json": "tokenizer_class", "preprocessor_config.json": "image_processor_type"}
    for name, kind in names.items():
        (folder / name).write_text(json.dumps({kind: "Evil", "auto_map": AUTO_MAP}))
    for name in ("evil.py", "configuration_metamae.py", "modeling_metamae.py"):
        (folder / name).write_text(CODE.format(trace=str(trace)))
    write_torch(folder / "pytorch_model.bin", trace)
    for name in ("tokenizer.json", "vocab.txt", "tokenizer.pkl", "vocab.pkl", "model.pt"):
        write_pickle(folder / name, trace)
    return folder


@pytest.mark.parametrize("write", [write_pickle, write_torch, write_objects])
def test_the_files_would_leave_a_trace(write: Callable[[Path, Path], Path], tmp_path: Path, trace: Path) -> None:
    path = write(tmp_path / "file.npy", trace)
    if write is write_torch:
        torch.load(path, weights_only=False)
    elif write is write_objects:
        np.load(path, allow_pickle=True)
    else:
        pickle.loads(path.read_bytes())
    assert trace.exists()


def refuses(trace: Path, run: Callable[[], object]) -> None:
    """`run` says that it cannot read what it is given, and nothing of that is run."""
    with pytest.raises((ValueError, OSError, RuntimeError, pickle.UnpicklingError)):
        run()
    assert not trace.exists()


# ---- pickles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_pickle, write_torch])
@pytest.mark.parametrize("method", ["metamae", "multimae", "sma"])
def test_converters(method: str, write: Callable[[Path, Path], Path], tmp_path: Path, trace: Path) -> None:
    source = tmp_path / "authors"
    source.mkdir()
    (source / "config.json").write_text(json.dumps({"model_type": "perceiver", "auto_map": AUTO_MAP}))
    file = write(source / "pytorch_model.bin", trace)
    refuses(trace, lambda: convert(method, source if method == "sma" else file, tmp_path / "out"))


@pytest.mark.parametrize("write", [write_pickle, write_objects])
@pytest.mark.parametrize("name", ["image.npy", "rows.npz"])
def test_arrays_of_a_source(name: str, write: Callable[[Path, Path], Path], tmp_path: Path, trace: Path) -> None:
    file = write(tmp_path / name, trace)
    refuses(trace, lambda: read_splits(data_arguments("numpy", data_files=str(file), input_column="image")))


@pytest.mark.parametrize("write", [write_pickle, write_objects])
def test_arrays_in_the_place_of_pictures(write: Callable[[Path, Path], Path], tmp_path: Path, trace: Path) -> None:
    file = write(tmp_path / "depth.npy", trace)
    refuses(trace, lambda: read_map(str(file)))
    refuses(trace, lambda: read_map(file.read_bytes()))


@pytest.mark.parametrize("source", ["csv", "json", "parquet", "pandas", "arrow"])
def test_tables(source: str, tmp_path: Path, trace: Path, private_cache: None) -> None:
    file = write_pickle(tmp_path / f"rows.{source}", trace)
    refuses(trace, lambda: read_splits(data_arguments(source, data_files=str(file), input_column="image")))


@pytest.mark.parametrize("pack", ["zip", "tar"])
def test_archives_of_samples(pack: str, tmp_path: Path, trace: Path, private_cache: None) -> None:
    """WebDataset's shards once held pickles."""
    members = [write_pickle(tmp_path / f"0.{end}", trace) for end in ("pyd", "pickle", "pth", "npy")]
    file = tmp_path / f"shard.{pack}"
    if pack == "tar":
        with tarfile.open(file, "w") as archive:
            [archive.add(member, member.name) for member in members]
    else:
        with zipfile.ZipFile(file, "w") as zipped:
            [zipped.write(member, member.name) for member in members]
    try:
        rows = read_splits(data_arguments("webdataset", data_files=str(file), input_column="pyd"))["train"]
        assert isinstance(next(iter(rows))["pyd"], bytes)
    except (ValueError, OSError, pickle.UnpicklingError):
        pass  # what cannot be read is refused
    assert not trace.exists()


def test_saved_data_sets_and_caches(tmp_path: Path, trace: Path) -> None:
    for name in ("data-00000-of-00001.arrow", "state.json", "dataset_info.json"):
        folder = tmp_path / f"saved-{name}"
        Dataset.from_dict({"image": [[1.0]]}).save_to_disk(folder)
        write_pickle(folder / name, trace)
        refuses(trace, lambda folder=folder: read_splits(data_arguments(str(folder), input_column="image")))  # type: ignore[misc]


def test_scripts_of_data_sets(tmp_path: Path, trace: Path, private_cache: None) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "rows.py").write_text(CODE.format(trace=str(trace)))
    refuses(trace, lambda: read_splits(data_arguments(str(folder), input_column="image")))


def test_predictions_of_runs(tmp_path: Path, trace: Path) -> None:
    for write in (write_objects, write_pickle):
        file = write(tmp_path / "run.npz", trace)
        refuses(trace, lambda file=file: load_predictions(file))  # type: ignore[misc]


# ---- code --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:builtins.open", "!!python/object/new:builtins.open", "!!python/name:builtins.open"]
)
def test_recipes_and_options(tag: str, tmp_path: Path, trace: Path) -> None:
    evil = f"{tag} [{str(trace)!r}, w]" if "name" not in tag else f"{tag} ''"
    file = tmp_path / "recipe.yaml"
    file.write_text(f"model: {{model_type: {evil}}}\n")
    refuses(trace, lambda: load_recipe(file))
    file.write_text(yaml.safe_dump({"model": {"model_type": "metamae"}}))
    refuses(trace, lambda: load_recipe(file, ["--mask_ratio", evil]))


def recipe_of(data: Any) -> FinetuningRecipe:
    return FinetuningRecipe({}, data, FinetuningArguments())


@pytest.mark.parametrize("model_type", ["metamae", "evil"])
def test_checkpoints(model_type: str, tmp_path: Path, trace: Path) -> None:
    """Of a model that is known and of one that only its own code knows: by every command that reads one."""
    folder = checkpoint(tmp_path / "model", trace, model_type)
    digits = data_arguments("digits", label_column="label", test_split="test")
    refuses(trace, lambda: evaluate_checkpoint(str(folder), digits, ProbeArguments()))
    refuses(trace, lambda: AutoModelForPreTraining.from_pretrained(folder, trust_remote_code=False))
    refuses(trace, lambda: load_model("classification", read_config({}, folder), folder))
    refuses(trace, lambda: load_processor(folder))
    refuses(trace, lambda: load_tokenizer(str(folder), None, AutoConfig.for_model("bert")))
    model = AutoModelForPreTraining.from_config(tiny_models.config("multimae", modalities=tiny_models.SCENES))
    refuses(trace, lambda: Start(PretrainingArguments(init_from=str(folder)), model.config).give(model, None))
    if model_type == "evil":
        refuses(trace, lambda: write_finetuned_card(folder, recipe_of(digits), {}))


def test_tokenizers_and_vocabularies(tmp_path: Path, trace: Path) -> None:
    config = AutoConfig.for_model("bert")
    refuses(trace, lambda: load_tokenizer(str(write_pickle(tmp_path / "vocab.txt", trace)), None, config))
    folder = tmp_path / "tokenizer"
    write_pickle(folder / "tokenizer.json", trace)
    refuses(trace, lambda: load_tokenizer(str(folder), None, config))


def test_metrics_of_the_working_folder(tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (tmp_path / "accuracy.py", tmp_path / "accuracy" / "accuracy.py"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(CODE.format(trace=str(trace)))
    monkeypatch.chdir(tmp_path)
    assert load_metric("accuracy").compute(predictions=[1], references=[1]) == {"accuracy": 1.0}
    with pytest.raises(ValueError, match="Unknown metric"):
        load_metric(str(tmp_path / "accuracy.py"))
    assert not trace.exists()


def test_the_data_of_the_tagger(tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_maskssl.data.masked_text.pos_tagging import TaggerDataError, load_tagger

    folder = tmp_path / "taggers" / "averaged_perceptron_tagger_eng"
    for part in ("weights.json", "tagdict.json", "classes.json", "pickle"):
        write_pickle(folder / f"averaged_perceptron_tagger_eng.{part}", trace)
    shutil.copytree(folder, folder.with_name("averaged_perceptron_tagger"))
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    load_tagger.cache_clear()
    with pytest.raises(TaggerDataError):
        load_tagger()
    load_tagger.cache_clear()
    assert not trace.exists()
