"""A recipe from data alone: the kind by the columns, the sizes by rows and time; what cannot be guessed is said."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from datasets import Dataset
from PIL import Image
from scipy.io import wavfile

from hf_maskssl.commands import main
from hf_maskssl.commands.pretrain import is_data
from hf_maskssl.data import build_config, data_arguments
from hf_maskssl.data.kinds.guesses import Guess
from hf_maskssl.data.looking import first_look, source_values, split_values
from hf_maskssl.data.tables.report import first_names
from hf_maskssl.data.tables.splits import read_splits
from hf_maskssl.scripts import UserError
from hf_maskssl.training import load_pretraining_recipe
from hf_maskssl.training.own_data import SIZES, guessed, recipe_from_data, rows_to_train_on, sections

pytestmark = pytest.mark.usefixtures("private_cache", "blank_pictures")
RANDOM = np.random.default_rng(0)


def columns(**values: Any) -> Dataset:
    return Dataset.from_dict(values)


def numbers(rows: int) -> list[float]:
    return RANDOM.normal(size=rows).tolist()


def guess_of(rows: Dataset, kind: str | None = None, label: str | None = None) -> Guess:
    return guessed(rows, {"source": "parquet", "data_files": "file.parquet"}, kind, label)


def test_columns_of_numbers_are_a_table() -> None:
    rows = columns(id=[1, 2, 3], a=numbers(3), name=["x", "y", "x"], b=numbers(3), species=["cat", "dog", "cat"])
    guess = guess_of(rows)
    assert guess.data["kind"] == "tabular" and guess.model["series_length"] == 2
    assert guess.data["input_column"] == ["a", "b"] and guess.data["label_column"] == "species"
    said = "\n".join(guess.remarks)
    assert "kind: tabular, from 2 columns of numbers; --kind sets another" in said
    assert "left out: the columns name, id" in said and "labels: species, 2 classes" in said


def test_numbers_to_predict_are_a_regression() -> None:
    guess = guess_of(columns(a=numbers(5), b=numbers(5), target=numbers(5)))
    assert guess.data["task"] == "regression" and guess.model["series_length"] == 2


def test_infinite_labels_are_left_to_the_run() -> None:
    assert guess_of(columns(a=numbers(4), b=numbers(4), target=[0.5, math.inf, 1.0, 2.0])).data["task"] == "regression"


@pytest.mark.parametrize("labels", [[0.0, math.nan, 1.0, 0.0], [0.5, None, 1.0, 2.0]])
def test_rows_without_a_label_are_kept_unless_the_label_is_named(labels: list[float]) -> None:
    rows = columns(a=numbers(4), b=numbers(4), target=labels)
    guess = guess_of(rows)
    assert guess.data["input_column"] == ["a", "b"] and "label_column" not in guess.data
    assert "labels: none, as 1 of 4 rows lack target; --label_column target probes" in "\n".join(guess.remarks)
    named = guess_of(rows, label="target")
    assert named.data["label_column"] == "target" and named.data["drop_missing_labels"]
    assert "left out: 1 row without target" in "\n".join(named.remarks)


def test_labels_of_one_class_or_many_are_no_features() -> None:
    guess = guess_of(columns(a=numbers(4), b=numbers(4), label=[1, 1, 1, 1]))
    assert guess.data["input_column"] == ["a", "b"] and "as label has 1 value" in "\n".join(guess.remarks)
    hot = columns(a=numbers(4), b=numbers(4), label=[[0, 1], [1, 0]] * 2)
    assert "as label has 2 values that are no words and no numbers" in "\n".join(guess_of(hot).remarks)
    ordered = guess_of(columns(a=numbers(5000), b=numbers(5000), label=["x"] * 4000 + ["y"] * 1000))
    assert ordered.data["label_column"] == "label"
    many = guess_of(columns(a=numbers(150), b=numbers(150), target=list(range(150))))
    assert many.data["task"] == "regression" and many.model["series_length"] == 2
    with pytest.raises(ValueError, match="150 values in 150 rows are no classes: name another column"):
        guess_of(columns(a=numbers(150), b=numbers(150), c=[f"c{row}" for row in range(150)]), label="c")


def test_the_batch_of_a_recipe_leaves_empty_rows_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    records = [f">p{row}\n{'ACDEFGHIKL' if row % 3 else ''}\n" for row in range(30)]
    Path("p.fasta").write_text("".join(records))
    recipe = yaml.safe_load(recipe_from_data("p.fasta", "p", max_steps=3, say=lambda _: None).read_text())
    read = read_splits(data_arguments(**recipe["data"]))["train"]
    assert recipe["training"]["batch_size"] == sum(bool(row["sequence"]) for row in read) < 27


def test_wide_tables_take_no_time_squared(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Dataset.features` is a copy of the types of all columns."""
    asked: list[int] = []
    types = vars(Dataset)["features"].fget

    def features(rows: Dataset) -> Any:
        asked.append(1)
        return types(rows)

    rows = columns(**{f"g{number}": numbers(3) for number in range(200)}, note=["a", "b", "c"])
    monkeypatch.setattr(Dataset, "features", property(features))
    guess = guess_of(rows)
    assert guess.model["series_length"] == 200 and len(asked) < 100
    assert first_names([f"g{number}" for number in range(200)]).endswith("g58, g59, ... (200 in all)")


def test_what_holds_nothing_or_is_packed_is_said(tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("\n\n")
    values = source_values(str(tmp_path / "blank.txt"))
    with pytest.raises(ValueError, match="its 2 rows hold nothing: every cell is empty"):
        guessed(first_look(values), values, None, None)
    for name, advice in (
        ("a.csv.zip", ".zip is not read: unpack it"),
        ("a.XLSX", ".xlsx is not read: save each sheet"),
    ):
        (tmp_path / name).write_bytes(b"PK")
        with pytest.raises(ValueError, match=advice):
            source_values(str(tmp_path / name))


def test_a_series_of_three_steps_keeps_one_to_read() -> None:
    guess = guess_of(columns(x=RANDOM.normal(size=(4, 3)).tolist()))
    assert build_config(guess.model).mask_ratio == 0.5


def test_channels_of_several_lengths_are_refused() -> None:
    with pytest.raises(
        ValueError, match="column 'x' holds lists whose lists have 1 to 2 numbers; expected a list for each"
    ):
        guess_of(columns(x=[[[1.0, 2.0], [3.0]], [[1.0, 2.0], [3.0]]]))


@pytest.mark.parametrize("channels", [1, 3])
def test_lists_are_series(channels: int) -> None:
    values = RANDOM.normal(size=(4, 60) if channels == 1 else (4, channels, 60)).tolist()
    guess = guess_of(columns(series=values, label=[0, 1, 0, 1]))
    assert guess.data["kind"] == "series"
    assert (guess.model["num_channels"], guess.model["series_length"], guess.model["patch_size"]) == (channels, 60, 2)
    assert guess_of(columns(values=RANDOM.normal(size=(4, 9)).tolist()), "tabular").model["series_length"] == 9


@pytest.mark.parametrize("name", ["smiles", "SMILES", " Sequence"])
def test_texts_are_tokens(name: str) -> None:
    guess = guess_of(columns(**{name: ["CCO", "c1ccccc1O"] * 40}, weight=numbers(80), dose=numbers(80)))
    assert guess.data["kind"] == "tokens" and guess.data["input_column"] == name
    assert guess.model["max_position_embeddings"] == 16


def test_pictures_and_sounds_are_found_by_their_files(tmp_path: Path) -> None:
    Image.fromarray(RANDOM.integers(0, 255, (40, 52, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    wavfile.write(tmp_path / "a.wav", 16000, RANDOM.integers(-99, 99, 16000).astype(np.int16))
    picture = guess_of(columns(path=[str(tmp_path / "a.png")] * 3))
    assert (picture.data["kind"], picture.model["image_size"], picture.model["num_channels"]) == ("image", [40, 40], 3)
    sound = guess_of(columns(path=[str(tmp_path / "a.wav")] * 3))
    assert (sound.data["kind"], sound.data["sampling_rate"], sound.data["frame_length"]) == ("spectrogram", 16000, 512)
    assert sound.model["image_size"] == [64, 64]  # a second: 62.5 frames of 16 ms


@pytest.mark.parametrize("reading", ["first", "cached"])
def test_a_folder_of_sounds_holds_sounds(reading: str, tmp_path: Path) -> None:
    for name in ("low", "high"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        wavfile.write(tmp_path / "sounds" / name / "a.wav", 8000, RANDOM.integers(-99, 99, 4000).astype(np.int16))
    values = source_values(str(tmp_path / "sounds"))
    if reading == "cached":  # datasets does not keep the class of the feature
        first_look(values)
    guess = guessed(first_look(values), values, None, None)
    assert (guess.data["kind"], guess.data["input_column"], guess.data["label_column"]) == (
        "spectrogram",
        "audio",
        "label",
    )


@pytest.mark.parametrize("kind", ["tabular", "series", "image", "spectrogram", "tokens"])
@pytest.mark.parametrize("size", [size for _, size in SIZES])
def test_every_kind_and_size_is_a_model(kind: str, size: Any, tmp_path: Path) -> None:
    Image.fromarray(RANDOM.integers(0, 255, (9, 9), dtype=np.uint8)).save(tmp_path / "a.png")
    wavfile.write(tmp_path / "a.wav", 8000, RANDOM.integers(-99, 99, 4000).astype(np.int16))
    data = {
        "tabular": columns(a=numbers(3), b=numbers(3)),
        "series": columns(x=RANDOM.normal(size=(3, 2, 30)).tolist()),
        "image": columns(path=[str(tmp_path / "a.png")]),
        "spectrogram": columns(path=[str(tmp_path / "a.wav")]),
        "tokens": columns(text=["a text"]),
    }[kind]
    recipe = sections(guess_of(data), size, "name", np.ones(3), 100)
    assert build_config(recipe["model"]).hidden_size == size.width
    assert recipe["training"]["batch_size"] <= 3


@pytest.mark.parametrize(
    "rows, kind, label, words",
    [
        (
            columns(a=["x", "y"], b=["1", "2"]),
            None,
            None,
            r"no column fits any kind.*seen: \{'a': 'string', 'b': 'string'\}",
        ),
        (columns(a=[1.0, 2.0], b=[1.0, 2.0]), "image", None, "no column fits kind 'image'"),
        (columns(a=[1.0, 2.0], b=[1.0, 2.0]), "tabulr", None, "--kind: expected one of .*did you mean 'tabular'"),
        (columns(a=[1.0, 2.0], b=[1.0, 2.0]), "multimodal", None, "hf-maskssl recipes copy multimae_own_data"),
        (columns(a=[1.0, 2.0], b=[1.0, 2.0]), None, "c", "no column 'c'; the columns are"),
    ],
)
def test_what_cannot_be_guessed_is_said(rows: Dataset, kind: str | None, label: str | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        guess_of(rows, kind, label)


def test_a_json_file_of_columns_is_told_how_to_be_written(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text('{"a": [1, 2, 3], "b": [4, 5, 6]}')
    with pytest.raises(
        ValueError, match=r"DATA: the file is one object with a list for each of \['a', 'b'\].*a list of rows"
    ):
        recipe_from_data(str(path), str(tmp_path / "name"), max_steps=1)


def test_words_that_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    assert [is_data(word) for word in ("folder", "absent.csv", "scenes")] == [True, True, True]
    assert [is_data(word) for word in ("digits", "a.yaml", "typo")] == [False, False, False]


def test_a_csv_becomes_a_recipe_and_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    table = "\n".join(f"{a:.3f},{b:.3f},{a + b > 0}" for a, b in RANDOM.normal(size=(40, 2)))
    Path("my data.csv").write_text(f"a,b,label\n{table}\n")
    words = ["hf-maskssl", "pretrain", "my data.csv", "--max_steps", "2", "--hidden_size", "16", "--quiet"]
    monkeypatch.setattr(sys, "argv", words)
    main()
    recipe = load_pretraining_recipe("my_data.yaml")
    assert recipe.data.kind == "tabular" and recipe.data.label_column == "label"
    assert recipe.training.output_dir == "outputs/my_data" and recipe.training.max_steps == 2
    assert Path("outputs/my_data/model.safetensors").is_file()
    assert max(map(len, Path("my_data.yaml").read_text().splitlines())) <= 100
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(UserError):
        main()
    assert "my_data.yaml exists already: run `hf-maskssl pretrain my_data.yaml`" in capsys.readouterr().err


def test_a_column_that_numbers_rows_is_no_feature() -> None:
    guess = guess_of(columns(customer=list(range(1, 31)), a=numbers(30), b=numbers(30)))
    assert guess.data["input_column"] == ["a", "b"] and "left out: the columns customer" in "\n".join(guess.remarks)


def test_steps_fill_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half as much time gives half as many steps, no more than so many passes, and what fails leaves no file."""
    monkeypatch.chdir(tmp_path)
    table = "\n".join(f"{a:.3f},{b:.3f}" for a, b in RANDOM.normal(size=(900, 2)))
    Path("x.csv").write_text(f"a,b\n{table}\n")

    class Fixed:
        measured = type("Measured", (), {"seconds": [0.5, 0.5, 0.5]})

    monkeypatch.setattr("hf_maskssl.training.own_data.describe", lambda path, overrides, steps: Fixed)
    steps = {}
    for minutes in (2.0, 4.0, 1000.0):
        said: list[str] = []
        path = recipe_from_data("x.csv", f"r{minutes:g}", minutes=minutes, say=said.append)
        steps[minutes] = yaml.safe_load(path.read_text())["training"]["max_steps"]
        assert f"{steps[minutes]:,} steps" in "\n".join(said)
    assert steps == {2.0: 180, 4.0: 360, 1000.0: 300 * 900 // 128}

    def fail(path: Path, overrides: Any, steps: int) -> None:
        raise ValueError("no memory")

    monkeypatch.setattr("hf_maskssl.training.own_data.describe", fail)
    with pytest.raises(ValueError, match="no memory"):
        recipe_from_data("x.csv", "failed")
    assert not Path("failed.yaml").exists()


def test_the_splits_of_a_folder_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text("u,v,w\n" + "".join(f"{row},{row + 1},{row * 2}\n" for row in range(30)))
    values = source_values(str(folder))
    assert (values["validation_split"], values["test_split"]) == ("validation", "test")
    guess = guessed(first_look(values), values, None, None)
    data = sections(guess, SIZES[0][1], "name", np.ones(30), 20)["data"]
    assert data["test_split"] == "test" and "validation_fraction" not in data


@pytest.mark.parametrize("splits", [[], ["train", "val"]])
def test_a_folder_of_aligned_pictures_says_what_it_leaves_out(splits: list[str], tmp_path: Path) -> None:
    for split in splits or [""]:
        for modality in ("rgb", "depth"):
            path = tmp_path / split / modality / "cat" / "1.png"
            path.parent.mkdir(parents=True)
            Image.new("L", (8, 8)).save(path)
    values = source_values(str(tmp_path))
    assert values["source"] == "multimodal_folder" and values.get("validation_split") == ("val" if splits else None)
    remarks = guessed(first_look(values), values, None, None).remarks
    assert any(remark.startswith("left out: the pictures in rgb;") for remark in remarks)


def test_splits_that_no_field_names_are_told(caplog: pytest.LogCaptureFixture) -> None:
    assert split_values(["train", "test", "unlabelled"], "here") == {"test_split": "test"}
    assert "here: the splits ['unlabelled'] are not read" in caplog.text
    assert split_values(["all"], "here") == {"train_split": "all"} and split_values([], "here") == {}
    assert split_values(["test"], "there") == {"train_split": "test"}
    assert "there: there is one split, 'test', which is read for training" in caplog.text
    with pytest.raises(ValueError, match="has the splits .*'a', 'b'.*, none of which is 'train'"):
        split_values(["a", "b"], "here")


# Series of several shapes


def logged(lengths: list[int], **more: Any) -> Dataset:
    """A logger's table: one row a time step, groups one behind the other."""
    runs = [f"r{number}" for number, length in enumerate(lengths) for _ in range(length)]
    times = [0.1 * step for length in lengths for step in range(length)]
    return columns(run=runs, time=times, x=numbers(len(runs)), z=numbers(len(runs)), **more)


def test_a_table_with_times_is_a_loggers() -> None:
    lengths = [40, 50, 60] * 10
    guess = guess_of(logged(lengths, label=[step % 2 for length in lengths for step in range(length)]))
    assert guess.data["kind"] == "series" and guess.data["input_column"] == ["x", "z"] and "window" not in guess.data
    assert (guess.data["group_column"], guess.data["time_column"]) == ("run", "time")
    assert guess.rows_of_each is not None and guess.rows_of_each.tolist() == [1] * 30
    assert (guess.data["label_column"], guess.data["window_label"]) == ("label", "majority")
    assert (guess.model["num_channels"], guess.model["series_length"], guess.model["patch_size"]) == (2, 60, 2)
    said = "\n".join(guess.remarks)
    assert "kind: series, from one row a time step: times in 'time', 30 series by 'run'; --kind sets another" in said
    assert "series: 2 channels, 40 to 60 time steps, padded to 60, 30 patches" in said


def test_a_logger_of_two_rates_is_brought_to_the_slower_one() -> None:
    rows = logged([40, 40])
    times = [time * (1 if run == "r0" else 5) for run, time in zip(rows["run"], rows["time"], strict=True)]
    guess = guess_of(rows.remove_columns("time").add_column("time", times))
    assert guess.data["kind"] == "series" and guess.data["resample"] == "mean"
    assert guess.data["sampling_period"] == pytest.approx(0.5)
    assert "rates: series have several, brought to 0.5 a step by their means" in "\n".join(guess.remarks)
    assert "8 to 40 time steps" in "\n".join(guess.remarks)  # 0 to 3.9 in steps of 0.5


def test_long_and_few_series_are_read_by_windows() -> None:
    guess = guess_of(logged([3000, 40]))
    assert (guess.data["window"], guess.model["series_length"], guess.model["patch_size"]) == (32, 32, 1)
    assert guess.rows_of_each is not None and guess.rows_of_each.tolist() == [94, 2]
    assert "read by 96 windows of 32" in "\n".join(guess.remarks)
    alone = guess_of(logged([3000]).remove_columns("run"))
    assert "group_column" not in alone.data and alone.data["window"] == 32


@pytest.mark.parametrize(
    ("rows_of_each", "fraction", "left"),
    [([1] * 50, 0.1, 45), ([24, 24, 24, 24], 0.1, 72), ([20], 0.1, 18), ([24, 24], 0.0, 48)],
)
def test_a_batch_fits_into_what_a_validation_split_leaves(rows_of_each: list[int], fraction: float, left: int) -> None:
    assert rows_to_train_on(np.array(rows_of_each), fraction) == left
    guess = dataclasses.replace(guess_of(logged([3000, 40])), data={"source": "csv"})
    if fraction:
        assert sections(guess, SIZES[0][1], "name", np.array(rows_of_each), 10)["training"]["batch_size"] == left


@pytest.mark.parametrize(
    "change",
    [{"time": [1.0] * 60}, {"time": list(RANDOM.random(60))}, {"time": list(RANDOM.random(60).cumsum() ** 4)}],
    ids=["equal", "unsorted", "irregular"],
)
def test_other_tables_with_times_are_tables(change: dict[str, Any]) -> None:
    rows = logged([60]).remove_columns(["run", *change])
    guess = guess_of(columns(**rows.to_dict(), **change))
    assert guess.data["kind"] == "tabular"
    assert "time: time does not rise in mostly equal steps, with one row a time" in "\n".join(guess.remarks)


def test_what_keeps_a_table_from_being_a_loggers_is_said() -> None:
    rows = logged([60]).remove_columns(["run", "time"]).to_dict()
    for times, words in (
        ([0.0, None] * 30, "is missing in 30 rows"),
        (["1.2.2024 8:00"] * 60, "holds no numbers, dates"),
    ):
        assert f"time: time {words}" in "\n".join(guess_of(columns(**rows, time=times)).remarks)
    guess = guess_of(logged([60], note=["20 °C"] * 60))
    assert guess.data["kind"] == "series" and "left out: the columns note;" in "\n".join(guess.remarks)


def test_lists_of_unequal_length_and_wide_tables() -> None:
    guess = guess_of(columns(s=[numbers(length) for length in (30, 64, 41)] * 10))
    assert (guess.model["series_length"], guess.model["patch_size"]) == (64, 2)
    assert guess.rows_of_each is not None and guess.rows_of_each.tolist() == [1] * 30
    wide = columns(**{f"t{step}": numbers(5) for step in range(12)}, other=numbers(5))
    assert guess_of(wide).data["kind"] == "tabular"
    guess = guess_of(wide, "series")
    assert guess.data["input_column"] == [f"t{step}" for step in range(12)] and guess.model["series_length"] == 12


def test_lists_of_steps_are_no_lists_of_channels() -> None:
    cells = [RANDOM.normal(size=(length, 3)).tolist() for length in (30, 64, 41)]
    with pytest.raises(ValueError, match="'s' holds lists of 30 to 64 lists of 3 numbers each.*transpose each cell"):
        guess_of(columns(s=cells))
