"""Few-shot curves: the probes of every number of labels, over draws, as one table and one picture."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_models
from hf_maskssl.data import build_config, prepare_data
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.evaluation import few_shot
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.evaluate_checkpoint import evaluate_checkpoint, main, parse_arguments
from hf_maskssl.models.modeling_metamae import MetaMAEForPretraining

DATA = {"source": "digits", "kind": "image", "label_column": "label", "max_train_samples": 120, "max_test_samples": 60}
RECIPE = """
data: {source: digits, kind: image, label_column: label, test_split: test, max_train_samples: 120, max_test_samples: 60,
  cache: false}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("digits")
    model = tiny_models.section("metamae", modality="image", image_size=[8, 8], num_channels=1, patch_size=[2, 2])
    config = build_config(model)
    torch.manual_seed(0)
    MetaMAEForPretraining(config).save_pretrained(folder)
    prepare_data(data_arguments(**DATA, cache=False), config).processor.save_pretrained(folder)  # type: ignore[union-attr]
    return str(folder)


def test_a_curve_is_the_probes_of_every_number(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits.yaml").write_text(RECIPE)
    read = []
    original = few_shot.features_of_splits
    monkeypatch.setattr(few_shot, "features_of_splits", lambda *args: read.append(1) or original(*args))
    words = ["--labels_per_class", "all", "2", "--seeds", "[0, 1]", "--baselines", "false"]
    words += ["--output", str(tmp_path / "out")]
    main([checkpoint, str(tmp_path / "digits.yaml"), *words])
    assert len(read) == 1  # all numbers of labels look at the same features
    written = json.loads((tmp_path / "out" / "few_shot.json").read_text())
    assert written["counts"] == [2, None]
    assert [curve["name"] for curve in written["curves"]] == [checkpoint]
    linear = written["curves"][0]["linear"]
    assert [len(scores) for scores in linear] == [2, 1]
    args = ProbeArguments(labels_per_class=2, seeds=[0, 1], baselines=False)
    alone = evaluate_checkpoint(checkpoint, data_arguments(**DATA, test_split="test", cache=False), args)
    np.testing.assert_allclose(linear[0], [100 * run["accuracy"] for run in alone["linear"]])
    assert np.mean(linear[0]) < linear[1][0]  # of digits, more labels help
    row = written["tables"]["linear"]["rows"][0]
    assert row[1]["mean"] == pytest.approx(np.mean(linear[0])) and row[2]["half_width"] is None
    # Student's t with one degree of freedom.
    assert row[1]["half_width"] == pytest.approx(12.7062 * np.std(linear[0], ddof=1) / 2**0.5, rel=1e-4)
    assert Image.open(tmp_path / "out" / "few_shot.png").size[0] > 900
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "few_shot.json",
        "few_shot.md",
        "few_shot.png",
    ]
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed[:-1])) <= 80 and any(line.startswith("linear probe") for line in printed)


@pytest.mark.slow
def test_baselines_have_curves_too(checkpoint: str) -> None:
    data = data_arguments(**DATA, test_split="test", cache=False)
    curves = few_shot.few_shot_curves([checkpoint, checkpoint], data, ProbeArguments(seeds=[0, 1]), [2, None])
    assert [curve.name for curve in curves] == [checkpoint, checkpoint, "untrained encoder", "raw inputs"]
    raw = curves[-1].scores("linear", "accuracy")
    assert [len(scores) for scores in raw.values()] == [2, 1] and curves[-1].scores("knn", "accuracy") == {}
    alone = evaluate_checkpoint(checkpoint, data, ProbeArguments(labels_per_class=2, seeds=[0, 1]))["baselines"]
    np.testing.assert_allclose(raw[2], [100 * run["accuracy"] for run in alone["raw_inputs"]["linear"]])
    untrained = curves[-2].scores("knn", "accuracy")
    np.testing.assert_allclose(untrained[2], [100 * run["accuracy"] for run in alone["untrained"]["knn"]])


def test_one_seed_becomes_five_draws() -> None:
    assert few_shot.with_draws(ProbeArguments(seeds=[7])).seeds == [7, 8, 9, 10, 11]
    assert few_shot.with_draws(ProbeArguments(seeds=[3, 1])).seeds == [3, 1]


def test_one_number_is_no_curve() -> None:
    options, models, recipe, words = parse_arguments(["model", "digits", "--labels_per_class", "5", "--k", "3"])
    assert not options.labels_per_class and (models, recipe) == (["model"], "digits")
    assert words == ["--k", "3", "--probe.labels_per_class", "5"]
    assert parse_arguments(["model", "digits", "--labels_per_class", "all"])[3][-1] == "null"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["5", "none"], "--labels_per_class: expected numbers from 1 or \"all\", got 'none'"),
        (["0", "5"], "got '0'"),
        (["5", "5"], "expected different numbers, got 5 5"),
    ],
)
def test_other_numbers_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_arguments(["model", "digits", "--labels_per_class", *words])


def test_more_labels_than_rows_are_refused(checkpoint: str) -> None:
    data = data_arguments(**DATA, test_split="test", cache=False)
    with pytest.raises(ValueError, match="at most the rows of each class, got 50; class"):
        few_shot.few_shot_curves([checkpoint], data, ProbeArguments(baselines=False), [50])
    data = data_arguments(**DATA, test_split="test", cache=False, task="regression")
    with pytest.raises(ValueError, match="a regression task has no classes"):
        few_shot.few_shot_curves([checkpoint], data, ProbeArguments(), [5])
