"""Baselines against scikit-learn called directly."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.preparation import PreparedData, prepare_data
from hf_maskssl.evaluation import baselines
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.baselines import (
    RawInputs,
    baseline_scores,
    majority,
    raw_inputs_probe,
    read_raw_inputs,
    tokens_of_samples,
    untrained_encoder,
)
from hf_maskssl.evaluation.probe import select_few
from hf_maskssl.models.configuration_metamae import MetaMAEConfig

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def digits_config() -> MetaMAEConfig:
    return MetaMAEConfig(modality="image", image_size=8, num_channels=1, patch_size=2, **SMALL)


@pytest.fixture(scope="module")
def digits() -> PreparedData:
    arguments = data_arguments(
        source="digits", kind="image", label_column="label", test_split="test", max_train_samples=300, cache=False
    )
    return prepare_data(arguments, digits_config())


def text_data(folder: Path, task: str, rows: int = 60) -> PreparedData:
    """Strings of A to D: the class, or value, is how often AB stands in them; the class of a token, its left neighbour."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        with open(folder / f"{split}.json", "w", encoding="utf-8") as file:
            for _ in range(rows):
                text = "".join(generator.choice(list("ABCD"), generator.integers(4, 13)))
                label: Any = text.count("AB")
                if task == "classification":
                    label = int(label > 0)
                if task == "token_classification":
                    label = ["ABCD".index(letter) for letter in "A" + text[:-1]]
                file.write(json.dumps({"text": text, "label": float(label) if task == "regression" else label}) + "\n")
    arguments = data_arguments(
        source="json",
        data_files={split: str(folder / f"{split}.json") for split in ("train", "test")},
        test_split="test",
        kind="tokens",
        alphabet="ABCD",
        input_column="text",
        label_column="label",
        task=task,  # type: ignore[arg-type]
        cache=False,
    )
    return prepare_data(arguments, text_config())


def text_config() -> MetaMAEConfig:
    return MetaMAEConfig(modality="tokens", vocab_size=7, max_position_embeddings=12, pad_token_id=0, **SMALL)


def test_raw_inputs_probe_is_scikit_learns_logistic_regression(digits: PreparedData) -> None:
    rows: dict[str, Any] = {name: getattr(digits, name).arrays() for name in ("train", "test")}
    pixels = {name: columns["pixel_values"].reshape(len(columns["labels"]), -1) for name, columns in rows.items()}
    scaler = StandardScaler().fit(pixels["train"])
    model = LogisticRegression(C=1.0, max_iter=1000).fit(scaler.transform(pixels["train"]), rows["train"]["labels"])
    expected = model.score(scaler.transform(pixels["test"]), rows["test"]["labels"])
    scores = baseline_scores(digits, "classification", ProbeArguments(), 0)
    assert scores["raw_inputs"]["accuracy"] == pytest.approx(expected, abs=0.006) and expected > 0.85
    assert scores["raw_inputs"]["converged"] is True
    assert scores["raw_inputs"]["what"] == "logistic regression on 64 input values"
    most = np.bincount(rows["train"]["labels"]).argmax()
    assert scores["majority"]["accuracy"] == pytest.approx((rows["test"]["labels"] == most).mean())


def test_few_labels_are_the_rows_that_the_linear_probe_gets(digits: PreparedData) -> None:
    inputs = {name: read_raw_inputs(getattr(digits, name), digits, "classification") for name in ("train", "test")}
    args = ProbeArguments(labels_per_class=5)
    run, what = raw_inputs_probe(inputs["train"], inputs["test"], "classification", args, seed=3)
    chosen = select_few(inputs["train"].labels, 5, 3)
    assert inputs["train"].values is not None and inputs["test"].values is not None
    scaler = StandardScaler().fit(inputs["train"].values[chosen])
    model = LogisticRegression(max_iter=1000).fit(
        scaler.transform(inputs["train"].values[chosen]), inputs["train"].labels[chosen]
    )
    expected = model.score(scaler.transform(inputs["test"].values), inputs["test"].labels)
    assert run.scores["accuracy"] == pytest.approx(expected, abs=0.006)
    assert "of" not in what.split(), "few labels are not reported as rows left out"


def test_a_bag_of_n_grams_is_scikit_learns_ridge_on_log_counts(tmp_path: Path) -> None:
    prepared = text_data(tmp_path, "regression")
    inputs = {name: read_raw_inputs(getattr(prepared, name), prepared, "regression") for name in ("train", "test")}
    run, what = raw_inputs_probe(inputs["train"], inputs["test"], "regression", ProbeArguments(), 0)

    def grams(split: str) -> list[list[tuple[int, ...]]]:
        texts = [ids.tolist() for ids in inputs[split].tokens or []]
        return [[tuple(ids[i : i + n]) for n in (1, 2, 3) for i in range(len(ids) - n + 1)] for ids in texts]

    columns = sorted({gram for text in grams("train") for gram in text})
    counts = {split: np.log1p([[text.count(gram) for gram in columns] for text in grams(split)]) for split in inputs}
    labels = inputs["train"].labels
    model = Ridge(alpha=1.0).fit(counts["train"], (labels - labels.mean()) / labels.std())
    expected = model.predict(counts["test"]) * labels.std() + labels.mean()
    np.testing.assert_allclose(run.predictions, expected, atol=2e-3)
    assert what == f"ridge regression on {len(columns)} n-grams of up to 3 tokens"
    assert run.scores["spearman"] > 0.7, "the bigram AB is a column"
    assert majority(labels, inputs["test"].labels, "regression").scores == {"spearman": 0.0}
    assert majority(labels, inputs["test"].labels, "regression").predictions[0] == pytest.approx(labels.mean())


def test_tokens_are_told_by_their_neighbours_and_padding_is_none(tmp_path: Path) -> None:
    prepared = text_data(tmp_path, "token_classification")
    scores = baseline_scores(prepared, "token_classification", ProbeArguments(), 0)
    assert scores["raw_inputs"]["token_accuracy"] > 0.99, "the left neighbour is in the window"
    assert 0.2 < scores["majority"]["token_accuracy"] < 0.5
    assert scores["raw_inputs"]["what"] == "logistic regression on the ids at 15 places around a token"
    rows: Any = prepared.test
    inputs = read_raw_inputs(rows, prepared, "token_classification")
    first = np.asarray(rows[0]["input_ids"])
    assert inputs.windows is not None
    padded = np.concatenate([np.full(7, -1), first, np.full(7, -1)])
    for place in range(len(first)):
        np.testing.assert_array_equal(inputs.windows[place], padded[place : place + 15])
    counts = tokens_of_samples(rows, prepared)
    assert counts.tolist() == [len(rows[row]["input_ids"]) for row in range(len(rows))] and counts.sum() == len(inputs)


def test_one_hot_windows_are_the_obvious_matrix() -> None:
    windows = np.array([[-1, 2, 0], [1, -1, -1]])
    expected = np.zeros((2, 9), dtype=np.float32)
    expected[0, 3 + 2] = expected[0, 6 + 0] = expected[1, 1] = 1
    np.testing.assert_array_equal(baselines._one_hot(windows, 3).toarray(), expected)


def test_large_inputs_are_averaged_and_large_training_sets_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = torch.arange(2 * 3 * 5 * 4, dtype=torch.float32).reshape(2, 3, 5, 4)
    pooled, block = baselines._block_means(pictures, 3 * 3 * 2)
    assert block == 2 and pooled.shape == (2, 3, 3, 2)
    assert pooled[0, 0, 0, 0] == pictures[0, 0, :2, :2].mean() and pooled[0, 0, 2, 0] == pictures[0, 0, 4, :2].mean()
    assert baselines._block_means(pictures, 60)[1] == 1
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 50)
    values = (labels[:, None] + 0.1 * generator.normal(size=(50, 4))).astype(np.float32)
    monkeypatch.setattr(baselines, "MAX_DENSE_NUMBERS", 80)
    inputs = RawInputs(labels, values)
    run, what = raw_inputs_probe(inputs, inputs, "classification", ProbeArguments(), 0)
    assert what.endswith("4 input values, 20 of 50 training rows") and run.scores["accuracy"] == 1.0


def test_several_modalities_are_flattened_with_shares_of_classes_and_what_is_absent_is_zero() -> None:
    collator = baselines.MultimodalCollator({"rgb": "rgb", "seg": "seg"}, {"seg": 3}, 255)
    batch = {
        "inputs": {"seg": torch.tensor([[[0, 255], [2, 2]]] * 2), "rgb": torch.ones(2, 1, 2, 2)},
        "presence": {"rgb": torch.tensor([True, False])},
    }
    rows = baselines._modalities(batch, collator)
    np.testing.assert_array_equal(rows[:, :5], [[1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])  # rgb and whether it is there
    np.testing.assert_array_equal(rows[0, 5:], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1])


def test_pictures_with_text_are_read_together() -> None:
    generator = np.random.default_rng(0)
    tokens = [generator.integers(0, 4, 6) for _ in range(80)]
    values = generator.normal(size=(80, 3)).astype(np.float32)
    labels = np.array([2 * int(row[0] > 0) + int(3 in ids) for row, ids in zip(values, tokens, strict=True)])
    inputs = RawInputs(labels, values, tokens, vocab_size=4)
    run, what = raw_inputs_probe(inputs, inputs, "classification", ProbeArguments(), 0)
    assert "3 input values and" in what and "n-grams" in what and run.scores["accuracy"] > 0.9


def test_untrained_encoder_depends_on_its_seed_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    first, again, other = (untrained_encoder(digits_config(), seed) for seed in (5, 5, 6))
    assert torch.equal(torch.rand(2), expected)
    weights = [dict(encoder.named_parameters()) for encoder in (first, again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_bad_input_says_what_to_do(digits: PreparedData) -> None:
    unlabelled = prepare_data(data_arguments(source="digits", kind="image", cache=False), digits_config())
    with pytest.raises(ValueError, match="data.label_column"):
        read_raw_inputs(unlabelled.train, unlabelled, "classification")
    with pytest.raises(ValueError, match="data.test_split"):
        baseline_scores(unlabelled, "classification", ProbeArguments(), 0)
    nothing = RawInputs(np.array([0, 1]))
    with pytest.raises(ValueError, match="neither numbers nor tokens.*probe.baselines"):
        raw_inputs_probe(nothing, nothing, "classification", ProbeArguments(), 0)
    values = RawInputs(np.array([0.5, 1.0], dtype=np.float32), np.ones((2, 1), np.float32))
    with pytest.raises(ValueError, match="labels_per_class: a regression task"):
        raw_inputs_probe(values, values, "regression", ProbeArguments(labels_per_class=1), 0)
