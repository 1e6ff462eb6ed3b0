"""Recipes: types, overrides and errors."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_maskssl.data.arguments import DataArguments, data_arguments
from hf_maskssl.recipes import build_config, coerce, load_recipe


@dataclass
class Training:
    """Stands in for a section of another room."""

    learning_rate: float = 1e-4
    max_steps: int = 10
    report_to: list[str] = field(default_factory=list)
    max_grad_norm: float | None = None
    scheduler: Literal["constant", "cosine"] = "constant"
    compile: bool = False
    name: str = "run"


@dataclass
class Probe:
    """A second section with a field of the same name."""

    learning_rate: float = 1e-3
    seeds: list[int] = field(default_factory=lambda: [0])


SECTIONS: dict[str, type] = {"model": dict, "data": DataArguments, "training": Training, "probe": Probe}
RECIPE = """
model:
  model_type: bert
  hidden_size: 32
data:
  source: digits
  scale: 1e-3
training:
  learning_rate: 5e-4
  max_grad_norm: 1
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe file."""
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_load_recipe_reads_exponents_as_floats_and_ints_where_floats_belong(recipe: Path) -> None:
    loaded = load_recipe(recipe, sections=SECTIONS)
    assert loaded["data"].scale == 1e-3
    assert loaded["training"].learning_rate == 5e-4
    assert type(loaded["training"].max_grad_norm) is float
    assert loaded["model"] == {"model_type": "bert", "hidden_size": 32}
    assert loaded["probe"] == Probe()


def test_overrides_of_every_form(recipe: Path) -> None:
    words = ["--max_steps", "7", "--model.hidden_size=64", "--compile", "--training.learning_rate", "1e-3"]
    words += ["--seeds", "[1, 2]", "--report_to", "tensorboard", "--scheduler=cosine", "--name", "1e3"]
    words += ["--max_grad_norm", "null", "--scale", "-2"]
    loaded = load_recipe(recipe, words, SECTIONS)
    expected = Training(1e-3, 7, ["tensorboard"], None, "cosine", True, "1e3")
    assert loaded["training"] == expected
    assert loaded["probe"].seeds == [1, 2]
    assert loaded["model"]["hidden_size"] == 64
    assert loaded["data"].scale == -2.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning_rate", "1e-3"], r"\['training', 'probe'\].*--training.learning_rate or --probe.learning_rate"),
        (["--max_step", "3"], r"max_step: unknown field \(did you mean 'max_steps'\?\)"),
        (["--trainig.max_steps", "3"], r"no section 'trainig' \(did you mean 'training'\?\)"),
        (["--training.max_step", "3"], "did you mean 'max_steps'"),
        (["--max_steps"], "expected a value after it"),
        (["max_steps", "3"], "expected --field value"),
        (["--max_steps", "three"], r"training.max_steps: expected int, got 'three' \(str\)"),
        (["--seeds", "[1, a]"], r"probe.seeds\[1\]: expected int, got 'a'"),
    ],
)
def test_overrides_that_fit_nothing_are_refused(recipe: Path, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe(recipe, words, SECTIONS)


@pytest.mark.parametrize("section", ["training", "probe"])
def test_an_ambiguous_name_belongs_to_the_primary_section(recipe: Path, section: str) -> None:
    loaded = load_recipe(recipe, ["--learning_rate", "7e-4"], SECTIONS, primary=section)
    rates = {name: loaded[name].learning_rate for name in ("training", "probe")}
    assert rates == {"training": 5e-4, "probe": 1e-3, section: 7e-4}
    other = {"training": "probe", "probe": "training"}[section]
    loaded = load_recipe(recipe, [f"--{other}.learning_rate", "7e-4", "--seeds", "[3]"], SECTIONS, primary=section)
    assert loaded[other].learning_rate == 7e-4 and loaded["probe"].seeds == [3]


def test_an_ambiguous_name_that_the_primary_section_lacks_is_refused(recipe: Path) -> None:
    with pytest.raises(ValueError, match=r"\['training', 'probe'\] both have this field"):
        load_recipe(recipe, ["--learning_rate", "1e-3"], SECTIONS, primary="data")


def test_overrides_need_no_model_section(recipe: Path) -> None:
    recipe.write_text("data: {source: digits}\n")
    loaded = load_recipe(recipe, ["--scale", "2", "--max_steps", "3"], SECTIONS)
    assert (loaded["data"].scale, loaded["training"].max_steps, loaded["model"]) == (2.0, 3, {})
    loaded = load_recipe(recipe, ["--model_type", "bert"], SECTIONS)
    assert loaded["model"] == {"model_type": "bert"}
    with pytest.raises(ValueError, match="hidden_size: unknown field"):
        load_recipe(recipe, ["--hidden_size", "3"], SECTIONS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {sourse: digits}", r"unknown field data.sourse for kind 'image' \(did you mean 'source'\?\)"),
        ("dta: {source: digits}", r"unknown section 'dta' \(did you mean 'data'\?\)"),
        ("training: {max_steps: 1.5}", r"training.max_steps: expected int, got 1.5 \(float\)"),
        ("training: {max_steps: true}", r"training.max_steps: expected int, got True \(bool\)"),
        ("training: {compile: 1}", "training.compile: expected bool, got 1"),
        ("training: {scheduler: cosin}", r"expected one of \['constant', 'cosine'\], got 'cosin' \(did you mean"),
        ("training: {max_steps: 1, max_steps: 2}", "'max_steps' is written twice"),
        ("training: 3", "section 'training' should hold fields"),
        ("- a list", "expected sections"),
        ("a: [", "not readable YAML"),
    ],
)
def test_wrong_recipes_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe(path, sections=SECTIONS)


def test_sections_not_asked_for_are_skipped(recipe: Path) -> None:
    recipe.write_text(RECIPE + "probe: {no_such_field: 1}\n")
    assert set(load_recipe(recipe, sections={"data": DataArguments})) == {"data"}


def test_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.yaml"):
        load_recipe(tmp_path / "none.yaml")


def test_build_config_builds_the_class_of_the_model_type() -> None:
    config = build_config({"model_type": "bert", "hidden_size": 48, "layer_norm_eps": 1})
    assert (config.model_type, config.hidden_size) == ("bert", 48)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 3}, "model.model_type: missing"),
        ({"model_type": "brt"}, "no 'brt' .did you mean"),
        ({"model_type": "bert", "hiden_size": 3}, "unknown field model.hiden_size .did you mean 'hidden_size'"),
        ({"model_type": "bert", "hidden_size": "3"}, r"^model.hidden_size: expected int, got str .*'3'"),
        ({"model_type": "metamae", "modality": "tokns"}, r"^model.modality: expected one of .*did you mean 'tokens'"),
        (
            {"model_type": "pos_minimax_bert", "tasks": ["noun", "vreb"]},
            r"^model section: `tasks` must be .* got \['noun', 'vreb'\] \(did you mean 'verb'\?\)$",
        ),
        (
            {"model_type": "pos_minimax_bert", "task_balancing_options": {"momentun": 1}},
            r"^model section: `task_balancing_options`: .*\(did you mean 'momentum'\?\)$",
        ),
        ({"model_type": "pos_minimax_bert", "num_attention_heads": 7}, r"^model section: `hidden_size` .* 7 heads\.$"),
    ],
)
def test_build_config_refuses_what_the_class_does_not_know(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_config(fields)


@given(st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.lists(st.integers())))
def test_coerce_gives_the_type_asked_for_or_an_error_with_the_name(value: Any) -> None:
    for expected in (bool, int, float, str, list[int]):
        container = list if expected == list[int] else expected
        may_pass = type(value) is container or (expected is float and type(value) is int)
        if may_pass:
            assert type(coerce(value, expected, "a.b")) is container
        else:
            with pytest.raises(ValueError, match=r"^a\.b: expected"):
                coerce(value, expected, "a.b")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "series", "source": "some/name"}, "data.input_column"),
        ({"kind": "spectrogram", "input_column": "audio"}, "data.sampling_rate"),
        ({"source": "parquet", "input_column": "x"}, "needs data.data_files or data.data_dir"),
        ({"source": "numpy", "data_dir": "x", "input_column": "x"}, "'numpy' needs data.data_files"),
        ({"validation_fraction": 1.0}, r"expected a number in \[0, 1\), got 1.0"),
        ({"validation_fraction": 0.1, "validation_split": "test"}, "keep one of them"),
        ({"validation_fraction": 0.1, "streaming": True}, "a stream cannot be cut"),
        ({"max_train_samples": 0}, "data.max_train_samples: expected at least 1"),
        ({"kind": "tokens", "input_column": "x", "tokenizer": "a", "alphabet": "b"}, "keep the one"),
        ({"alphabet": "AC"}, "unknown field data.alphabet for kind 'image'"),
        ({"kind": "tokens", "input_column": "x", "alphabet": "ABCA"}, r"occur twice: \['A'\]"),
        ({"kind": "tokens", "input_column": "x", "alphabet": ""}, "at least one character"),
        ({"kind": "vision_language"}, "data.text_column: kind 'vision_language' needs"),
        ({"text_column": "caption"}, "unknown field data.text_column for kind 'image'"),
        ({"label_mask_column": "mask"}, "unknown field data.label_mask_column for kind 'image'"),
        (
            {"kind": "tokens", "input_column": "x", "label_mask_column": "mask"},
            "only task 'token_classification' uses",
        ),
        ({"kind": "imge"}, r"data.kind: expected one of .*'image'.*got 'imge' \(did you mean 'image'\?\)"),
        ({"task": "token_classification"}, "needs kind 'tokens'"),
        ({"input_column": ["a", "b"]}, "takes one column"),
        ({"scale": 0.0}, "data.scale"),
    ],
)
def test_data_arguments_refuse_what_cannot_work(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data_arguments(**fields)
