"""The folder layout `modality/class/name.ext`: every format, splits, and all ways in which it can be broken."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_multimodal import config

from hf_maskssl import MultiMAEForPretraining
from hf_maskssl.data import DataArguments, data_arguments, prepare_data
from hf_maskssl.data.tables.report import DataReport
from hf_maskssl.data.tables.splits import load_splits, read_splits

NAMES = ["cat/a", "cat/b", "dog/a", "dog/deep/c"]


def pixels(name: str, number: int) -> np.ndarray:
    generator = np.random.default_rng(number)
    if name == "rgb":
        return generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    if name == "depth":
        return generator.integers(1, 65536, (16, 16)).astype(np.uint16)
    return generator.integers(0, 10, (16, 16), dtype=np.uint8)


def write(root: Path, names: list[str] = NAMES, depth: str = "png", rgb: str = "png") -> Path:
    for modality, ending in (("rgb", rgb), ("depth", depth), ("semseg", "png")):
        for number, name in enumerate(names):
            path = root / modality / f"{name}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if ending == "npy":
                np.save(path, pixels(modality, number))
            else:
                Image.fromarray(pixels(modality, number)).save(path)
    return root


def arguments(root: Path, **fields: Any) -> DataArguments:
    return data_arguments("multimodal_folder", data_dir=str(root), kind="multimodal", **fields)


@pytest.mark.parametrize(
    ("depth", "rgb"), [("png", "png"), ("npy", "npy"), ("tif", "bmp"), ("tiff", "webp"), ("png", "jpeg")]
)
def test_files_of_one_name_become_a_row(tmp_path: Path, depth: str, rgb: str) -> None:
    root = write(tmp_path / "data", depth=depth, rgb=rgb)
    data = prepare_data(arguments(root, label_column="label"), config())
    assert data.label_names == ["cat", "dog"] and len(data.train) == 4
    batch = data.collator(list(data.train))
    assert batch["labels"].tolist() == [0, 0, 1, 1]
    raw = {name: [pixels(name, number) for number in range(4)] for name in ("rgb", "depth", "semseg")}
    expected = data.processor(raw, return_tensors="pt")["inputs"]
    for name in ("depth", "semseg"):
        np.testing.assert_array_equal(batch["inputs"][name], expected[name])
    difference = (batch["inputs"]["rgb"] - expected["rgb"]).abs().max()
    assert difference == 0 or rgb in ("webp", "jpeg")


def test_splits_are_folders_and_modalities_can_be_chosen(tmp_path: Path) -> None:
    write(tmp_path / "train")
    write(tmp_path / "val", ["cat/x"])
    splits = load_splits(arguments(tmp_path, validation_split="val", input_column={"rgb": "rgb", "depth": "depth"}))
    assert splits["train"].column_names == ["rgb", "depth", "label"]
    assert (len(splits["train"]), len(splits["validation"])) == (4, 1)
    dense = {"task": "semantic_segmentation", "label_column": "semseg", "input_column": {"rgb": "rgb"}}
    data = prepare_data(arguments(tmp_path, **dense), config())
    np.testing.assert_array_equal(data.train[2]["labels"], pixels("semseg", 2))
    stream = prepare_data(arguments(tmp_path, streaming=True), config()).train
    assert len(list(stream)) == 4


def test_files_written_anew_are_read_anew(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    before = prepare_data(arguments(root), config()).train[0]["inputs.depth"]
    Image.fromarray(pixels("depth", 9)).save(root / "depth" / "cat" / "a.png")
    assert not np.array_equal(before, prepare_data(arguments(root), config()).train[0]["inputs.depth"])
    (root / "rgb" / "cat" / "a.png").write_bytes(b"cut")
    with pytest.raises(ValueError, match="1 of 4 rows .*row 0, column 'rgb': unreadable image .*a.png"):
        prepare_data(arguments(root), config())


def test_arrays_of_any_ending_are_read_and_named(tmp_path: Path) -> None:
    root = write(tmp_path / "data", depth="npy")
    file = root / "depth" / "cat" / "a.npy"
    shouting = file.rename(file.with_suffix(".NPY"))
    data = prepare_data(arguments(root), config())
    expected = data.processor({"depth": pixels("depth", 0)}, return_tensors="np")["inputs"]["depth"]
    np.testing.assert_array_equal(data.train[0]["inputs.depth"], expected[0])
    shouting.write_bytes(shouting.read_bytes()[:-100])
    with pytest.raises(ValueError, match="1 of 4 rows .*row 0, column 'depth': unreadable file .*a.NPY"):
        prepare_data(arguments(root), config())


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    (root / "notes").mkdir()
    assert "notes" not in load_splits(arguments(root))["train"].column_names
    Image.fromarray(pixels("rgb", 0)).save(root / "notes" / "sketch.png")
    assert len(prepare_data(arguments(root), config()).train) == 4


def test_what_a_folder_has_beside_its_rows_is_told(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    (root / "normals").mkdir()
    for name in (
        "rgb/cat/Thumbs.db",
        "rgb/cat/x.GIF",
        "depth/.cache/y.png",
        "depth/__MACOSX/cat/a.png",
        "rgb/cat/._a.png",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    report = DataReport()
    assert len(read_splits(arguments(root, input_column={"rgb": "rgb", "depth": "depth"}), report)["train"]) == 4
    assert report.files_left_out == {"(empty folder)": 1, ".db": 1, ".gif": 1}


def test_rows_without_a_file_are_refused_or_marked(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    (root / "depth" / "cat" / "b.png").unlink()
    (root / "semseg" / "dog" / "a.png").unlink()
    with pytest.raises(
        ValueError, match=r"2 files are not there .*: depth/cat/b, semseg/dog/a; add them, or set data.allow"
    ):
        prepare_data(arguments(root), config())
    data = prepare_data(arguments(root, allow_missing=True), config())
    presence = data.collator(list(data.train))["presence"]
    assert presence["depth"].tolist() == [True, False, True, True]
    assert presence["semseg"].tolist() == [True, True, False, True] and presence["rgb"].all()


def test_folders_that_cannot_be_are_named(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    with pytest.raises(
        ValueError, match=r"no folder of the modalities \['heat'\]; there are \['depth', 'rgb', 'semseg'\]"
    ):
        prepare_data(arguments(root, input_column={"rgb": "heat"}), config())
    with pytest.raises(ValueError, match="no folder of the split 'test'"):
        prepare_data(arguments(root, test_split="test"), config())
    with pytest.raises(FileNotFoundError, match="no such folder"):
        prepare_data(arguments(tmp_path / "absent"), config())
    Image.fromarray(pixels("rgb", 0)).save(root / "rgb" / "cat" / "a.jpg")
    with pytest.raises(ValueError, match="holds both cat/a.*g and cat/a.*g: keep one"):
        prepare_data(arguments(root), config())
    other = write(write(tmp_path / "other"), ["loose"])
    with pytest.raises(ValueError, match=r"\['loose'\] lie outside of the class folders \['cat', 'dog'\]"):
        prepare_data(arguments(other), config())
    (tmp_path / "none" / "rgb").mkdir(parents=True)
    with pytest.raises(ValueError, match="no files .* in the folders .'rgb'"):
        load_splits(arguments(tmp_path / "none"))
    flat = prepare_data(arguments(write(tmp_path / "flat", ["one", "two"])), config())
    assert len(flat.train) == 2


@pytest.mark.parametrize("layout", ["side by side", "behind each other"])
def test_a_tiff_of_many_bands_goes_from_the_folder_through_a_step(
    layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tifffile = pytest.importorskip("tifffile")
    bands = np.random.default_rng(0).integers(0, 10_000, (3, 16, 16, 13)).astype(np.uint16)
    for number, picture in enumerate(bands):
        for modality in ("rgb", "bands"):
            (tmp_path / "data" / modality / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels("rgb", number)).save(tmp_path / "data" / "rgb" / "a" / f"{number}.png")
        # Interleaved, or one page a band, of which Pillow alone would give the first.
        pages = picture if layout == "side by side" else np.moveaxis(picture, -1, 0)
        interleaved = {"planarconfig": "contig"} if layout == "side by side" else {}
        file = tmp_path / "data" / "bands" / "a" / f"{number}.tif"
        tifffile.imwrite(file, pages, photometric="minisblack", **interleaved)
    modalities = {"rgb": {"num_channels": 3}, "bands": {"num_channels": 13}}
    model_config = config(modalities={name: {"kind": "continuous", **one} for name, one in modalities.items()})
    with caplog.at_level("WARNING"):
        as_they_are = {"modality_options": {"bands": {"standardize": "none", "scale": 1.0}}}
        data = prepare_data(arguments(tmp_path / "data", **as_they_are), model_config)
        batch = data.collator(list(data.train))
    assert caplog.text == "", "Pillow says of each such file that it cannot read it"
    np.testing.assert_array_equal(batch["inputs"]["bands"].numpy(), np.moveaxis(bands, -1, 1).astype(np.float32))
    model = MultiMAEForPretraining(model_config)
    loss = model(inputs={name: values / values.max() for name, values in batch["inputs"].items()}).loss
    loss.backward()
    assert torch.isfinite(loss) and all(value.grad is not None for value in model.parameters() if value.requires_grad)
    file.write_bytes(file.read_bytes()[:-2000])  # in the last band
    with pytest.raises(ValueError, match="1 of 3 rows .*row 2, column 'bands': unreadable image .*2.tif"):
        prepare_data(arguments(tmp_path / "data"), model_config)
