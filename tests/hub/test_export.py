"""Exports: programs that compute what the model computes, run without the package, and errors that name what is missing."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from export_cases import ALL, CASES, save_model
from transformers import ViTModel

from hf_maskssl.commands import export as verb
from hf_maskssl.hub import export as room
from hf_maskssl.hub.export import ExportDiffers, ExportOptions, export, programs
from hf_maskssl.hub.export.heads import heads_of
from hf_maskssl.hub.export.shapes import export_inputs
from hf_maskssl.methods import METHODS
from hf_maskssl.models.feature_extraction_series import SeriesFeatureExtractor
from hf_maskssl.models.image_processing_array import ArrayImageProcessor
from hf_maskssl.scripts import UserError, run_script

pytest.importorskip("transformers.exporters.metadata", reason="the exporters of transformers 5.23")
needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="the extra export",
)
FORMATS = [pytest.param("onnx", marks=needs_onnx), "torch-export"]


def run_card(folder: Path, scripts: Path) -> list[str]:
    """The lines that the code of an export's README.md prints where it lies, with this package out of reach."""
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert found is not None
    out_of_reach = ["hf_maskssl"] + ["torch", "transformers"] * ("import torch" not in found[1])
    script = scripts / "card.py"
    script.write_text(f"import sys\nfor name in {out_of_reach}:\n    sys.modules[name] = None\n{found[1]}")
    done = subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def save_series(folder: Path, **processor: Any) -> Any:
    """A classifier of series with its processor."""
    names = {"id2label": {0: "walks", 1: "stands", 2: "falls"}, "label2id": {"walks": 0, "stands": 1, "falls": 2}}
    model = save_model(folder, "metamae series", "sequence_classification", num_labels=3, num_hidden_layers=1, **names)
    settings = {"standardize": "dataset", "mean": [1.0, 2.0, 3.0], "std": [0.5, 1.0, 2.0], "scale": 2.0} | processor
    SeriesFeatureExtractor(num_channels=3, series_length=12, **settings).save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", ["torch-export", pytest.param("onnx", marks=[needs_onnx, pytest.mark.slow])])
def test_an_exported_classifier_says_what_it_reads(kind: Any, tmp_path: Path) -> None:
    save_series(tmp_path / "model")
    found = export(str(tmp_path / "model"), tmp_path / "out", ExportOptions(kind))
    assert found["check"]["largest_difference"] < 1e-5
    written = json.loads((tmp_path / "out" / "export.json").read_text())
    assert written["labels"] == ["walks", "stands", "falls"] and written["head"] == "sequence_classification"
    assert written["inputs"] == [{"name": "input_values", "dtype": "float32", "shape": ["batch", 3, "length"]}]
    assert written["length"] == {"max": 12, "multiple_of": 2} and written["outputs"][0]["name"] == "logits"
    assert written["preprocessing"]["mean"] == [1, 2, 3] and written["format"] == kind
    assert (tmp_path / "out" / "preprocessor_config.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("standardize", ["dataset", "sample"])
def test_the_card_prepares_samples_as_the_processor_does(standardize: str, tmp_path: Path) -> None:
    import numpy as np

    model = save_series(tmp_path / "model", standardize=standardize)
    export(str(tmp_path / "model"), tmp_path / "out")
    processor = SeriesFeatureExtractor.from_pretrained(tmp_path / "model")
    samples = np.random.default_rng(0).random((2, 3, 12))
    logits = model(**processor(samples, return_tensors="pt")).logits
    names = [model.config.id2label[number] for number in logits.argmax(-1).tolist()]
    assert run_card(tmp_path / "out", tmp_path) == [str(names)]
    text = (tmp_path / "out" / "README.md").read_text()
    code = text.replace("print(names)", 'print(outputs["logits"].ravel().tolist())')
    (tmp_path / "out" / "README.md").write_text(code)
    [line] = run_card(tmp_path / "out", tmp_path)
    torch.testing.assert_close(torch.tensor(json.loads(line)), logits.detach().ravel(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("case", "head"), ALL)
def test_every_encoder_and_head_is_exported(case: str, head: str, kind: Any, tmp_path: Path) -> None:
    save_model(tmp_path / "model", case, head)
    found = export(str(tmp_path / "model"), tmp_path / "out", ExportOptions(format=kind))
    assert found["head"] == head and found["check"]["largest_difference"] < 1e-4
    assert all(entry["shape"][0] == "batch" for entry in found["inputs"])
    has_length = any(word in case for word in ("tokens", "latents", "bert", "language", "series", "tabular"))
    assert (found["length"] is not None) == has_length
    assert run_card(tmp_path / "out", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("names", [["rgb"], ["rgb", "depth"], ["semseg"]])
def test_a_multimae_is_exported_with_a_set_of_inputs(names: list[str], kind: Any, tmp_path: Path) -> None:
    save_model(tmp_path / "model", "multimae")
    found = export(str(tmp_path / "model"), tmp_path / "out", ExportOptions(kind, inputs=names))
    assert [entry["name"] for entry in found["inputs"]] == [f"inputs.{name}" for name in names]
    assert run_card(tmp_path / "out", tmp_path)


VALUED = [
    ("metamae series", "input_values"),
    ("metamae image", "pixel_values"),
    ("sma series", "input_values"),
    ("sma image", "pixel_values"),
    ("multimae", "inputs.rgb"),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("case", "name"), VALUED)
def test_values_may_be_missing_in_an_export(case: str, name: str, kind: Any, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", case)
    found = export(str(tmp_path / "model"), tmp_path / "out", ExportOptions(kind, observed_mask=True))
    assert found["check"]["largest_difference"] < 1e-5
    shapes = {entry["name"]: entry["shape"] for entry in found["inputs"]}
    mask = name.replace("inputs", "observed_mask") if "." in name else "observed_mask"
    assert shapes[mask] == shapes[name]
    inputs = export_inputs(model, METHODS[model.config.model_type], "encoder", None).with_observed_mask(model.config)
    seen = inputs.checks()[0]
    expected = programs.run_program(tmp_path / "out", kind, seen)["last_hidden_state"]
    garbage = {key: value.clone() for key, value in seen.items()}
    for key in [key for key in garbage if key.startswith("observed_mask")]:
        garbage[key.replace("observed_mask", "inputs") if "." in key else name][~garbage[key]] = float("nan")
    torch.testing.assert_close(
        programs.run_program(tmp_path / "out", kind, garbage)["last_hidden_state"], expected, atol=0, rtol=0
    )


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("standardize", ["dataset", "sample"])
def test_the_card_with_missing_values_runs(standardize: str, tmp_path: Path) -> None:
    save_series(tmp_path / "model", standardize=standardize)
    export(str(tmp_path / "model"), tmp_path / "out", ExportOptions(observed_mask=True))
    assert "NaN: missing" in (tmp_path / "out" / "README.md").read_text()
    assert len(run_card(tmp_path / "out", tmp_path)) == 1


def test_a_mask_of_missing_values_is_refused_where_none_can_be(tmp_path: Path) -> None:
    save_model(tmp_path / "tokens", "metamae tokens")
    with pytest.raises(ValueError, match="--observed_mask is for series.* this model reads input_ids"):
        export(str(tmp_path / "tokens"), tmp_path / "out", ExportOptions("torch-export", observed_mask=True))
    save_model(tmp_path / "image", "metamae image")
    with pytest.raises(ValueError, match="a ViT reads whole pictures"):
        export(str(tmp_path / "image"), tmp_path / "out", ExportOptions("vit", observed_mask=True))


@pytest.mark.parametrize("case", ["metamae image", "multimae"])
def test_an_encoder_of_pictures_becomes_a_vit(case: str, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", case)
    found = export(str(tmp_path / "model"), tmp_path / "out", ExportOptions("vit"))
    assert found["check"]["largest_difference"] < 1e-5
    vit = ViTModel.from_pretrained(tmp_path / "out", add_pooling_layer=False)
    shape = [3, *found["inputs"][0]["shape"][1:]]
    pixel_values = torch.randn(shape)
    given = {"pixel_values": pixel_values}
    expected = model(**given).last_hidden_state
    outputs = vit(pixel_values, output_hidden_states=True)
    hidden = outputs.last_hidden_state if case == "metamae image" else outputs.hidden_states[-1]
    torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["metamae image", "multimae"])
def test_the_card_of_a_vit_runs(case: str, tmp_path: Path) -> None:
    save_model(tmp_path / "model", case)
    if case == "metamae image":
        ArrayImageProcessor(5, [4, 6], standardize="dataset", mean=[0.5] * 5, std=[2.0] * 5).save_pretrained(
            tmp_path / "model"
        )
    export(str(tmp_path / "model"), tmp_path / "out", ExportOptions("vit"))
    assert run_card(tmp_path / "out", tmp_path) == ["torch.Size([2, 16])"]


def test_an_export_is_checked_with_another_number_of_choices(tmp_path: Path) -> None:
    model = save_model(tmp_path, "pos_minimax_bert", "multiple_choice")
    inputs = export_inputs(model, METHODS["pos_minimax_bert"], "multiple_choice", None)
    assert {tuple(axes.values()) for axes in inputs.axes.values()} == {("batch", "choices", "length")}
    assert [check["input_ids"].shape for check in inputs.checks()] == [(3, 3, 6), (1, 2, 12)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_a_multiple_choice_model_takes_any_number_of_choices(kind: Any, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "pos_minimax_bert", "multiple_choice")
    found = export(str(tmp_path / "model"), tmp_path / "out", ExportOptions(kind))
    assert {tuple(entry["shape"]) for entry in found["inputs"]} == {("batch", "choices", "length")}
    assert found["labels"] is None and [entry["name"] for entry in found["outputs"]] == ["logits"]
    draws = torch.Generator().manual_seed(3)
    for batch, choices, length in ((4, 5, 7), (1, 1, 12)):
        ids = torch.randint(1, 30, (batch, choices, length), generator=draws)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
        given["attention_mask"][:, 0, length // 2 :] = 0
        logits = programs.run_program(tmp_path / "out", kind, given)["logits"]
        torch.testing.assert_close(logits, model(**given).logits, rtol=1e-4, atol=1e-5)
    assert "`batch` and `choices` are free." in (tmp_path / "out" / "README.md").read_text()
    assert run_card(tmp_path / "out", tmp_path) == ["(2,)"]


def test_rows_of_a_table_keep_their_columns(tmp_path: Path) -> None:
    model = save_model(tmp_path, "metamae tabular")
    processor = SeriesFeatureExtractor(1, 6, statistics_axis="feature")
    assert export_inputs(model, METHODS["metamae"], "encoder", processor).length is None
    free = export_inputs(model, METHODS["metamae"], "encoder", None)
    assert free.length is not None and [check["input_values"].shape[2] for check in free.checks()] == [3, 6]
    assert [len(check["input_values"]) for check in free.checks()] == [3, 1]


@pytest.mark.parametrize(
    ("case", "head", "options", "words"),
    [
        (
            "metamae series",
            "encoder",
            {"format": "onx"},
            r"--format: expected one of .*got 'onx' \(did you mean 'onnx'",
        ),
        ("metamae series", "encoder", {"head": "sequence_clasification"}, "did you mean 'sequence_classification'"),
        (
            "metamae series",
            "encoder",
            {"head": "sequence_classification"},
            "holds no weights of it .*missing.*; it has 'encoder'",
        ),
        (
            "sma tokens",
            "token_classification",
            {"head": "sequence_classification"},
            "it has 'encoder' and 'token_classification'",
        ),
        ("metamae series", "encoder", {"inputs": ["rgb"]}, "metamae has one input: leave it out"),
        (
            "multimae",
            "encoder",
            {"inputs": ["rbg"]},
            r"no input 'rbg' \(did you mean 'rgb'\?\); it has \['rgb', 'depth'",
        ),
        ("metamae series", "encoder", {"format": "vit"}, "metamae of modality 'series' is another architecture"),
        (
            "pos_minimax_bert",
            "encoder",
            {"format": "vit"},
            "pos_minimax_bert is another architecture: take --format onnx",
        ),
        ("multimae", "image_classification", {"format": "vit"}, "holds an encoder alone, .* add --head encoder"),
        ("multimae", "encoder", {"format": "vit", "inputs": ["rgb", "depth"]}, "reads one modality"),
        ("multimae", "encoder", {"format": "vit", "inputs": ["semseg"]}, "must be a continuous input"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    case: str, head: str, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    save_model(tmp_path / "model", case, head)
    with pytest.raises(ValueError, match=words):
        export(str(tmp_path / "model"), tmp_path / "out", ExportOptions(**{"format": "torch-export"} | options))
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing is left behind"


def test_an_export_that_differs_says_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_model(tmp_path / "model", "metamae tabular")

    def write(opened: Any, inputs: Any, kind: str, folder: Path) -> None:
        (folder / "model.pt2").write_text("a program")

    def run(folder: Path, kind: str, inputs: Any) -> Any:
        outputs = model(**inputs)
        return {name: value + 0.25 * (name == "pooler_output") for name, value in outputs.items()}

    monkeypatch.setattr(room, "write_program", write)
    monkeypatch.setattr(room, "run_program", run)
    options = ExportOptions("torch-export", tolerance=0.01)
    with pytest.raises(
        ExportDiffers, match=r"differs from the model by up to 0\.\d+, .*--tolerance 0.01: nothing was kept"
    ):
        export(str(tmp_path / "model"), tmp_path / "out", options)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_holds_something_is_not_written_to(tmp_path: Path) -> None:
    save_model(tmp_path, "metamae tabular")
    with pytest.raises(ValueError, match="is not an empty folder: name a new one"):
        export(str(tmp_path), tmp_path, ExportOptions("torch-export"))


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for name in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, torch)
    with pytest.raises(
        ImportError, match=r'Exporting to ONNX needs onnxruntime, .*pip install "hf_maskssl\[export\]"'
    ):
        programs.check_packages("onnx")
    monkeypatch.setitem(sys.modules, "transformers.exporters.metadata", None)
    with pytest.raises(ImportError, match="needs the exporters of transformers 5.23 or later"):
        programs.check_packages("torch-export")


def test_the_verb_prints_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "model", "metamae image")
    words = [str(tmp_path / "model"), "--output", str(tmp_path / "out"), "--format", "vit"]
    monkeypatch.setattr(sys, "argv", ["hf-maskssl export", *words])
    run_script(verb.main)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "reads pixel_values: float32 [batch, 5, 4, 6]"
    assert lines[-2:] == [f"{tmp_path / 'out'}: MetaMAEModel (encoder)", "README.md there says how to run it"]
    with pytest.raises(UserError, match="is not an empty folder"):
        run_script(verb.main)


def test_every_head_but_pretraining_is_there() -> None:
    for case, (model_type, _) in CASES.items():
        heads = heads_of(METHODS[model_type])
        assert "encoder" in heads and "pre_training" not in heads, case
