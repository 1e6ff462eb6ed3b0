"""Classes of label maps are the values that occur; what is no class, and what never meets, is told."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_multimodal import columns, config, encoded

from hf_maskssl.data import PreparedData, data_arguments, prepare_data

WriteParquet = Callable[..., str]
DENSE = {"task": "semantic_segmentation", "label_column": "map", "input_column": {"rgb": "rgb"}}


def map_of(*values: int, dtype: Any = np.uint8) -> np.ndarray:
    """(16, 16), these values in turn."""
    return np.resize(np.asarray(values), (16, 16)).astype(dtype)


def labelled(write_parquet: WriteParquet, maps: list[np.ndarray], ignore: int = 255, **fields: Any) -> PreparedData:
    raw = {"rgb": columns(len(maps))["rgb"], "map": [encoded(one) for one in maps]}
    path = write_parquet("train", **raw)
    model = config(semantic_loss_ignore_index=ignore)
    return prepare_data(data_arguments("parquet", data_files=path, kind="multimodal", **DENSE, **fields), model)


@pytest.mark.parametrize(
    ("values", "names", "numbers"),
    [
        ([0, 1, 2], ["0", "1", "2"], [0, 1, 2]),
        ([0, 255], ["0", "255"], [0, 1]),
        ([1, 2], ["1", "2"], [0, 1]),
        ([7, 0, 200], ["0", "7", "200"], [1, 0, 2]),
        ([0, 40000], ["0", "40000"], [0, 1]),
        ([0, 128, 255], ["0", "128"], [0, 1, 255]),
    ],
)
def test_values_that_occur_become_classes(
    write_parquet: WriteParquet, values: list[int], names: list[str], numbers: list[int]
) -> None:
    dtype = np.uint16 if max(values) > 255 else np.uint8
    data = labelled(write_parquet, [map_of(*values, dtype=dtype)] * 3)
    assert data.label_names == names and data.num_labels == len(names)
    np.testing.assert_array_equal(data.train[1]["labels"], map_of(*numbers, dtype=np.int64))


@pytest.mark.parametrize("names", [None, ["ground", "object"]])
def test_a_foreground_of_255_is_a_class_and_told(
    write_parquet: WriteParquet, names: list[str] | None, caplog: pytest.LogCaptureFixture
) -> None:
    more = {} if names is None else {"label_names": names}
    data = labelled(write_parquet, [map_of(0, 0, 255), map_of(0)], **more)
    assert data.label_names == (names or ["0", "255"])
    np.testing.assert_array_equal(data.train[0]["labels"], map_of(0, 0, 1, dtype=np.int64))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "the values [0, 255] are all that occurs, so 255 is taken for a class" in warning


def test_pixels_without_a_class_and_classes_that_never_occur_are_told(
    write_parquet: WriteParquet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data = labelled(write_parquet, [map_of(0, 1, 255, 1)], label_names=["a", "b", "c"])
    assert data.num_labels == 3
    assert "name (value): share of pixels: 'a' (0): 25.0%, 'b' (1): 50.0%, 'c' (2): 0.0%" in caplog.text
    assert "25.0 % of the pixels are 255 (model.semantic_loss_ignore_index): no class" in caplog.text
    assert "1 of 3 classes do not occur: ['c']" in caplog.text


def test_as_many_names_as_values_name_them_in_order(write_parquet: WriteParquet) -> None:
    data = labelled(write_parquet, [map_of(10, 30, 20)], label_names=["a", "b", "c"])
    assert data.label_names == ["a", "b", "c"]
    np.testing.assert_array_equal(data.train[0]["labels"], map_of(0, 2, 1, dtype=np.int64))


def test_maps_that_cannot_be_learnt_are_named(write_parquet: WriteParquet) -> None:
    with pytest.raises(ValueError, match=r"train split, row 1, .*holds the class 4, expected 0\.\.1 or 255 for none"):
        labelled(write_parquet, [map_of(0, 1), map_of(4, 9)], label_names=["a", "b"])
    with pytest.raises(ValueError, match="semantic_loss_ignore_index 12 is also the number of one of the 13 classes"):
        labelled(write_parquet, [map_of(*range(14))], ignore=12)
    with pytest.raises(ValueError, match="no pixel of the training split has a class"):
        labelled(write_parquet, [map_of(255)])
    raw = {"rgb": columns(2)["rgb"], "map": [encoded(map_of(0, 5)), encoded(map_of(0, 6))]}
    files = {"train": write_parquet("one", rgb=raw["rgb"][:1], map=raw["map"][:1])}
    files["test"] = write_parquet("two", rgb=raw["rgb"][1:], map=raw["map"][1:])
    args = data_arguments("parquet", data_files=files, kind="multimodal", test_split="test", **DENSE)
    data = prepare_data(args, config())
    assert data.test is not None
    with pytest.raises(
        ValueError, match=r"test split, row 0, .* class 6, expected one of the training split's \[0, 5\]"
    ):
        data.test[0]


def test_a_depth_map_is_no_class_map(tmp_path: Path) -> None:
    for name in ("rgb", "map"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "rgb" / "x.png")
    args = data_arguments("multimodal_folder", data_dir=str(tmp_path), kind="multimodal", **DENSE)
    for values in (np.full((8, 8), 0.5), np.full((8, 8), 1e30), np.full((8, 8), 2**63, np.uint64)):
        np.save(tmp_path / "map" / "x.npy", values)
        with pytest.raises(ValueError, match=r"row 0, column 'map': expected whole numbers as class ids.*x\.npy"):
            prepare_data(args, config())
    np.save(tmp_path / "map" / "x.npy", np.full((8, 8), -3))
    with pytest.raises(ValueError, match="row 0, column 'map': the class map holds the class -3: if that means none"):
        prepare_data(args, config())


def folder(root: Path, **names: list[str]) -> Path:
    for modality, stems in names.items():
        for number, stem in enumerate(stems):
            path = root / modality / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = columns(1, number)[modality][0]["bytes"]
            path.write_bytes(pixels)
    return root


@pytest.mark.parametrize("mode", [{}, {"streaming": True}, {"verify_images": False}], ids=["", "stream", "unverified"])
def test_modalities_that_never_meet_are_told(
    tmp_path: Path, mode: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    root = folder(tmp_path, rgb=["all/s0", "all/s1"], semseg=["all/s0"], depth=["all/s0_depth", "all/s1_depth"])
    args = data_arguments("multimodal_folder", data_dir=str(root), kind="multimodal", allow_missing=True, **mode)
    prepare_data(args, config())
    assert "4 rows; with rgb 2, depth 2, semseg 1; 0 rows have all modalities, 3 one alone" in caplog.text
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "no row has 'depth' together with another modality" in warning


def test_columns_that_never_meet_are_told(write_parquet: WriteParquet, caplog: pytest.LogCaptureFixture) -> None:
    raw = columns(2)
    raw["rgb"][0] = raw["depth"][1] = raw["semseg"][1] = None
    raw["depth"][0] = raw["depth"][0] | {"path": "a.png"}
    path = write_parquet("train", **{name: raw[name] for name in ("rgb", "depth", "semseg")})
    prepare_data(data_arguments("parquet", data_files=path, kind="multimodal", allow_missing=True), config())
    assert (
        "train split: no row has 'rgb' together with another modality (rows: rgb 1, depth 1, semseg 1;" in caplog.text
    )


def test_ignored_pixels_of_class_maps_to_read_are_told(
    write_parquet: WriteParquet, caplog: pytest.LogCaptureFixture
) -> None:
    raw = columns(2)
    raw["semseg"] = [encoded(map_of(0, 255))] * 2
    prepare_data(data_arguments("parquet", data_files=write_parquet("train", **raw), kind="multimodal"), config())
    assert "column 'semseg': 2 of 2 rows have pixels of 255" in caplog.text and "1 other values occur" in caplog.text


def test_measurements_of_two_depths_are_refused(write_parquet: WriteParquet) -> None:
    raw = columns(3)
    raw["depth"][2] = encoded(np.full((16, 16), 9, np.uint8)) | {"path": "two.png"}
    both = "1 pictures of 8 bit, 2 pictures of 16 bit, whose numbers are of different ranges"
    path = write_parquet("train", **raw)
    with pytest.raises(
        ValueError, match=rf"train split, row 2, column 'depth': the picture has 8 bit; .*{both}.*two\.png"
    ):
        prepare_data(data_arguments("parquet", data_files=path, kind="multimodal"), config())
    # Seen as it is read where nothing was looked at before, in another split and in use.
    rows = prepare_data(data_arguments("parquet", data_files=path, kind="multimodal", verify_images=False), config())
    with pytest.raises(ValueError, match=r"row 2, .*modality 'depth': expected a picture of 16 bit.*8 bit.*two\.png"):
        rows.train[2]
    with pytest.raises(ValueError, match="expected a picture of 16 bit"):
        rows.processor({"depth": [Image.new("L", (16, 16))]})  # type: ignore[operator,misc]
    dense = {"task": "depth_estimation", "label_column": "depth", "input_column": {"rgb": "rgb"}}
    with pytest.raises(ValueError, match="train split, row 2, column 'depth': the picture has 8 bit"):
        prepare_data(data_arguments("parquet", data_files=path, kind="multimodal", **dense), config())


def test_links_that_lead_round_in_circles_give_each_row_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folder(tmp_path / "data", rgb=["cat/a"], depth=["cat/a"], semseg=["cat/a"])
    for modality in ("rgb", "depth", "semseg"):
        (root / modality / "cat" / "self").symlink_to(".")
        (root / modality / "cat" / "up").symlink_to("..")
        (root / modality / "ant").symlink_to("cat")
        outside = folder(tmp_path / "outside", **{modality: ["b"]}) / modality
        (root / modality / "dog").symlink_to(outside)
    args = data_arguments("multimodal_folder", data_dir=str(root), kind="multimodal", label_column="label")
    data = prepare_data(args, config())
    assert len(data.train) == 2 and data.label_names == ["cat", "dog"]
    left_out = [
        text for text in caplog.messages if "read already: it is left out" in text and f"{root / 'rgb'}" in text
    ]
    assert len(left_out) == 3
    (root / "rgb" / "cat" / "z.png").symlink_to("nowhere.png")
    with pytest.raises(ValueError, match=r"cat/z\.png is a link to a file that cannot be found"):
        prepare_data(args, config())
