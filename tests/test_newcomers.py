"""Thirty mistakes of newcomers: each ends its script with one line that says what to change, and exit code 2."""

import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import tiny_models
from forked import run_script as run_process
from hf_maskssl.commands import function_of
from hf_maskssl.hub import conversion, publish
from hf_maskssl.scripts import UserError, run_script

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
MODEL = tiny_models.section("metamae", modality="image", image_size=[8, 8], num_channels=1, patch_size=[2, 2])
SERIES = tiny_models.section("metamae", modality="series", series_length=2, num_channels=1, patch_size=1)
DATA: dict[str, Any] = {"source": "digits", "kind": "image", "max_train_samples": 8, "test_split": "test"}
TABLE: dict[str, Any] = {"source": "csv", "data_files": "rows.csv", "kind": "tabular", "test_split": None}
TRAINING: dict[str, Any] = {"max_steps": 1, "batch_size": 4, "output_dir": "out"}
RECIPE: dict[str, Any] = {"model": MODEL, "data": DATA, "training": TRAINING}
Script = Callable[..., str]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Script]:
    """Runs an example as `python` does, in a folder with some data; gives the one line that it ends with."""
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("alpha,beta,class\n1,2,a\n3,4,b\n5,6,a\n7,8,b\n")
    Path("recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    Path("pictures/cats").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save("pictures/cats/1.png")

    def run(name: str, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLES / f"{name}.py"), *words])
        main = {"publish": publish.main, "conversion": conversion.main}.get(name) or load(name)
        with pytest.raises(UserError) as ended:
            run_script(main)
        said = capsys.readouterr()
        assert ended.value.code == 2 and "Traceback" not in said.out + said.err
        line = said.err.splitlines()[-1]
        assert line.startswith("error: ") and len(line) < 1400 and said.err.count("error: ") == 1
        assert "internet" not in line.lower() and "connection" not in line.lower()
        return line

    yield run


def load(name: str) -> Callable[[], object]:
    """The verb that an example script calls."""
    code = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    verb = re.search(r'run\("([\w-]+)"\)', code)
    return function_of(verb[1]) if verb else runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def write(recipe: dict[str, Any] | str) -> str:
    Path("wrong.yaml").write_text(recipe if isinstance(recipe, str) else yaml.safe_dump(recipe))
    return "wrong.yaml"


# What stands in the recipe (changes of a section, or the text) -> what the line says.
RECIPES: dict[str, tuple[dict[str, Any] | str, str]] = {
    "a misspelt field": ({"training": {"lerning_rate": 1.0}}, "training.lerning_rate (did you mean 'learning_rate'?)"),
    "a misspelt section": ({"trainig": {}}, "'trainig' (did you mean 'training'?)"),
    "a misspelt source": (
        {"data": {"source": "parqet", "input_column": "image"}},
        "data.source 'parqet' (did you mean 'parquet'?)",
    ),
    "a misspelt kind": ({"data": {"kind": "imge"}}, "data.kind: expected one of"),
    "a misspelt method": ({"model": {"model_type": "metame"}}, "(did you mean 'metamae'?)"),
    "a misspelt choice": ({"training": {"lr_scheduler_type": "cosin"}}, "(did you mean 'cosine'?)"),
    "no method": ({"model": {"model_type": None}}, "model.model_type: missing"),
    "a text for a number": ({"training": {"max_steps": "ten"}}, "training.max_steps: expected int, got 'ten' (str)"),
    "a fraction for a count": ({"training": {"batch_size": 1.5}}, "training.batch_size: expected int, got 1.5"),
    "a value of a page": ({"training": {"seed": "x" * 5000}}, "training.seed: expected int, got 'xxx"),
    "a word for no number": (
        {"training": {"learning_rate": "nan"}},
        "training.learning_rate: expected a finite number, got nan",
    ),
    "a model's word for no number": (
        {"model": {"hidden_dropout_prob": "inf"}},
        "model.hidden_dropout_prob: expected a finite number, got inf",
    ),
    "no number": ({"training": {"learning_rate": float("nan")}}, "training.learning_rate: expected a number above 0"),
    "a negative decay": ({"training": {"weight_decay": -1.0}}, "training.weight_decay: expected at least 0, got -1"),
    "a negative seed": ({"training": {"seed": -1}}, "training.seed: expected a number in [0, 4294967295], got -1"),
    "beta above 1": ({"training": {"adam_beta1": 1.5}}, "training.adam_beta1: expected a number in [0, 1), got 1.5"),
    "a dropout of 1": ({"model": {"hidden_dropout_prob": 1.0}}, "`hidden_dropout_prob` is a probability"),
    "warm-up beyond the end": ({"training": {"warmup_steps": 5}}, "training.warmup_steps=5 is more than"),
    "a batch of one row": ({"training": {"batch_size": 1}}, "training.batch_size: expected at least 2"),
    "heads that do not divide": (
        {"model": {"num_attention_heads": 3}},
        "multiple of `num_attention_heads`, got 16 and 3",
    ),
    "a column that is not there": (
        {"model": SERIES, "data": TABLE | {"label_column": "clas"}},
        "(did you mean 'class'?)",
    ),
    "a file that is not there": (
        {"model": SERIES, "data": TABLE | {"data_files": "row.csv"}},
        "data.data_files: row.csv does not exist (did you mean 'rows.csv'?)",
    ),
    "a folder that is not there": (
        {"data": {"source": "imagefolder", "data_dir": "picture", "input_column": "image"}},
        "data.data_dir picture: no such folder (did you mean 'pictures'?)",
    ),
    "a start that is not there": (
        {"training": {"init_from": "pictur"}},
        "there is no such folder (did you mean 'pictures'?)",
    ),
    "tabs": ("model:\n\tmodel_type: metamae\n", "indent with blanks"),
    "an empty file": ("", "expected sections such as 'model:' and 'data:', got an empty file"),
    "a list": ("- model\n", "got ['model']"),
    "a key twice": ("data: {kind: image, kind: image}\n", "'kind' is written twice"),
}


@pytest.mark.parametrize("mistake", RECIPES)
def test_recipes(mistake: str, script: Script) -> None:
    changes, said = RECIPES[mistake]
    content: dict[str, Any] | str = changes
    if isinstance(changes, dict):
        content = RECIPE | {name: {**RECIPE.get(name, {}), **fields} for name, fields in changes.items()}
    line = script("run_pretrain", write(content))
    assert said in line and "\n" not in line
    if mistake == "a value of a page":
        assert len(line) < 300


# Script, words -> what the line says.
COMMANDS: dict[str, tuple[str, list[str], str]] = {
    "no recipe": (
        "run_pretrain",
        [],
        "RECIPE: expected the path or name of a recipe in front of all options, got nothing",
    ),
    "a recipe that is not there": (
        "run_pretrain",
        ["recpe.yaml"],
        "no such file, and no recipe of the package (did you mean 'recipe.yaml'?)",
    ),
    "a folder for a recipe": (
        "run_pretrain",
        ["pictures"],
        "data.validation_fraction 0.1 of 1 training rows leaves none to train on",
    ),
    "a misspelt option": (
        "run_pretrain",
        ["recipe.yaml", "--max_step", "3"],
        "--max_step: unknown field (did you mean",
    ),
    "an option without a value": ("run_pretrain", ["recipe.yaml", "--max_steps"], "expected a value after it"),
    "no checkpoint of that name": (
        "run_finetune",
        ["recipe.yaml", "--finetuning.checkpoint", "pictur"],
        "finetuning.checkpoint 'pictur': expected a checkpoint folder or the name of a Hub repository",
    ),
    "a folder that is no checkpoint": (
        "run_finetune",
        ["recipe.yaml", "--finetuning.checkpoint", "pictures"],
        "finetuning.checkpoint 'pictures': the folder holds no config.json",
    ),
    "a file for a checkpoint": (
        "draw_masks",
        ["rows.csv", "--recipe", "recipe.yaml"],
        "CHECKPOINT 'rows.csv': expected a",
    ),
    "nothing to probe": ("run_linear_probe", ["recipe.yaml"], "expected at least one MODEL and then a RECIPE"),
    "a model that is not there": (
        "run_linear_probe",
        ["./modl", "recipe.yaml"],
        "MODEL './modl': expected a checkpoint",
    ),
    "unknown options": (
        "multimae_predict",
        ["--pictures", "fish", "x"],
        "argument --pictures: invalid choice: 'fish'",
    ),
    "no words to tag": (
        "run_tag_pos",
        ["--output_dr", "x"],
        "--output_dr: unknown option (did you mean '--output_dir'?)",
    ),
    "no size": (
        "train_tokenizer",
        ["--source", "text", "--data_files", "x.txt", "--output_dir", "t"],
        "--vocab_size and one",
    ),
    "a number of pictures": (
        "run_pseudo_label",
        ["--output_dir", "x", "--batch_size", "0"],
        "batch_size: expected at least 1",
    ),
    "no task": ("glue_average", ["pictures"], "pictures"),
    "nothing to publish": ("publish", ["nowhere", "org/name", "--dry_run"], "nowhere is not a folder"),
    "nothing to convert": ("conversion", ["metamae", "nowhere.pth", "out"], "checkpoint nowhere.pth is not a file"),
}


@pytest.mark.parametrize("mistake", COMMANDS)
def test_commands(mistake: str, script: Script) -> None:
    name, words, said = COMMANDS[mistake]
    assert said in script(name, *words)


def test_a_model_of_another_kind(script: Script) -> None:
    """Learned masks of a BERT that transformers saved, MultiMAE's predictions of a MetaMAE, a head of that BERT."""
    from transformers import AutoConfig, AutoModel, AutoModelForPreTraining

    AutoModelForPreTraining.from_config(AutoConfig.for_model(**MODEL)).save_pretrained("metamae")
    bert = AutoConfig.for_model("bert", **tiny_models.ENCODER, vocab_size=30, max_position_embeddings=12)
    AutoModel.from_config(bert).save_pretrained("bert")
    assert "CHECKPOINT" in script("draw_masks", "bert", "--recipe", "recipe.yaml")
    assert "CHECKPOINT" in script("multimae_predict", "metamae")
    said = script("run_finetune", "recipe.yaml", "--finetuning.checkpoint", "bert")
    assert "model.model_type is 'metamae', but finetuning.checkpoint bert is of 'bert'" in said
    Path("metamae/model.safetensors").write_bytes(b"not the weights")
    assert "model.safetensors is damaged" in script(
        "run_finetune", "recipe.yaml", "--finetuning.checkpoint", "metamae"
    )


def test_processes_end_so_too(script: Script) -> None:
    ended = run_process([str(EXAMPLES / "run_finetune.py"), "recipe.yaml", "--sed", "1"])
    assert ended.returncode == 2 and ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    ended = run_process(["-m", "hf_maskssl.hub.publish", "nowhere", "org/name"])
    assert ended.returncode == 2 and ended.stderr.startswith("error: nowhere is not a folder")
