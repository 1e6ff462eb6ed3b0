"""A fifth method from another distribution goes the whole way, with no line of hf_maskssl changed."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import AutoModel, BertConfig, BertModel

from hf_maskssl import Description, Method, register_method
from hf_maskssl.methods import METHODS
from outside import EXAMPLES, WALK, install

RECIPE = {
    "model": {"model_type": "toy"},
    "data": {
        "source": "digits",
        "kind": "image",
        "scale": 0.0625,
        "max_train_samples": 64,
        "label_column": "label",
        "test_split": "test",
        "max_test_samples": 40,
    },
    "probe": {"every_steps": 4, "max_samples": 40, "k": 3},
    "training": {"output_dir": "run", "max_steps": 8, "batch_size": 8, "learning_rate": 0.01, "save_steps": 4},
}
SCRIPT = WALK + 'assert "toy_method" in sys.modules, "found by its entry point"\n'


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment that has the toy method."""
    return install(tmp_path, "toy_method", "[hf_maskssl.methods]\ntoy = toy_method.method:METHOD\n")


def test_a_fifth_method_goes_the_whole_way(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(EXAMPLES)],
        cwd=tmp_path,
        env=installed,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-5000:]
    assert "both ways of loading agree" in result.stdout
    assert "checkpoint-00000008 at step 8." in result.stderr, "the second call goes on where the first ended"
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "# Toy pre-trained on" in card and "nobody2026toy" in card
    assert (tmp_path / "run" / "modeling_toy.py").exists()
    assert (tmp_path / "probe" / "result.json").exists()


@pytest.mark.slow
def test_a_method_that_cannot_be_loaded_is_named(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "site" / "toy_method" / "method.py").write_text("METHOD = 'toy'\n")
    command = [sys.executable, "-c", "import hf_maskssl; hf_maskssl.MetaMAEConfig()"]
    result = subprocess.run(command, env=installed, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "The method 'toy' (toy_method.method:METHOD) is left out: " in result.stderr
    assert "expected a hf_maskssl.Method" in result.stderr


def describe(config: BertConfig) -> Description:
    return Description("BERT", "An encoder", "Devlin et al. 2019", "", "", "")


def test_a_record_needs_an_encoder_and_a_pretraining_model() -> None:
    with pytest.raises(ValueError, match="method bert: model_classes has no class for AutoModelForPreTraining"):
        Method(BertConfig, {AutoModel: BertModel}, describe, lambda config: {})


def test_a_name_is_given_once() -> None:
    class Other(BertConfig):
        model_type = "metamae"

    before = dict(METHODS)
    with pytest.raises(ValueError, match="model_type 'metamae' .* is the name of a method already"):
        register_method(Method(Other, METHODS["metamae"].model_classes, describe, lambda config: {}))
    assert before == METHODS
