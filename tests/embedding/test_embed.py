"""Features of files and folders: those of the encoder called by hand, however they are read, cut and written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from kinds import CASES, ROWS, Made, assert_same_features
from transformers import AutoModel

import hf_maskssl
from forked import launch, run_script
from hf_maskssl.checkpoint_folders import check_checkpoint
from hf_maskssl.data.preparation import prepare_data
from hf_maskssl.data.processors import load_processor
from hf_maskssl.embedding import run
from hf_maskssl.embedding.arguments import EmbedArguments
from hf_maskssl.embedding.feature_files import read_features
from hf_maskssl.embedding.output import Output
from hf_maskssl.embedding.run import EmbedReport, embed_to
from hf_maskssl.embedding.tables import matrix

Get = Callable[[str], Made]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LAUNCH = ["launch", "--config_file", str(EXAMPLES / "accelerate" / "two_cpu_processes.yaml")]
ON_CPU = {"ACCELERATE_USE_CPU": "true"}


def embed(made: Made, output: Path | str, **options: Any) -> EmbedReport:
    values = {"data": made.data, "batch_size": 4, "device": "cpu", **options}
    report = embed_to(EmbedArguments(model=made.model, output=str(output), **values))
    assert report is not None
    return report


def features(path: Path | str) -> np.ndarray:
    return matrix(pq.read_table(path)["embedding"])


def by_hand(made: Made) -> tuple[list[torch.Tensor], Any]:
    """`last_hidden_state` of every row alone, without prefix; and the pooled rows (n, D)."""
    model = AutoModel.from_pretrained(made.model).eval()
    prepared = prepare_data(made.args, model.config, load_processor(made.model))
    tokens, pooled = [], []
    with torch.no_grad():
        for row in range(len(prepared.train)):
            batch = prepared.collator([prepared.train[row]])  # type: ignore[index]
            outputs = model(**{name: value for name, value in batch.items() if name not in ("index", "labels")})
            tokens.append(outputs.last_hidden_state[0, getattr(model, "num_prefix_tokens", 1) :])
            pooled.append(outputs.pooler_output[0])
    return tokens, torch.stack(pooled).numpy()


@pytest.mark.parametrize("kind", [kind for kind in CASES if kind != "masked_text"])
def test_features_are_those_of_the_encoder(made: Get, tmp_path: Path, kind: str) -> None:
    it = made(kind)
    report = embed(it, tmp_path / "features.parquet", shard_rows=5)
    _, expected = by_hand(it)
    assert_same_features(features(tmp_path / "features.parquet"), expected)
    table = pq.read_table(tmp_path / "features.parquet")
    assert table["row"].to_pylist() == list(range(ROWS)) and set(table["split"].to_pylist()) == {"train"}
    assert (report.rows, report.width) == expected.shape and report.done_before == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.parquet"]


@pytest.mark.parametrize("kind", ["tokens", "image", "vision_language", "multimodal", "latents"])
def test_features_of_tokens(made: Get, tmp_path: Path, kind: str) -> None:
    it = made(kind)
    embed(it, tmp_path / "tokens.parquet", shard_rows=5, tokens=True)
    expected, _ = by_hand(it)
    table = pq.read_table(tmp_path / "tokens.parquet")
    assert_same_features(matrix(table["embedding"]), torch.cat(expected).numpy())
    places = [(row, token) for row, one in enumerate(expected) for token in range(len(one))]
    assert list(zip(table["row"].to_pylist(), table["token"].to_pylist(), strict=True)) == places
    lengths = {len(one) for one in expected}
    assert (len(lengths) > 1) == (kind in ("tokens", "vision_language"))  # where lengths differ, none counts padding


def test_masked_text_becomes_texts_framed_as_in_training(made: Get, tmp_path: Path) -> None:
    """Nothing is masked, blank lines are left out and counted, and an untrained pooler is not used."""
    it = made("masked_text")
    report = embed(it, tmp_path / "features.parquet")
    model = AutoModel.from_pretrained(it.model).eval()
    tokenizer = load_processor(it.model)
    lines = [line for line in Path(it.data).read_text().split("\n") if line]
    with torch.no_grad():
        expected = [
            model(**tokenizer(line, return_tensors="pt", truncation=True, max_length=12)).last_hidden_state[0].mean(0)
            for line in lines
        ]
    assert_same_features(features(tmp_path / "features.parquet"), torch.stack(expected).numpy())
    table = pq.read_table(tmp_path / "features.parquet")
    assert table["row"].to_pylist() == list(range(0, 2 * ROWS, 2))
    assert list(report.data.splits["train"].left_out.values()) == [ROWS - 1]


def test_pooling_is_a_choice(made: Get, tmp_path: Path) -> None:
    it = made("masked_text")
    embed(it, tmp_path / "own.parquet", pooling="pooler")
    model = AutoModel.from_pretrained(it.model).eval()
    first = load_processor(it.model)(Path(it.data).read_text().split("\n")[0], return_tensors="pt")
    with torch.no_grad():
        assert_same_features(features(tmp_path / "own.parquet")[:1], model(**first).pooler_output)


def test_a_recipe_gives_its_splits_and_labels(made: Get, tmp_path: Path) -> None:
    it = made("tabular")
    recipe = tmp_path / "recipe.yaml"
    values = {"source": "csv", "data_files": it.data, "kind": "tabular", "label_column": "label", "split": "random"}
    recipe.write_text(
        json.dumps({"data": {**values, "split_fractions": [0.5, 0.0, 0.5], "drop_missing_labels": True}})
    )
    embed(it, tmp_path / "f.parquet", data=None, recipe=str(recipe), id_column="name", keep=["a"])
    table = pq.read_table(tmp_path / "f.parquet")
    assert table.column_names == ["row", "split", "name", "a", "label", "embedding"]
    assert table["split"].to_pylist() == ["train"] * 5 + ["test"] * 6
    assert sorted(table["name"].to_pylist()) == sorted(f"row {row}" for row in range(ROWS))
    embed(
        it,
        tmp_path / "test.parquet",
        data=None,
        recipe=str(recipe),
        splits=["test"],
        overrides=["--max_test_samples", "2"],
    )
    assert pq.read_table(tmp_path / "test.parquet").num_rows == 2


def test_the_label_of_the_models_own_recipe_comes_along(made: Get, tmp_path: Path) -> None:
    """It need not be called as labels usually are; and every column's empty cells are counted, of numbers too."""
    it = made("tabular")
    model = shutil.copytree(it.model, tmp_path / "model")
    (model / "recipe.yaml").write_text("data: {source: csv, kind: tabular, label_column: left}\n")
    rows = pd.read_csv(it.data).rename(columns={"label": "left"})
    rows.loc[2, "a"] = None
    rows.to_csv(tmp_path / "rows.csv", index=False)
    report = embed_to(
        EmbedArguments(str(model), str(tmp_path / "f.parquet"), data=str(tmp_path / "rows.csv"), device="cpu")
    )
    assert report is not None and report.carried == ["left"]
    assert pq.read_table(tmp_path / "f.parquet")["left"].to_pylist() == rows["left"].tolist()
    assert report.data.splits["train"].missing["a"] == 1


def test_labels_and_paths_of_pictures_come_along(made: Get, tmp_path: Path) -> None:
    it = made("image")
    embed(it, tmp_path / "f.parquet")
    table = pq.read_table(tmp_path / "f.parquet")
    names = [Path(path).parent.name for path in table["path"].to_pylist()]
    assert table["label"].to_pylist() == names and set(names) == {"cat", "dog"}


def test_a_numpy_file_has_the_other_columns_beside_it(made: Get, tmp_path: Path) -> None:
    it = made("tabular")
    embed(it, tmp_path / "f.npy", shard_rows=4)
    embed(it, tmp_path / "f.parquet", shard_rows=4)
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), features(tmp_path / "f.parquet"))
    beside = pq.read_table(tmp_path / "f.rows.parquet")
    assert beside.equals(pq.read_table(tmp_path / "f.parquet").drop(["embedding"]))


def test_a_stream_gives_the_same(made: Get, tmp_path: Path) -> None:
    it = made("tokens")
    Path(tmp_path / "gaps.txt").write_text("\n".join([*Path(it.data).read_text().split("\n"), "", "  ", "acgt"]))
    for name, words in (("whole", []), ("stream", ["--streaming"])):
        embed(it, tmp_path / name, data=str(tmp_path / "gaps.txt"), overrides=words, shard_rows=3)
    whole, stream = (read_features(str(tmp_path / name)) for name in ("whole", "stream"))
    numbers = [*range(ROWS), ROWS + 2]
    assert whole.columns["row"].to_pylist() == stream.columns["row"].to_pylist() == numbers
    # A batch of a stream ends with its shard, where a row was left out: padding and so the last digit differ.
    assert_same_features(stream.values, whole.values)
    report = json.loads((tmp_path / "stream" / "embedding.json").read_text())
    assert report["complete"] and report["rows"] == ROWS + 1 and list(report["left_out_of_stream"].values()) == [2]


class Killed(BaseException):
    """Ends a run as nothing in it expects."""


def test_a_killed_run_goes_on(made: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = made("tokens")
    embed(it, tmp_path / "whole.parquet", shard_rows=3)
    original, written = run.write_one, []

    def killed(shard: Any, *rest: Any) -> None:
        if len(written) == 2:
            raise Killed
        written.append(shard.name)
        original(shard, *rest)

    monkeypatch.setattr(run, "write_one", killed)
    with pytest.raises(Killed):
        embed(it, tmp_path / "f.parquet", shard_rows=3)
    assert not (tmp_path / "f.parquet").exists()
    monkeypatch.setattr(run, "write_one", original)
    with pytest.raises(ValueError, match="begun with other options: tokens was False, is now True"):
        embed(it, tmp_path / "f.parquet", shard_rows=3, tokens=True)
    report = embed(it, tmp_path / "f.parquet", shard_rows=3)
    assert report.done_before == 2 and report.rows == ROWS
    assert pq.read_table(tmp_path / "f.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.parquet", "whole.parquet"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--streaming"]])
def test_two_processes_write_what_one_does(made: Get, tmp_path: Path, words: list[str]) -> None:
    it = made("tokens")
    options = ["--shard_rows", "3", "--batch_size", "4", *words]
    embed(it, tmp_path / "one.parquet", shard_rows=3, overrides=words)
    command = ["-m", "hf_maskssl", "embed", it.model, it.data, "--output", str(tmp_path / "two.parquet"), *options]
    said = launch(EXAMPLES / "accelerate" / "two_cpu_processes.yaml", command)
    assert pq.read_table(tmp_path / "two.parquet").equals(pq.read_table(tmp_path / "one.parquet"))
    assert said.stdout.count(f"{ROWS} rows of 16 numbers") == 1  # one process speaks
    again = run_script(["-m", "accelerate.commands.accelerate_cli", *LAUNCH, *command], environment=ON_CPU)
    assert again.returncode != 0 and "two.parquet exists: take another name" in again.stderr


def test_other_weights_are_refused(made: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = made("tokens")
    embed(it, tmp_path / "folder", shard_rows=3)
    report = json.loads((tmp_path / "folder" / "embedding.json").read_text())
    report["settings"]["digest"], report["complete"] = "of another model", False
    (tmp_path / "folder" / "embedding.json").write_text(json.dumps(report))
    with pytest.raises(ValueError, match="MODEL has other weights.*--overwrite"):
        embed(it, tmp_path / "folder", shard_rows=3)
    assert embed(it, tmp_path / "folder", shard_rows=3, overwrite=True).done_before == 0


def test_far_away_files_are_read_and_written(made: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)  # which means every address; nothing leaves memory
    it = made("tabular")
    files = fsspec.filesystem("memory")
    files.pipe("/in/table.csv", Path(it.data).read_bytes())
    embed(it, tmp_path / "here.parquet", shard_rows=4)
    for output in ("memory://out/f.parquet", "memory://out/folder", "memory://out/f.npy"):
        embed(it, output, data="memory://in/table.csv", shard_rows=4)
    here = features(tmp_path / "here.parquet")
    with files.open("/out/f.parquet") as file:
        np.testing.assert_array_equal(features(file), here)
    with files.open("/out/f.npy") as file:
        np.testing.assert_array_equal(np.load(file), here)
    names = sorted(name.rpartition("/")[2] for name in files.ls("/out/folder", detail=False))
    assert names == ["embedding.json", "train-00000.parquet", "train-00001.parquet", "train-00002.parquet"]
    assert not files.exists("/out/f.parquet.parts")
    with pytest.raises(ValueError, match="memory://out/f.parquet exists"):
        embed(it, "memory://out/f.parquet", data="memory://in/table.csv")


def test_what_exists_is_not_written_over(made: Get, tmp_path: Path) -> None:
    it = made("tabular")
    embed(it, tmp_path / "f.parquet")
    with pytest.raises(ValueError, match="f.parquet exists: take another name, or write over it by --overwrite"):
        embed(it, tmp_path / "f.parquet")
    embed(it, tmp_path / "f.parquet", overwrite=True)
    embed(it, tmp_path / "folder")
    with pytest.raises(ValueError, match="folder exists and is complete, 11 rows"):
        embed(it, tmp_path / "folder")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.md").write_text("mine")
    with pytest.raises(ValueError, match="holds 'notes.md' and no embedding.json"):
        embed(it, tmp_path / "mine", overwrite=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "tabel.csv"}, "DATA 'tabel.csv': no such file or folder"),
        ({"keep": ["nme"]}, "--keep: the train split has no column 'nme'.*did you mean 'name'"),
        ({"keep": ["row"]}, "--keep: 'row' is a column of every table of features"),
        ({"splits": ["test"]}, "--splits: no split 'test'"),
        ({"batch_size": 0}, "--batch_size: expected at least 1, got 0"),
        ({"recipe": "digits"}, "expected one of DATA and --recipe"),
        ({"tokens": True, "pooling": "mean"}, "--pooling is 'mean' with --tokens"),
        ({"overrides": ["--sccale", "2"]}, "unknown field 'sccale'|--sccale: unknown field"),
        ({"output": "f.csv"}, "features are written as .parquet or .npy"),
        ({"output": "nothing://f.parquet"}, "--output nothing://f.parquet: Protocol not known"),
    ],
)
def test_what_cannot_be_is_named(made: Get, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    output = options.pop("output", tmp_path / "f.parquet")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        embed(made("tabular"), output, **options)


def test_a_table_without_the_models_columns_is_named(made: Get, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b,z\n1,2,3\n")
    with pytest.raises(
        ValueError, match=r"trained on the columns \['a'.*of which \['c', 'd', 'e', 'f'\] are not there"
    ):
        embed(made("tabular"), tmp_path / "f.parquet", data=str(tmp_path / "other.csv"))


def test_several_columns_of_text_are_listed(made: Get, tmp_path: Path) -> None:
    (tmp_path / "two.csv").write_text("first,second\nacgt,ac\n")
    with pytest.raises(ValueError, match=r"\['first', 'second'\] could be it.*name it by --input_column"):
        embed(made("tokens"), tmp_path / "f.parquet", data=str(tmp_path / "two.csv"))
    embed(
        made("tokens"), tmp_path / "f.parquet", data=str(tmp_path / "two.csv"), overrides=["--input_column", "first"]
    )
    assert len(features(tmp_path / "f.parquet")) == 1


def test_all_splits_of_a_folder_are_read(made: Get, tmp_path: Path) -> None:
    it = made("tabular")
    (tmp_path / "data").mkdir()
    lines = Path(it.data).read_text().splitlines(keepends=True)
    (tmp_path / "data" / "train.csv").write_text("".join(lines[:6]))
    (tmp_path / "data" / "test.csv").write_text("".join(lines[:1] + lines[6:9]))
    embed(it, tmp_path / "features.parquet", data=str(tmp_path / "data"))
    found = pq.read_table(tmp_path / "features.parquet")
    assert found["split"].to_pylist() == ["train"] * 5 + ["test"] * 3
    embed(it, tmp_path / "whole.parquet")
    np.testing.assert_allclose(matrix(found["embedding"]), features(tmp_path / "whole.parquet")[:8], atol=1e-6)
    with pytest.raises(ValueError, match="has several splits, and an array has rows of one.* train_split='test'"):
        hf_maskssl.embed(it.model, str(tmp_path / "data"))
    assert len(hf_maskssl.embed(it.model, str(tmp_path / "data"), train_split="test")) == 3


@pytest.mark.parametrize("output", ["features.parquet", "folder"])
def test_data_that_do_not_fit_leave_nothing_behind(made: Get, tmp_path: Path, output: str) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,x\n2,y\n")
    with pytest.raises(ValueError, match="data.input_column: expected a column that kind 'series' reads"):
        embed(made("series"), tmp_path / output, data=str(tmp_path / "other.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["other.csv"]


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("x")
    with pytest.raises(ValueError, match="--output .*features is a file, and names without .* take another name"):
        Output(str(tmp_path / "features")).check(overwrite=True)


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="MODEL '.*': config.json is damaged .*; take another checkpoint"):
        check_checkpoint(tmp_path, "MODEL")
