"""From a saved checkpoint and a recipe to files, as the example script does it; and the online probe."""

import json
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hf_maskssl.evaluation.evaluate_checkpoint as evaluation
from hf_maskssl.data.arguments import DataArguments, data_arguments
from hf_maskssl.data.preparation import PreparedData, prepare_data
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.evaluate_checkpoint import Arm, Measurement, compare, main, parse_arguments, summarise
from hf_maskssl.evaluation.features import Features
from hf_maskssl.evaluation.former_results import (
    OtherResultsError,
    described,
    folder_of_results,
    refuse_other_results,
)
from hf_maskssl.evaluation.online import online_probe
from hf_maskssl.evaluation.probe import ProbeRun
from hf_maskssl.files import writable_folder, write_json
from hf_maskssl.models.configuration_metamae import MetaMAEConfig
from hf_maskssl.models.modeling_metamae import MetaMAEForPretraining

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
DECODER: dict[str, Any] = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
RECIPE = """
data:
  source: digits
  kind: image
  input_column: image
  label_column: label
  test_split: test
  max_train_samples: 300
  max_test_samples: 100
probe:
  solver: exact
training:
  seed: 0
"""


def digits_config() -> MetaMAEConfig:
    return MetaMAEConfig(modality="image", image_size=8, num_channels=1, patch_size=2, **SMALL, **DECODER)


def digits_arguments(**fields: Any) -> DataArguments:
    return data_arguments(
        source="digits",
        kind="image",
        input_column="image",
        label_column="label",
        max_train_samples=300,
        cache=False,
        **fields,
    )


@pytest.fixture(scope="module")
def digits() -> PreparedData:
    return prepare_data(digits_arguments(test_split="test"), digits_config())


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, digits: PreparedData) -> list[str]:
    folders = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        folder = tmp_path_factory.mktemp("checkpoint") / f"seed-{seed}"
        MetaMAEForPretraining(digits_config()).save_pretrained(folder)
        digits.processor.save_pretrained(folder)  # type: ignore[union-attr]
        folders.append(str(folder))
    return folders


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "digits.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return str(path)


def test_one_model_gives_json_table_and_plot(checkpoints: list[str], recipe: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    main([checkpoints[0], recipe, "--output", str(output), "--cache", "false"])
    written = json.loads((output / "result.json").read_text(encoding="utf-8"))
    (result,) = written["results"]
    assert result["rows"] == {"train": 300, "test": 100} and result["test_split"] == "test"
    # An untrained encoder of handwritten digits is far above chance (10 %) and far from perfect.
    assert 0.2 < result["linear"][0]["accuracy"] < 0.95 and 0.2 < result["knn"][0]["accuracy"] < 0.95
    lines = (output / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("| model | linear probe, accuracy (%) | kNN, accuracy (%) |")
    assert f"{100 * result['linear'][0]['accuracy']:.2f}" in lines[2] and "±" not in lines[2]
    assert result["linear"][0]["converged"] is True
    # What it has to beat stands beside it, in the results, the tables and what is printed.
    baselines = result["baselines"]
    assert set(baselines) == {"untrained", "raw_inputs", "majority"}
    names = [row[0] for row in written["table"]["rows"]]
    raw = "raw inputs: logistic regression on 64 input values"
    assert names == [checkpoints[0], "untrained encoder (seed 0)", raw, "most frequent class"]
    shown = [row[1]["mean"] for row in written["table"]["rows"][1:]]
    assert shown == [100 * baseline["linear"][0]["accuracy"] for baseline in baselines.values()]
    assert all(name in "\n".join(lines) for name in names)
    pairs = [(pair["first"], pair["second"]) for pair in written["differences"]]
    assert pairs == [("untrained encoder (seed 0)", checkpoints[0]), (raw, checkpoints[0])]
    # The checkpoint is itself untrained, drawn with the same seed but with its decoder: an interval around nearly 0.
    assert written["differences"][0]["linear"]["low"] < 0 < written["differences"][0]["linear"]["high"]
    assert Image.open(output / "scores.png").size[0] > 300
    assert sorted(path.name for path in output.iterdir()) == ["result.json", "scores.png", "table.md"]


def test_several_models_and_seeds_give_means_with_intervals(
    checkpoints: list[str], recipe: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    overrides = ["--labels_per_class", "5", "--seeds", "[0, 1]", "--probe.metric", "weighted_f1"]
    main([*checkpoints, recipe, *overrides, "--cache", "false", "--output", str(output), "--keep_features"])
    written = json.loads((output / "result.json").read_text(encoding="utf-8"))
    rows = written["table"]["rows"]
    assert [row[0] for row in rows[:3]] == [*checkpoints, "untrained encoder (seed 0)"] and len(rows) == 5
    scores = [[run["weighted_f1"] for run in result["linear"]] for result in written["results"]]
    assert [len(runs) for runs in scores] == [2, 2] and scores[0][0] != scores[0][1]
    assert rows[0][1]["mean"] == pytest.approx(100 * np.mean(scores[0]))
    # Student's t with one degree of freedom: 12.7062 standard errors; of two values, half their difference.
    assert rows[0][1]["half_width"] == pytest.approx(12.7062 * 100 * abs(scores[0][0] - scores[0][1]) / 2, rel=1e-4)
    # One paired difference, by seed, in place of a mean of models.
    pair = written["differences"][0]["linear"]
    by_seed = [100 * (second - first) for first, second in zip(*scores, strict=True)]
    assert pair["difference"] == pytest.approx(np.mean(by_seed)) and "Student" in pair["over"]
    half_width = 12.7062 * abs(by_seed[0] - by_seed[1]) / 2
    assert pair["high"] - pair["low"] == pytest.approx(2 * half_width, rel=1e-4)
    first, second = (Path(name).name for name in checkpoints)
    assert f"| {second} − {first} |" in (output / "table.md").read_text(encoding="utf-8")
    assert np.load(output / "features" / "1" / "train.npy").shape == (300, 16)


def test_seeds_that_change_nothing_are_not_run(checkpoints: list[str]) -> None:
    probe_args = ProbeArguments(seeds=[0, 1, 2], baselines=False)
    result = evaluation.evaluate_checkpoint(checkpoints[0], digits_arguments(test_split="test"), probe_args)
    assert (len(result["linear"]), len(result["knn"])) == (1, 1)
    assert result["baselines"] == {}
    probe_args = ProbeArguments(solver="adam", num_epochs=1, seeds=[0, 1, 2], baselines=False)
    result = evaluation.evaluate_checkpoint(checkpoints[0], digits_arguments(test_split="test"), probe_args)
    assert [run["converged"] for run in result["linear"]] == [False] * 3
    assert (len(result["linear"]), len(result["knn"])) == (3, 1)


def test_validation_stands_in_for_a_missing_test_split(checkpoints: list[str]) -> None:
    arguments, probe_args = digits_arguments(validation_fraction=0.3), ProbeArguments(solver="exact")
    result = evaluation.evaluate_checkpoint(checkpoints[0], arguments, probe_args)
    assert result["test_split"] == "validation" and set(result["rows"]) == {"train", "validation"}


def test_validation_beside_test_chooses_the_penalty(checkpoints: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(*arguments: Any, validation: Features, **rest: Any) -> ProbeRun:
        seen.append(validation)
        return ProbeRun({"accuracy": 0.5}, np.zeros(360))

    monkeypatch.setattr(evaluation, "run_linear_probe", spy)
    arguments = digits_arguments(validation_fraction=0.3, test_split="test")
    result = evaluation.evaluate_checkpoint(checkpoints[0], arguments, ProbeArguments(solver="exact"))
    assert len(seen[0]) == result["rows"]["validation"] > 0


def test_example_script_runs_as_the_command(
    checkpoints: list[str], recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    script = REPOSITORY / "examples" / "run_linear_probe.py"
    words = [str(script), checkpoints[0], recipe, "--cache", "false", "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    assert "accuracy (%) on 100 rows of the test split" in printed and "most frequent class" in printed
    assert "raw inputs" in printed and "− untrained encoder" in printed
    tables = printed.partition("Written to")[0]
    assert max(map(len, tables.splitlines())) <= 80


def test_command_line_is_models_then_recipe_then_fields(capsys: Any) -> None:
    options, models, recipe, overrides = parse_arguments(["a", "b", "c.yaml", "--k", "5", "--output", "o", "--cache"])
    assert (models, recipe, overrides, options.output) == (["a", "b"], "c.yaml", ["--k", "5", "--cache"], Path("o"))
    for words in (["c.yaml"], ["--k", "5", "c.yaml"]):
        with pytest.raises(SystemExit):
            parse_arguments(words)
        assert "at least one MODEL and then a RECIPE" in capsys.readouterr().err


def test_bad_input_is_an_error_before_any_work(checkpoints: list[str], recipe: str, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="MODEL './no/such/folder'"):
        main(["./no/such/folder", recipe, "--output", output])
    with pytest.raises(FileNotFoundError, match="MODEL 'nobody/nothing'"):  # tests run with HF_HUB_OFFLINE
        main(["nobody/nothing", recipe, "--output", output])
    with pytest.raises(ValueError, match="solvr.*did you mean 'solver'"):
        main([checkpoints[0], recipe, "--solvr", "exact", "--output", output])
    with pytest.raises(ValueError, match="data.label_column"):
        main([checkpoints[0], recipe, "--label_column", "null", "--output", output])
    with pytest.raises(ValueError, match="data.test_split: a probe needs rows"):
        main([checkpoints[0], recipe, "--test_split", "null", "--cache", "false", "--output", output])
    with pytest.raises(ValueError, match="'spearman' does not measure a classification task"):
        main([checkpoints[0], recipe, "--metric", "spearman", "--output", output])
    with pytest.raises(ValueError, match="--output .* cannot be written: .*Name a folder"):
        writable_folder(Path(recipe), "--output")


def measured(name: str, said: list[ProbeRun], labels: np.ndarray, metric: str, **more: Any) -> Measurement:
    """A checkpoint whose linear probes, one a seed, said this; without baselines or kNN."""
    arm = Arm(name, said, [], {"linear": list(range(len(said))), "knn": []}, 3.0)
    return Measurement({"model": name, "metric": metric}, arm, [], labels, more.get("tokens_of_samples"))


def test_summary_of_one_model_is_one_row() -> None:
    one = measured("m", [ProbeRun({"spearman": 0.5}, np.zeros(1))], np.zeros(1), "spearman")
    assert summarise([one])["rows"] == [["m", {"mean": 50.0, "half_width": None}, None, 3.0, 1]]
    assert compare([one]) == []


def test_checkpoints_are_paired_by_the_rows_that_they_were_scored_on() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 200)
    arms = []
    for name, wrong in (("a", 80), ("b", 40)):
        said = labels.copy()
        said[:wrong] = (said[:wrong] + 1) % 4
        arms.append(measured(name, [ProbeRun({"accuracy": 1 - wrong / 200}, said)], labels, "accuracy"))
    (pair,) = compare(arms)
    found = pair["linear"]
    assert (pair["first"], pair["second"], pair["knn"]) == ("a", "b", None)
    assert found["difference"] == pytest.approx(20.0) and 0 < found["low"] < 20 < found["high"] < 40
    assert "Bonett" in found["over"]
    other = measured("c", arms[1].arm.linear, np.append(labels[1:], 3 - labels[0]), "accuracy")
    assert compare([arms[0], other])[0]["linear"]["low"] is None, "other rows are no pairs"


def test_other_metrics_are_paired_by_the_bootstrap_and_tokens_by_whole_samples() -> None:
    generator = np.random.default_rng(0)
    truth = generator.normal(size=100)
    arms = [
        measured(name, [ProbeRun({"spearman": 0.0}, truth + spread * generator.normal(size=100))], truth, "spearman")
        for name, spread in (("a", 2.0), ("b", 0.3))
    ]
    found = compare(arms)[0]["linear"]
    assert 0 < found["low"] < found["difference"] < found["high"] and "bootstrap" in found["over"]

    # 20 samples of 10 tokens, each sample right or wrong as a whole: as uncertain as 20 rows, not as 200.
    labels, counts = np.zeros(200, dtype=int), np.insert(np.full(20, 10), 7, 0)
    said = [np.repeat(generator.integers(0, 2, 20), 10) for _ in range(2)]
    runs = [ProbeRun({"token_accuracy": float((one == 0).mean())}, one) for one in said]
    texts = [
        measured(n, [run], labels, "token_accuracy", tokens_of_samples=counts)
        for n, run in zip("ab", runs, strict=True)
    ]
    found = compare(texts)[0]["linear"]
    gains = (said[1] == 0).astype(float)[::10] - (said[0] == 0)[::10]
    assert found["difference"] == pytest.approx(100 * gains.mean())
    assert found["high"] - found["low"] == pytest.approx(100 * 3.92 * gains.std() / np.sqrt(20), rel=0.2)


def test_baselines_are_measured_once_for_checkpoints_of_one_configuration(
    checkpoints: list[str], recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = evaluation._measure_baselines

    def spy(*arguments: Any) -> list[Arm]:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(evaluation, "_measure_baselines", spy)
    main([*checkpoints, recipe, "--cache", "false", "--output", str(tmp_path / "out")])
    assert len(calls) == 1
    words = [checkpoints[0], recipe, "--cache", "false", "--baselines", "false", "--output", str(tmp_path / "one")]
    main(words)
    assert len(calls) == 1
    main([*words, "--every_steps", "5"])  # the same settings, but for the online probe: measured anew
    written = (tmp_path / "one" / "result.json").read_bytes()
    assert json.loads(written)["probe"]["every_steps"] == 5
    for other, changed in (
        ([checkpoints[1], *words[1:]], "models was .*seed-0'], is now .*seed-1']"),
        (
            [*words, "--k", "5", "--seeds", "[1, 2]"],
            r"probe.k was 20, is now 5; probe.seeds was \[0\], is now \[1, 2\]",
        ),
        ([*words, "--max_train_samples", "50"], "data.max_train_samples was 300, is now 50"),
    ):
        with pytest.raises(ValueError, match=f"--output .*one holds result.json of other .*{changed}.*--overwrite"):
            main(other)
    assert (tmp_path / "one" / "result.json").read_bytes() == written
    main([checkpoints[1], *words[1:], "--overwrite"])
    assert json.loads((tmp_path / "one" / "result.json").read_text())["models"] == [checkpoints[1]]


def test_results_of_others_are_left_where_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a name the next free folder is taken, and said; a folder that was named is refused."""
    data, default = digits_arguments(), tmp_path / "linear_probe"

    def folder(model: str, named: Path | None = None) -> Path:
        def check(folder: Path) -> None:
            files = (folder / "result.json", folder / "result.json")
            refuse_other_results(*files, described([model], data), "--output", overwrite=False)

        found = folder_of_results(named, default, check)
        write_json(found / "result.json", described([model], data))
        return found

    assert [folder(model).name for model in "aab"] == ["linear_probe", "linear_probe", "linear_probe-2"]
    told = f"{default} holds result.json of other models, data or settings (models was ['a'], is now ['b'])"
    assert f"--output {told}: these go to {default}-2" in caplog.text
    assert [folder(model).name for model in "cba"] == ["linear_probe-3", "linear_probe-2", "linear_probe"]
    with pytest.raises(OtherResultsError, match="--output .*linear_probe holds result.json of other models"):
        folder("b", default)


@pytest.mark.parametrize(
    "report, message",
    [
        (None, "holds result.png and no result.json that says of what"),
        ("{broken", "holds result.png and no result.json that says of what"),
        ('{"data": {"kind": "image"}, "results": [{"model": "a"}]}', None),  # as version 0.2.0 wrote it
        ('{"data": {"kind": "image"}, "results": [{"model": "b"}]}', r"models was \['b'\], is now \['a'\]"),
        ('{"data": {"kind": "series", "num_proc": 9}, "models": ["a"]}', "data.kind was 'series', is now 'image'"),
        ('{"data": {}, "models": ["a"], "probe": {"k": 5, "max_samples": 9}, "counts": [1, 5]}', None),
        ('{"data": {}, "models": ["a"], "probe": {"k": 20}}', "probe.k was 20, is now 5"),
        ('{"data": {}, "models": ["a"], "counts": [1, null]}', r"counts was \[1, None\], is now \[1, 5\]"),
    ],
)
def test_former_results_are_known_by_their_report(report: str | None, message: str | None, tmp_path: Path) -> None:
    results, file = tmp_path / "result.png", tmp_path / "result.json"
    now = described(["a"], digits_arguments(), probe=ProbeArguments(k=5, max_samples=7), counts=[1, 5])
    refuse_other_results(results, file, now, "--output", overwrite=False)  # there are none yet
    results.write_bytes(b"")
    if report is not None:
        file.write_text(report)
    with nullcontext() if message is None else pytest.raises(ValueError, match=message):
        refuse_other_results(results, file, now, "--output", overwrite=False)
    refuse_other_results(results, file, now, "--output", overwrite=True)


def test_online_probe_reports_three_numbers_and_leaves_the_run_alone(digits: PreparedData) -> None:
    torch.manual_seed(0)
    encoder = MetaMAEForPretraining(digits_config()).base_model.train()
    args = ProbeArguments(every_steps=1, max_samples=200)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    scores = online_probe(encoder, digits, args, torch.device("cpu"))
    assert torch.equal(torch.rand(2), expected) and encoder.training
    assert set(scores) == {"probe/linear_accuracy", "probe/knn_accuracy", "probe/rankme"}
    assert 0.2 < scores["probe/linear_accuracy"] < 0.98 and 1.0 <= scores["probe/rankme"] <= 16.0
    assert online_probe(encoder, digits, args, "cpu") == scores
    assert all(isinstance(value, float) for value in scores.values())


def test_online_probe_looks_at_no_more_rows_than_asked(digits: PreparedData, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = MetaMAEForPretraining(digits_config()).base_model
    seen: list[int] = []
    encoder.register_forward_hook(lambda module, args, output: seen.append(len(output.pooler_output)))
    online_probe(encoder, digits, ProbeArguments(max_samples=60, batch_size=25), "cpu")
    assert sum(seen) == 120 and max(seen) == 25


def test_online_probe_of_tokens_scores_tokens(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        with open(tmp_path / f"{split}.json", "w", encoding="utf-8") as file:
            for _ in range(40):
                letters = generator.choice(list("ABCD"), generator.integers(3, 9)).tolist()
                # The class of a token is its letter's, so a linear probe of the tokens is right nearly everywhere.
                labels = ["AB".find(letter) + 1 for letter in letters]
                file.write(json.dumps({"text": "".join(letters), "labels": labels}) + "\n")
    config = MetaMAEConfig(
        modality="tokens", vocab_size=7, max_position_embeddings=8, pad_token_id=0, **SMALL, **DECODER
    )
    arguments = data_arguments(
        source="json",
        data_files={split: str(tmp_path / f"{split}.json") for split in ("train", "test")},
        test_split="test",
        kind="tokens",
        alphabet="ABCD",
        input_column="text",
        label_column="labels",
        task="token_classification",
        cache=False,
    )
    torch.manual_seed(0)
    encoder = MetaMAEForPretraining(config).base_model
    scores = online_probe(encoder, prepare_data(arguments, config), ProbeArguments(), "cpu")
    assert set(scores) == {"probe/linear_token_accuracy", "probe/knn_token_accuracy", "probe/rankme"}
    assert scores["probe/linear_token_accuracy"] > 0.9


def test_online_probe_without_labels_or_held_out_rows_says_what_to_set() -> None:
    encoder = MetaMAEForPretraining(digits_config()).base_model
    for arguments, field in (
        (digits_arguments(), "data.validation_split"),
        (data_arguments(source="digits", kind="image", input_column="image", cache=False), "data.label_column"),
    ):
        with pytest.raises(ValueError, match=field):
            online_probe(encoder, prepare_data(arguments, digits_config()), ProbeArguments(), "cpu")
