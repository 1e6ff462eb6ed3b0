"""Raw splits: sources, cuts, limits and errors."""

import gzip
import pickle
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, IterableDataset
from PIL import Image

from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.tables import sources
from hf_maskssl.data.tables.splits import load_splits


def numbers(split: Dataset) -> list[int]:
    """The column `n`."""
    return list(split["n"])


def test_digits_are_split_once_and_for_all() -> None:
    splits = load_splits(data_arguments(test_split="test"))
    assert (len(splits["train"]), len(splits["test"])) == (1437, 360)
    assert np.bincount(splits["test"]["label"]).min() >= 35
    train = {np.asarray(image).tobytes() for image in splits["train"]["image"]}
    assert sum(np.asarray(image).tobytes() in train for image in splits["test"]["image"]) == 0


def test_validation_is_cut_from_train_by_seed(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("all", n=list(range(50)))

    def cut(seed: int) -> tuple[list[int], list[int]]:
        args = data_arguments("parquet", data_files=path, input_column="n", validation_fraction=0.2, split_seed=seed)
        splits = load_splits(args)
        return numbers(splits["train"]), numbers(splits["validation"])

    train, validation = cut(0)
    assert (len(train), len(validation)) == (40, 10)
    assert sorted(train + validation) == list(range(50)) and train == sorted(train)
    assert cut(0) == (train, validation)
    assert cut(1)[1] != validation


def test_limits_choose_rows_by_seed(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("all", n=list(range(100)))
    args = data_arguments("parquet", data_files=path, input_column="n", max_train_samples=10)
    chosen = numbers(load_splits(args)["train"])
    assert len(chosen) == 10 and chosen != list(range(10)) and chosen == numbers(load_splits(args)["train"])


def test_streams_take_the_first_rows(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("all", n=list(range(100)))
    args = data_arguments("parquet", data_files=path, input_column="n", max_train_samples=3, streaming=True)
    split = load_splits(args)["train"]
    assert isinstance(split, IterableDataset)
    assert [row["n"] for row in split] == [0, 1, 2]


@pytest.mark.parametrize(("source", "text"), [("csv", "n,label\n1,a\n2,b\n"), ("json", '{"n": 1}\n{"n": 2}\n')])
def test_text_tables(tmp_path: Path, source: str, text: str) -> None:
    path = tmp_path / "rows.txt"
    path.write_text(text)
    assert numbers(load_splits(data_arguments(source, data_files=str(path), input_column="n"))["train"]) == [1, 2]


def test_text_lines(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("ACGT\nTTGA\n")
    args = data_arguments("text", data_dir=str(tmp_path), kind="tokens", input_column="text", alphabet="ACGT")
    assert load_splits(args)["train"]["text"][:] == ["ACGT", "TTGA"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path, streaming: bool) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffirst\nsecond\n")
    section: dict[str, Any] = {"kind": "tokens", "input_column": "text", "tokenizer": "utf-8", "streaming": streaming}
    args = data_arguments("text", data_files=str(tmp_path / "a.txt"), **section)
    assert [row["text"] for row in load_splits(args)["train"]] == ["first", "second"]


@pytest.mark.parametrize("streaming", [False, True])
def test_numpy_archives_and_arrays(tmp_path: Path, streaming: bool) -> None:
    images = np.arange(2 * 13 * 4 * 4, dtype=np.uint16).reshape(2, 13, 4, 4)
    np.savez(tmp_path / "first.npz", image=images, label=np.array([3, 4]))
    for name, array in (("image", images), ("label", np.array([5, 6]))):
        np.save(tmp_path / f"{name}.npy", array)
    files = {
        "train": [str(tmp_path / "first.npz")],
        "test": [str(tmp_path / "image.npy"), str(tmp_path / "label.npy")],
    }
    args = data_arguments("numpy", data_files=files, input_column="image", test_split="test", streaming=streaming)
    splits = load_splits(args)
    for name, labels in (("train", [3, 4]), ("test", [5, 6])):
        rows = list(splits[name])
        assert [row["label"] for row in rows] == labels
        np.testing.assert_array_equal(np.array([row["image"] for row in rows]), images)


def test_a_numpy_file_written_anew_is_read_anew(tmp_path: Path) -> None:
    args = data_arguments("numpy", data_files=str(tmp_path / "a.npz"), input_column="n")
    for values in ([1, 2], [3, 4, 5]):
        np.savez(tmp_path / "a.npz", n=np.array(values))
        assert numbers(load_splits(args)["train"]) == values


def test_image_folder(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        Image.new("RGB", (5, 4)).save(tmp_path / "pictures" / label / "1.png")
    args = data_arguments("imagefolder", data_dir=str(tmp_path / "pictures"), input_column="image")
    assert load_splits(args)["train"].features["label"].names == ["cat", "dog"]


def test_audio_folder_is_listed_without_decoding(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    with wave.open(str(tmp_path / "sounds" / "1.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.zeros(80, dtype=np.int16).tobytes())
    args = data_arguments(
        "audiofolder", data_dir=str(tmp_path / "sounds"), kind="spectrogram", input_column="audio", sampling_rate=8000
    )
    assert len(load_splits(args)["train"]) == 1


def test_folder_of_save_to_disk(tmp_path: Path) -> None:
    both = DatasetDict({"train": Dataset.from_dict({"n": [1]}), "test": Dataset.from_dict({"n": [2]})})
    both.with_format("torch").save_to_disk(tmp_path / "saved")
    args = data_arguments(str(tmp_path / "saved"), input_column="n", test_split="test")
    assert numbers(load_splits(args)["test"]) == [2] and load_splits(args)["test"].format["type"] is None
    with pytest.raises(ValueError, match=r"no split 'dev'; there are \['test', 'train'\]"):
        load_splits(data_arguments(str(tmp_path / "saved"), input_column="n", test_split="dev"))


def test_environment_variables_are_expanded(
    write_parquet: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet("all", n=[7])
    args = data_arguments("parquet", data_files={"train": "${MY_ROOM}/all.parquet"}, input_column="n")
    monkeypatch.setenv("MY_ROOM", str(tmp_path))
    assert numbers(load_splits(args)["train"]) == [7]
    monkeypatch.delenv("MY_ROOM")
    with pytest.raises(ValueError, match=r"data.data_files: the environment variable \$\{MY_ROOM\}.*is not set"):
        load_splits(args)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data.data_files: .*none\.parquet does not exist"):
        load_splits(data_arguments("parquet", data_files=str(tmp_path / "none.parquet"), input_column="n"))
    with pytest.raises(FileNotFoundError, match=r"data.data_dir .*none"):
        load_splits(data_arguments("imagefolder", data_dir=str(tmp_path / "none"), input_column="n"))


@pytest.mark.parametrize("streaming", [False, True])
def test_unreadable_files_are_named(tmp_path: Path, streaming: bool) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"not parquet at all")
    args = data_arguments("parquet", data_files=str(path), input_column="n", streaming=streaming)
    with pytest.raises(ValueError, match="cannot be read"):
        load_splits(args)
    (tmp_path / "broken.npz").write_bytes(b"PK not an archive")
    args = data_arguments("numpy", data_files=str(tmp_path / "broken.npz"), input_column="n", streaming=streaming)
    with pytest.raises(ValueError, match=r"broken\.npz.*cannot be read"):
        load_splits(args)


def test_a_stream_that_breaks_off_names_the_file(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{number}.jsonl.gz") for number in range(3)]
    for file in files:
        Path(file).write_bytes(gzip.compress(b'{"text": "a"}\n' * 50))
    Path(files[1]).write_bytes(Path(files[1]).read_bytes()[:-9])
    args = data_arguments("json", kind="tokens", data_files=files, input_column="text", streaming=True)
    rows = iter(pickle.loads(pickle.dumps(load_splits(args)["train"])))  # as in a worker
    assert [next(rows) for _ in range(50)] == [{"text": "a"}] * 50
    with pytest.raises(ValueError, match="end-of-stream") as caught:
        list(rows)
    assert str(caught.value).startswith(f"data.source 'json' ({files[1]}): split 'train' cannot be read: ")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("source", ["text", "csv", "json"])
def test_empty_files_are_told(tmp_path: Path, source: str, streaming: bool) -> None:
    (tmp_path / "none").touch()
    args = data_arguments(source, data_files=str(tmp_path / "none"), input_column="text", streaming=streaming)
    with pytest.raises(ValueError, match="split 'train' has no rows"):
        load_splits(args)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("source", ["text", "csv"])
def test_files_that_are_not_utf_8_are_told(tmp_path: Path, source: str, streaming: bool) -> None:
    (tmp_path / "latin").write_text("text\ncafé\n", encoding="latin-1")
    args = data_arguments(source, data_files=str(tmp_path / "latin"), input_column="text", streaming=streaming)
    with pytest.raises(ValueError, match="split 'train' cannot be read: .* save it as UTF-8"):
        load_splits(args)


def test_arrays_of_different_length_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), label=np.zeros(2))
    with pytest.raises(ValueError, match=r"same number of rows, got \{'x': 3, 'label': 2\}"):
        load_splits(data_arguments("numpy", data_files=str(tmp_path / "a.npz"), input_column="x"))


@pytest.mark.parametrize("streaming", [False, True])
def test_empty_and_unknown_splits_are_named(write_parquet: Callable[..., str], streaming: bool) -> None:
    path = write_parquet("empty", n=np.zeros(0, dtype=np.int64))
    with pytest.raises(ValueError, match="split 'train' has no rows"):
        load_splits(data_arguments("parquet", data_files=path, input_column="n", streaming=streaming))
    path = write_parquet("full", n=[1])
    args = data_arguments("parquet", data_files=path, input_column="n", test_split="test", streaming=streaming)
    with pytest.raises(ValueError, match="test"):
        load_splits(args)


def test_a_cut_that_leaves_nothing_is_refused(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("one", n=[1])
    args = data_arguments("parquet", data_files=path, input_column="n", validation_fraction=0.5)
    with pytest.raises(ValueError, match="leaves none to train on"):
        load_splits(args)


@pytest.mark.parametrize("streaming", [False, True])
def test_pydoc_has_a_row_for_every_topic(streaming: bool) -> None:
    args = data_arguments("pydoc", kind="tokens", tokenizer="utf-8", streaming=streaming)
    assert args.input_column == "text"
    rows = list(load_splits(args)["train"])
    names = [row["topic"] for row in rows]
    assert len(rows) > 50 and names == sorted(names) and set(rows[0]) == {"topic", "text"}
    assert '"assert" statement' in rows[names.index("assert")]["text"]
    with pytest.raises(ValueError, match="'pydoc' has one split, 'train', got 'test': set data.split to 'random'"):
        load_splits(data_arguments("pydoc", kind="tokens", tokenizer="utf-8", test_split="test"))


def test_pydoc_is_read_into_a_file_once() -> None:
    args = data_arguments("pydoc", kind="tokens", tokenizer="utf-8", validation_fraction=0.1)
    first, second = load_splits(args), load_splits(args)
    assert first["train"].cache_files and first["train"]._fingerprint == second["train"]._fingerprint
    assert not set(first["train"]["topic"]) & set(first["validation"]["topic"])


@pytest.mark.parametrize("error", [ConnectionError("Couldn't reach 'x' on the Hub"), FileNotFoundError("no such set")])
def test_a_misspelt_source_is_told_what_it_may_mean(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(source: str, **options: Any) -> None:
        raise error

    monkeypatch.setattr(sources.datasets, "load_dataset", load)
    with pytest.raises(FileNotFoundError, match=r"data.source 'parqet' \(did you mean 'parquet'\?\): expected one of"):
        sources.read_split(data_arguments(source="parqet", kind="tabular"), "train")
    with pytest.raises(FileNotFoundError, match=r"data.source 'org/rows': expected .* cannot be read: "):
        sources.read_split(data_arguments(source="org/rows", kind="tabular"), "train")
