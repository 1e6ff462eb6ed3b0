"""Rows of several modalities: from columns to batches, drawn views, missing modalities and broken files."""

import dataclasses
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from PIL import Image
from torch.utils.data import DataLoader

from hf_maskssl import MultiMAEConfig
from hf_maskssl.data import MultimodalCollator, PreparedData, data_arguments, load_processor, prepare_data
from hf_maskssl.data.multimodal import checks
from hf_maskssl.data.tables.preparing import plain_rows
from hf_maskssl.data.tables.rows import PreparedRows, TransformedRows

MODALITIES: dict[str, dict[str, Any]] = {
    "rgb": {"kind": "continuous", "num_channels": 3},
    "depth": {"kind": "continuous", "num_channels": 1, "loss": "l1"},
    "semseg": {"kind": "categorical", "num_classes": 10, "stride": 2, "embedding_size": 4},
    "norm_rgb": {"target_of": "rgb", "loss": "standardized_mse"},
}
SCENES = {"num_scenes": {"train": 12, "test": 4}, "test_split": "test", "scene_size": 16, "kind": "multimodal"}
ENCODER = {"rgb": "rgb", "depth": "depth"}


def config(**fields: Any) -> MultiMAEConfig:
    small = {"hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 8}
    small |= {"decoder_hidden_size": 8, "decoder_num_attention_heads": 2, "num_visible_tokens": 4}
    return MultiMAEConfig(**{"modalities": MODALITIES, "image_size": 16, "patch_size": 8, **small, **fields})


def encoded(pixels: np.ndarray) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def columns(count: int, seed: int = 0) -> dict[str, list[Any]]:
    """Encoded pictures, a class map of numbers and a label."""
    generator = np.random.default_rng(seed)
    return {
        "rgb": [encoded(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(count)],
        "depth": [encoded(generator.integers(1, 65536, (16, 16)).astype(np.uint16)) for _ in range(count)],
        "semseg": [encoded(generator.integers(0, 10, (16, 16), dtype=np.uint8)) for _ in range(count)],
        "label": [number % 2 for number in range(count)],
    }


def prepared(path: str, **fields: Any) -> PreparedData:
    model = fields.pop("model", None) or config()
    return prepare_data(data_arguments("parquet", data_files=path, kind="multimodal", **fields), model)


def batch_of(data: PreparedData, split: str = "train") -> dict[str, Any]:
    return data.collator(list(getattr(data, split)))


@pytest.mark.parametrize("mode", [{"cache": True}, {}, {"streaming": True}], ids=["cached", "on the fly", "streaming"])
def test_columns_become_a_batch_of_inputs(write_parquet: Callable[..., str], mode: dict[str, Any]) -> None:
    raw = columns(5)
    data = prepared(write_parquet("train", **raw), label_column="label", **mode)
    batch = batch_of(data)
    assert list(batch) == ["inputs", "labels", "index"] and list(batch["inputs"]) == ["rgb", "depth", "semseg"]
    kinds = {name: (tuple(values.shape), values.dtype) for name, values in batch["inputs"].items()}
    assert kinds["rgb"] == ((5, 3, 16, 16), torch.float32) and kinds["depth"] == ((5, 1, 16, 16), torch.float32)
    assert kinds["semseg"] == ((5, 8, 8), torch.int64)
    assert batch["labels"].tolist() == [0, 1, 0, 1, 0] and batch["index"].tolist() == list(range(5))
    pictures = {
        name: [Image.open(io.BytesIO(value["bytes"])) for value in raw[name]] for name in MODALITIES if name in raw
    }
    expected = data.processor(pictures, return_tensors="pt")["inputs"]
    for name, values in expected.items():
        torch.testing.assert_close(batch["inputs"][name], values)


def test_arrays_and_other_names_give_the_same_as_files(write_parquet: Callable[..., str], tmp_path: Path) -> None:
    raw = columns(4)
    data = prepared(write_parquet("train", **raw), input_column={"rgb": "rgb", "depth": "depth"})
    decoded = {name: [np.asarray(Image.open(io.BytesIO(v["bytes"]))) for v in raw[name]] for name in ("rgb", "depth")}
    features = datasets.Features(
        {"colours": datasets.Array3D((16, 16, 3), "uint8"), "far": datasets.Array2D((16, 16), "float32")}
    )
    table = datasets.Dataset.from_dict({"colours": decoded["rgb"], "far": decoded["depth"]}, features=features)
    table.save_to_disk(tmp_path / "saved")
    for mode in ({}, {"cache": True}):
        args = data_arguments(
            str(tmp_path / "saved"), kind="multimodal", input_column={"rgb": "colours", "depth": "far"}, **mode
        )
        other = prepare_data(args, config())
        for name, values in batch_of(data)["inputs"].items():
            torch.testing.assert_close(batch_of(other)["inputs"][name], values)
    alone = prepared(write_parquet("train", **raw), input_column="rgb")
    torch.testing.assert_close(batch_of(alone)["inputs"], {"rgb": batch_of(data)["inputs"]["rgb"]})


def test_label_maps_are_cut_like_their_inputs() -> None:
    """Segmentation with depth as input, depth as label in metres: both come from one file, so they must agree."""
    segmentation = {"task": "semantic_segmentation", "label_column": "semseg", "input_column": {"rgb": "rgb"}}
    args = data_arguments("scenes", **SCENES, **segmentation, augment=True)
    data = prepare_data(args, config())
    assert (data.task, data.num_labels, data.label_names[:2]) == ("semantic_segmentation", 10, ["floor", "wall"])
    batch = batch_of(data)
    assert batch["labels"].shape == (12, 16, 16) and batch["labels"].dtype == torch.int64
    same = {**MODALITIES, "semseg": {**MODALITIES["semseg"], "stride": 1}}
    inputs = batch_of(prepare_data(data_arguments("scenes", **SCENES, augment=True), config(modalities=same)))[
        "inputs"
    ]
    torch.testing.assert_close(batch["labels"], inputs["semseg"])
    torch.testing.assert_close(batch["inputs"]["rgb"], inputs["rgb"])
    data = prepare_data(
        data_arguments("scenes", **SCENES, task="depth_estimation", label_column="depth", input_column={"rgb": "rgb"}),
        config(),
    )
    assert (data.task, data.num_labels, data.label_names) == ("depth_estimation", 1, None)
    depth = batch_of(data, "test")["labels"]
    assert depth.dtype == torch.float32 and 0.3 < depth.min() and 3 < depth.max() < 12


def test_classes_of_label_maps_are_named_or_counted(write_parquet: Callable[..., str]) -> None:
    raw = columns(3)
    ids = np.full((16, 16), 255, dtype=np.uint8)
    ids[0, :5] = range(5)
    raw["map"] = [encoded(ids)] * 3
    path = write_parquet("train", **raw)
    dense = {"task": "semantic_segmentation", "label_column": "map", "input_column": {"rgb": "rgb"}}
    data = prepared(path, **dense)
    assert data.label_names == ["0", "1", "2", "3", "4"]
    np.testing.assert_array_equal(batch_of(data)["labels"][1], ids)
    assert prepared(path, **dense, label_names=list("abcdefg")).num_labels == 7
    with pytest.raises(ValueError, match=r"train split, row 0, .*'map' holds the class 2, expected 0\.\.1 or 255"):
        list(prepared(path, **dense, label_names=["a", "b"]).train)


def test_views_are_drawn_from_seed_epoch_and_row() -> None:
    args = data_arguments("scenes", **SCENES, augment=True)
    data, again = (prepare_data(args, config()) for _ in range(2))
    # Prepared pictures take too much room to be kept unless asked for.
    assert isinstance(data.train, TransformedRows) and isinstance(data.test, TransformedRows)
    kept = prepare_data(dataclasses.replace(args, cache=True), config())
    assert isinstance(kept.train, TransformedRows) and isinstance(kept.test, PreparedRows)
    first = batch_of(data)["inputs"]["depth"]
    # Neither the state of any random numbers nor the order of reading matters.
    torch.manual_seed(1)
    torch.testing.assert_close(batch_of(again)["inputs"]["depth"], first, rtol=0, atol=0)
    torch.testing.assert_close(torch.from_numpy(again.train[7]["inputs.depth"]), first[7], rtol=0, atol=0)
    data.train.set_epoch(1)
    second = batch_of(data)["inputs"]["depth"]
    assert not any(torch.equal(*pair) for pair in zip(first, second, strict=True))
    # Runs of other seeds see other views.
    data.train.set_epoch(1, seed=3)
    third = batch_of(data)["inputs"]["depth"]
    assert not any(torch.equal(*pair) for pair in zip(third, second, strict=True))
    # Accelerate's loader tells the epoch again, of itself, and knows of no seed.
    data.train.set_epoch(1)
    torch.testing.assert_close(batch_of(data)["inputs"]["depth"], third, rtol=0, atol=0)
    data.train.set_epoch(0, seed=0)
    torch.testing.assert_close(batch_of(data)["inputs"]["depth"], first, rtol=0, atol=0)
    other = prepare_data(data_arguments("scenes", **SCENES, augment=True, split_seed=1), config())
    assert not torch.equal(batch_of(other)["inputs"]["depth"], first)
    # Rows chosen out of the set keep following its epoch.
    chosen = data.train.select([3, 5])
    data.train.set_epoch(1)
    torch.testing.assert_close(torch.from_numpy(chosen[1]["inputs.depth"]), second[5], rtol=0, atol=0)


def test_a_loader_that_goes_on_in_the_middle_gives_the_same_views() -> None:
    def loader() -> Any:
        data = prepare_data(data_arguments("scenes", **SCENES, augment=True), config())
        order = torch.Generator().manual_seed(0)
        plain = DataLoader(data.train, batch_size=4, shuffle=True, collate_fn=data.collator, generator=order)
        return prepare_data_loader(plain, num_processes=1, process_index=0, use_seedable_sampler=True)

    first = loader()
    for epoch in range(3):
        first.set_epoch(epoch)
        batches = list(first)
    again = loader()
    again.set_epoch(2)
    rest = skip_first_batches(again, 1)
    rest.set_epoch(2)
    torch.rand(5)
    for resumed, batch in zip(rest, batches[1:], strict=True):
        assert resumed["index"].tolist() == batch["index"].tolist()
        torch.testing.assert_close(resumed["inputs"], batch["inputs"], rtol=0, atol=0)


def test_plain_rows_are_seen_as_those_of_validation() -> None:
    drawn = prepare_data(data_arguments("scenes", **SCENES, augment=True), config())
    still = prepare_data(data_arguments("scenes", **SCENES), config())
    chosen = plain_rows(drawn.train.select([4, 2]))
    np.testing.assert_array_equal(chosen[1]["inputs.rgb"], still.train[2]["inputs.rgb"])
    assert plain_rows(still.train) is still.train


def test_rows_without_a_label_map_are_refused_or_dropped(write_parquet: Callable[..., str]) -> None:
    raw = columns(4)
    raw["semseg"][1] = None
    path = write_parquet("train", **raw)
    dense = {"task": "semantic_segmentation", "label_column": "semseg", "input_column": {"rgb": "rgb"}}
    with pytest.raises(ValueError, match="row 1, column 'semseg': the label is missing in 1 of 4 rows"):
        prepared(path, **dense)
    assert len(prepared(path, **dense, drop_missing_labels=True).train) == 3


def test_workers_that_live_on_hear_of_the_next_epoch() -> None:
    data = prepare_data(data_arguments("scenes", **SCENES, augment=True), config())
    loader = DataLoader(data.train, batch_size=12, num_workers=1, persistent_workers=True, collate_fn=data.collator)
    for epoch in range(2):
        data.train.set_epoch(epoch)
        (batch,) = list(loader)
        torch.testing.assert_close(batch["inputs"]["rgb"], batch_of(data)["inputs"]["rgb"], rtol=0, atol=0)


def test_rows_may_lack_modalities_where_that_is_allowed(write_parquet: Callable[..., str]) -> None:
    raw = columns(4)
    raw["depth"][1] = raw["semseg"][1] = raw["depth"][3] = None
    path = write_parquet("train", **raw)
    for mode in ({}, {"cache": True}, {"streaming": True}, {"augment": True}):
        data = prepared(path, allow_missing=True, **mode)
        batch = batch_of(data)
        presence = {name: there.tolist() for name, there in batch["presence"].items()}
        assert presence == {
            "rgb": [True] * 4,
            "depth": [True, False, True, False],
            "semseg": [True, False, True, True],
        }
        assert (batch["inputs"]["depth"][[1, 3]] == 0).all() and (batch["inputs"]["semseg"][1] == 255).all()
        rows = list(data.train)
        assert "presence" not in data.collator([rows[0], rows[2]])
    for mode in ({}, {"streaming": True, "cache": False}):
        with pytest.raises(
            ValueError, match="train split, row 1, column 'depth': modality 'depth' is missing: fill it"
        ):
            list(prepared(path, **mode).train)
    raw["rgb"][1] = None
    with pytest.raises(ValueError, match="row 1, .*: the row has no modality at all"):
        prepared(write_parquet("empty", **raw), allow_missing=True)


def spoilt(raw: dict[str, list[Any]], rows: dict[int, str]) -> dict[str, list[Any]]:
    """Pictures cut in half."""
    for row, name in rows.items():
        content = raw[name][row]["bytes"]
        raw[name][row] = {"bytes": content[: len(content) // 2], "path": None}
    return raw


def test_a_few_broken_pictures_are_left_out_with_one_warning(
    write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    few = spoilt(columns(200), {7: "depth", 120: "rgb"})
    data = prepared(write_parquet("few", **few), label_column="label")
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "train split: 2 of 200 rows have pictures that cannot be read: row 7, column 'depth'" in record.getMessage()
    assert "row 120, column 'rgb'" in record.getMessage()
    assert len(data.train) == 198
    # The rows behind them moved up: labels 0 1 0 1 0 1 0 | 0 1.
    assert batch_of(data)["labels"][5:9].tolist() == [1, 0, 0, 1]
    many = write_parquet("many", **spoilt(columns(200), {1: "rgb", 2: "rgb", 3: "semseg"}))
    with pytest.raises(ValueError, match="3 of 200 rows .*row 1, column 'rgb': unreadable.* more than 1%: repair"):
        prepared(many)
    # Without the check a row is named when it is read.
    rows = prepared(many, verify_images=False, cache=False).train
    with pytest.raises(ValueError, match="train split, row 3, column 'semseg': unreadable"):
        rows[3]
    # Row numbers are those of the file whatever was left out, and files are named.
    few["semseg"][10] = encoded(np.full((16, 16), 30, dtype=np.uint8)) | {"path": "ten.png"}
    rows = prepared(write_parquet("ten", **few)).train
    with pytest.raises(ValueError, match=r"train split, row 10, .* class 30, .*\(ten\.png\)"):
        rows[9]
    junk = columns(2)
    junk["rgb"][0] = {"bytes": b"no picture", "path": None}
    with pytest.raises(ValueError, match="1 of 2 rows .*row 0, column 'rgb': unreadable image"):
        prepared(write_parquet("junk", **junk))


def test_pictures_are_checked_once_and_remembered(
    write_parquet: Callable[..., str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = write_parquet("train", **columns(3))
    opened = []
    read = checks.read_map
    monkeypatch.setattr(checks, "read_map", lambda value, **more: (opened.append(value), read(value, **more))[1])
    for expected in (9, 0):
        rows = prepared(path, cache=False).train
        assert len(opened) == expected and len(rows) == 3
        assert "train split: opening 9 pictures once" in caplog.text
        opened.clear()


def test_the_processor_is_measured_saved_and_taken_over(write_parquet: Callable[..., str], tmp_path: Path) -> None:
    raw = columns(6)
    path = write_parquet("train", **raw)
    options = {"depth": {"standardize": "dataset", "scale": 1 / 65535}, "rgb": {"standardize": "none"}}
    data = prepared(path, modality_options=options)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(v["bytes"]))) for v in raw["depth"]]) / 65535
    entry = data.processor.modalities["depth"]
    np.testing.assert_allclose([*entry["mean"], *entry["std"]], [pixels.mean(), pixels.std()], rtol=1e-4)
    data.processor.save_pretrained(tmp_path / "saved")
    loaded = load_processor(tmp_path / "saved")
    # A checkpoint's statistics hold; the size is the model's and the crops are the recipe's.
    larger = config(image_size=32)
    args = data_arguments("parquet", data_files=path, kind="multimodal", crop_fraction=0.5, input_column=ENCODER)
    again = prepare_data(args, larger, processor=loaded)
    assert again.processor.modalities == loaded.modalities and again.processor.image_size == [32, 32]
    assert batch_of(again)["inputs"]["depth"].shape == (6, 1, 32, 32) and again.processor.crop_fraction == 0.5
    changed = config(modalities={**MODALITIES, "semseg": {"kind": "categorical", "num_classes": 11, "stride": 2}})
    with pytest.raises(ValueError, match="does not fit the model's modality 'semseg'"):
        prepare_data(args, changed, processor=loaded)


def test_modalities_of_other_names_are_measured(write_parquet: Callable[..., str]) -> None:
    raw = columns(4)
    model = config(modalities={"rgb": MODALITIES["rgb"], "thermal": MODALITIES["depth"]})
    path = write_parquet("train", rgb=raw["rgb"], thermal=raw["depth"])
    values = batch_of(prepared(path, model=model))["inputs"]["thermal"]
    assert abs(values.mean()) < 1e-3 and abs(values.std() - 1) < 1e-2
    plain = prepared(path, model=model, modality_options={"thermal": {"standardize": "none"}})
    assert batch_of(plain)["inputs"]["thermal"].max() > 1000


def test_options_change_a_checkpoints_processor(
    write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_parquet("train", **columns(4))
    args = data_arguments("parquet", data_files=path, kind="multimodal")
    saved = prepare_data(args, config()).processor
    changed = {"depth": {"standardize": "dataset", "scale": 0.5}, "rgb": {"standardize": "dataset"}}
    with caplog.at_level(logging.INFO):
        data = prepare_data(dataclasses.replace(args, modality_options=changed), config(), processor=saved)
    assert "modality 'depth' gets {'standardize': 'dataset', 'scale': 0.5}" in caplog.text
    # What is given already holds, what is new is measured, and the checkpoint's own stays as it was.
    assert data.processor.modalities["rgb"] == saved.modalities["rgb"] and "modality 'rgb'" not in caplog.text
    depth = batch_of(data)["inputs"]["depth"]
    assert abs(depth.mean()) < 1e-3 and abs(depth.std() - 1) < 1e-2
    assert saved.modalities["depth"]["standardize"] == "robust"
    with pytest.raises(ValueError, match="modality_options: the model has no modality 'nonsense'"):
        prepare_data(dataclasses.replace(args, modality_options={"nonsense": {}}), config(), processor=saved)


def test_depth_labels_of_the_invalid_value_become_zero(write_parquet: Callable[..., str]) -> None:
    raw = columns(2)
    depth = np.full((16, 16), 2000, dtype=np.uint16)
    depth[:, :3], depth[:, 3] = 65535, 0
    path = write_parquet("train", **raw | {"far": [encoded(depth)] * 2})
    fields = {"task": "depth_estimation", "label_column": "far", "label_scale": 0.001}
    labels = batch_of(prepared(path, **fields, label_invalid_value=65535))["labels"][0].numpy()
    np.testing.assert_allclose(labels, np.where(np.arange(16) < 4, 0, 2.0) * np.ones((16, 1)), rtol=1e-6)
    with pytest.raises(ValueError, match="data.label_invalid_value is for task 'depth_estimation'"):
        data_arguments("scenes", kind="multimodal", label_invalid_value=0.0)


def test_pretraining_needs_a_column_for_every_modality(
    write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    args = data_arguments(
        "parquet", data_files=write_parquet("t", **columns(2)), kind="multimodal", input_column=ENCODER
    )
    with pytest.raises(ValueError, match="take 'semseg' out of model.modalities, or name its column"):
        prepare_data(args, config(), complete=True)
    prepare_data(dataclasses.replace(args, allow_missing=True), config(), complete=True)
    assert "take 'semseg' out of model.modalities" in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_column": {"thermal": "rgb"}}, "input_column: the model has no modality 'thermal'; .* 'semseg'"),
        ({"input_column": {"rgb": "picture"}}, "no column 'picture'"),
        ({"modality_options": {"thermal": {}}}, "modality_options: the model has no modality 'thermal'"),
        ({"modality_options": {"depth": {"colour": 1}}}, r"'depth' has the unknown fields \['colour'\]"),
        ({"label_column": "semseg", "task": "semantic_segmentation"}, "'semseg' is also an input .* read the answer"),
        ({"input_column": {"rgb": "rgb"}, "label_column": "rgb"}, "also an input column"),
        ({"input_column": ["rgb", "depth"]}, "kind 'multimodal' takes one column or {modality: column}, got"),
        ({"standardize": "sample"}, "unknown field data.standardize for kind 'multimodal', which 'series' and"),
        ({"label_names": ["a"]}, "data.label_names is for task 'semantic_segmentation'"),
        ({"kind": "image", "input_column": {"rgb": "rgb"}}, "kind 'image' takes one column, got {'rgb'"),
        (
            {"kind": "series", "input_column": "rgb", "augment": True},
            "data.augment for kind 'series', which",
        ),
        ({"kind": "image", "input_column": "rgb", "task": "depth_estimation"}, "needs kind 'multimodal', got 'image'"),
        ({"source": "multimodal_folder", "data_files": None}, "'multimodal_folder' needs data.data_dir"),
        ({"crop_scale": [0.0, 1.0]}, r"crop_scale\[0\]: expected a number in \(0, 1\], got 0.0"),
    ],
)
def test_recipes_that_cannot_be_are_named(
    write_parquet: Callable[..., str], fields: dict[str, Any], message: str
) -> None:
    path = write_parquet("train", **columns(2))
    with pytest.raises(ValueError, match=message):
        prepare_data(
            data_arguments(**{"source": "parquet", "data_files": path, "kind": "multimodal", **fields}), config()
        )


def test_bad_pictures_are_named_by_row_and_modality(write_parquet: Callable[..., str]) -> None:
    raw = columns(3)
    raw["semseg"][2] = encoded(np.full((16, 16), 30, dtype=np.uint8))
    with pytest.raises(ValueError, match="train split, row 2, .*: modality 'semseg': .* class 30, expected"):
        prepared(write_parquet("classes", **raw), cache=True)
    raw = columns(3)
    raw["depth"][1] = encoded(np.ones((16, 12), dtype=np.uint16))
    with pytest.raises(ValueError, match="train split, row 1, .*sizes differ between modalities: .*'depth': .16, 12"):
        list(prepared(write_parquet("sizes", **raw)).train)


def test_the_collator_refuses_what_a_model_must_not_see() -> None:
    collate = MultimodalCollator({"depth": "far", "semseg": "map"}, {"semseg": 3}, 255)
    row = {"inputs.depth": np.ones((1, 4, 4), np.float32), "inputs.semseg": np.array([[0, 255], [2, 1]]), "index": 5}
    assert set(collate([row, row])) == {"inputs", "index"}
    infinite = {**row, "inputs.depth": np.full((1, 4, 4), np.inf, np.float32)}
    with pytest.raises(ValueError, match="row 5, column 'far' has values that are not finite"):
        collate([row, infinite])
    with pytest.raises(ValueError, match=r"row 5, column 'map' holds the class 3, expected 0\.\.2 or 255"):
        collate([row, {**row, "inputs.semseg": np.array([[0, 3], [2, 1]])}])
    with pytest.raises(ValueError, match=r"column 'far' has shape \(1, 2, 2\), other rows of the batch \(1, 4, 4\)"):
        collate([row, {**row, "inputs.depth": np.ones((1, 2, 2), np.float32)}])
    absent = {**row, "presence.depth": np.int8(0), "presence.semseg": np.int8(0)}
    with pytest.raises(ValueError, match=r"row 5 has none of the modalities \['depth', 'semseg'\]"):
        collate([absent])
    with pytest.raises(ValueError, match="no rows"):
        collate([])
