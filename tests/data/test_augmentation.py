"""Augmented pictures: each change against its meaning, one geometry for all pictures of a row, draws that can be repeated."""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_multimodal import SCENES, columns, config, encoded

from hf_maskssl import MetaMAEConfig
from hf_maskssl.data import PreparedData, data_arguments, prepare_data
from hf_maskssl.data.augmentation.arguments import Augmentation, parse_augmentation
from hf_maskssl.data.augmentation.colours import blurred, draw_colours, enhanced, gray, solarized, with_hue
from hf_maskssl.data.augmentation.rand_augment import OPERATIONS, Operation, draw_rand_augment, moved
from hf_maskssl.data.augmentation.rows import FILL, RowChanges, draw_changes
from hf_maskssl.models.image_processing_multimae import MultiMAEImageProcessor
from hf_maskssl.models.image_processing_pictures import View, jittered_view

EVERYTHING: dict[str, Any] = {
    "three_augment": True,
    "color_jitter": [0.4, 0.4, 0.2, 0.1],
    "gray_probability": 0.2,
    "blur_probability": 0.5,
    "solarize_probability": 0.5,
    "rand_augment_magnitude": 9,
    "erasing_probability": 0.5,
}


def picture(seed: int = 0, size: tuple[int, int] = (24, 16)) -> Image.Image:
    """A smooth picture of bytes, width and height `size`."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BILINEAR)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.int64)


# Colours


def test_changes_of_colours_are_what_their_names_say() -> None:
    image = picture()
    whole = pixels(image)
    assert np.array_equal(pixels(solarized(image, 128)), np.where(whole < 128, whole, 255 - whole))
    grays = pixels(gray(image))
    luma = whole @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grays - luma[..., None]).max() <= 1
    for what in ("brightness", "contrast", "saturation", "sharpness"):
        assert np.abs(pixels(enhanced(image, what, 1.0)) - whole).max() <= 1, what
        assert np.abs(pixels(enhanced(image, what, 0.3)) - whole).max() > 5, what
    assert np.abs(pixels(enhanced(image, "brightness", 0.5)) - whole / 2).max() <= 1
    assert np.abs(pixels(enhanced(image, "saturation", 0.0)) - grays).max() <= 1
    red = Image.new("RGB", (2, 2), (200, 0, 0))
    assert np.abs(pixels(with_hue(red, 1 / 3))[0, 0] - [0, 200, 0]).max() <= 5
    assert np.abs(pixels(with_hue(red, 0.0)) - pixels(red)).max() <= 1
    assert pixels(blurred(image, 2.0)).std() < 0.9 * whole.std()


def test_every_colour_change_happens_as_often_as_it_should() -> None:
    draw = np.random.default_rng(0)
    rows = 400
    for fields, share in (
        ({"gray_probability": 0.3}, 0.3),
        ({"blur_probability": 0.7}, 0.7),
        ({"solarize_probability": 0.2}, 0.2),
        ({"color_jitter": 0.4, "color_jitter_probability": 0.5}, 0.5),
        ({"three_augment": True}, 1.0),
    ):
        counts = [len(draw_colours(Augmentation(**fields), draw)) > 0 for _ in range(rows)]  # type: ignore[arg-type]
        assert abs(np.mean(counts) - share) < 0.08, fields
    assert not draw_colours(Augmentation(), draw) and not draw_rand_augment(Augmentation(), draw)


def test_jitter_stays_within_its_bounds_and_takes_every_order() -> None:
    draw = np.random.default_rng(0)
    middle = Image.new("RGB", (2, 2), (100, 100, 100))
    found = []
    for _ in range(200):
        (change,) = draw_colours(Augmentation(color_jitter=[0.4, 0.0, 0.0, 0.0]), draw)
        found.append(pixels(change(middle))[0, 0, 0] / 100)
    assert 0.6 <= min(found) < 0.65 and 1.35 < max(found) <= 1.4
    image, results = picture(), set()
    for _ in range(60):
        result = image
        for change in draw_colours(Augmentation(color_jitter=0.5), draw):
            result = change(result)
        results.add(result.tobytes())
    assert len(results) == 60


# RandAugment


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_of_rand_augment(name: str) -> None:
    """At magnitude 0 a change that grows is none; at any other each changes the picture and keeps its size."""
    image = picture()
    for share, sign in ((0.0, 1.0), (0.5, 1.0), (1.0, -1.0)):
        operation = OPERATIONS[name](share, sign)
        changed = RowChanges((operation,)).colours(image)
        assert changed.size == image.size and changed.mode == "RGB"
        difference = np.abs(pixels(changed) - pixels(image))
        if share == 0.0 and name not in ("auto_contrast", "equalize", "invert", "posterize", "solarize"):
            assert difference.max() <= 1
        elif share:
            assert difference.max() > 3
        assert (operation.places is not None) == (name.split("_")[0] in ("rotate", "shear", "translate"))


def test_operations_are_drawn_evenly_around_their_magnitude() -> None:
    draw = np.random.default_rng(0)
    entries = Augmentation(rand_augment_magnitude=9, rand_augment_operations=3)
    counts = [len(draw_rand_augment(entries, draw)) for _ in range(400)]
    assert abs(np.mean(counts) - 1.5) < 0.15 and set(counts) == {0, 1, 2, 3}
    always = dataclasses.replace(entries, rand_augment_probability=1.0, rand_augment_std=0.0)
    shifts = []
    for _ in range(300):
        for operation in draw_rand_augment(always, draw):
            if operation.places is not None and operation.places(100, 10)[:2] == (1, 0):
                shifts.append(operation.places(100, 10)[2])
    assert {round(abs(shift), 6) for shift in shifts if shift} == {40.5} and min(shifts) < 0 < max(shifts)


def test_places_are_those_of_a_slow_loop() -> None:
    """A pixel shows what the affine map of its middle says; what lies outside is filled."""
    image = picture(size=(9, 7))
    for name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y"):
        places = OPERATIONS[name](0.7, -1.0).places
        assert places is not None
        a, b, c, d, e, f = places(9, 7)
        found = pixels(moved(image, places, (1, 2, 3), smooth=False))
        for row in range(7):
            for column in range(9):
                x, y = column + 0.5, row + 0.5
                x, y = a * x + b * y + c, d * x + e * y + f
                inside = 0 <= x < 9 and 0 <= y < 7
                expected = pixels(image)[int(y), int(x)] if inside else [1, 2, 3]
                assert np.array_equal(found[row, column], expected), (name, row, column)


def test_all_pictures_of_a_row_move_alike() -> None:
    classes = np.random.default_rng(1).integers(0, 4, (5, 7)).repeat(16, axis=0).repeat(16, axis=1)
    changes = RowChanges(tuple(OPERATIONS[name](0.6, 1.0) for name in ("rotate", "invert", "shear_x", "translate_y")))
    moved_classes = changes.classes(classes, 255)
    values = changes.values(np.stack([classes, 10 * classes]).astype(np.float32))
    is_there = moved_classes != 255
    assert 0.3 < is_there.mean() < 1
    assert np.array_equal(np.isnan(values), np.broadcast_to(~is_there, values.shape))
    assert np.array_equal(values[:, is_there], np.stack([moved_classes, 10 * moved_classes])[:, is_there])
    colours = Image.fromarray(np.repeat(60 * classes[..., None], 3, axis=2).astype(np.uint8))
    shown = pixels(changes.colours(colours))[..., 0]
    inverted = 255 - 60 * moved_classes
    # Interpolated colours are those of the class but at its edges.
    assert (np.abs(shown - inverted)[is_there] <= 1).mean() > 0.6
    assert np.array_equal(changes.values(values)[:, :1].shape, values[:, :1].shape)


# Erasing


def test_erasing_fills_one_rectangle_with_noise() -> None:
    draw = np.random.default_rng(0)
    entries = Augmentation(erasing_probability=0.6)
    shares = []
    for row in range(200):
        changes = draw_changes(entries, np.random.default_rng(row))
        values = np.full((3, 32, 48), 7.0, dtype=np.float32)
        erased = changes.erase(values)
        assert np.array_equal(changes.erase(values), erased) and (values == 7).all()
        where = (erased != 7).all(axis=0)
        assert np.array_equal(where, (erased != 7).any(axis=0))
        if where.any():
            rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
            assert where.sum() == len(rows) * len(columns) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            shares.append(where.mean())
            if where.sum() > 200:
                assert abs(erased[:, where].mean()) < 0.3 and 0.8 < erased[:, where].std() < 1.2
    assert 0.5 < len(shares) / 200 < 0.7 and 0.015 < min(shares) and max(shares) < 0.36
    assert draw_changes(Augmentation(), draw).operations == ()


# Large-scale jittering


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_jittered_view_pads_or_crops(flip: float) -> None:
    size, target = (40, 80), (16, 16)
    for seed in range(40):
        view = jittered_view(size, target, [0.1, 2.0], flip, np.random.default_rng(seed))
        factor = 80 / view.width
        assert (
            view.height == view.width and 0.099 <= factor <= 2.05 and view.is_padded and view.is_flipped == bool(flip)
        )
        if factor <= 1:
            assert (view.top, view.left) == (0, 0)
        else:
            assert view.left + view.width <= 80 and (view.top == 0 or view.top + view.height <= 40)


@pytest.mark.parametrize("is_flipped", [False, True])
def test_padding_is_not_observed_and_has_no_label(is_flipped: bool) -> None:
    """A picture of half the size in the corner: colours, depth, classes at half the resolution, and every kind of label."""
    modalities = {
        "rgb": {"kind": "continuous", "num_channels": 3},
        "depth": {"kind": "continuous", "num_channels": 1, "standardize": "none"},
        "semseg": {"kind": "categorical", "num_classes": 9, "stride": 2},
    }
    processor = MultiMAEImageProcessor(modalities, 16)
    depth = np.arange(1, 129, dtype=np.float32).reshape(8, 16)
    rows: dict[str, Any] = {"rgb": np.asarray(picture(size=(16, 8))), "depth": depth, "semseg": (depth % 9)[::2, ::2]}
    labels = {"classes": depth.astype(np.int64), "depth": depth, "values": np.stack([depth, -depth])}
    view = View(0, 0, 32, 32, is_flipped, is_padded=True)
    inputs, maps = processor.prepare_row(rows, view, None, labels, np.nan)
    corner = (slice(None, 4), slice(8, None) if is_flipped else slice(None, 8))
    inside = np.zeros((16, 16), dtype=bool)
    inside[corner] = True
    assert np.array_equal(np.isfinite(inputs["rgb"]).all(axis=0), inside)
    assert np.array_equal(np.isfinite(inputs["depth"][0]), inside)
    assert np.array_equal(inputs["semseg"] != 255, inside[::2, ::2])
    assert np.array_equal(maps["classes"] != 255, inside) and np.array_equal(maps["depth"] > 0, inside)
    assert np.array_equal(np.isfinite(maps["values"]).all(axis=0), inside)
    # What is there is what a view without padding shows, at half the size.
    small = MultiMAEImageProcessor(modalities, (4, 8)).prepare_row(
        rows, View(0, 0, 8, 16, is_flipped), None, labels, np.nan
    )
    for name in ("rgb", "depth", "semseg"):
        own = corner if name != "semseg" else (slice(None, 2), slice(4, None) if is_flipped else slice(None, 4))
        np.testing.assert_array_equal(inputs[name][..., own[0], own[1]], small[0][name])
    for name, values in small[1].items():
        np.testing.assert_array_equal(maps[name][..., corner[0], corner[1]], values)
    with pytest.raises(ValueError, match="does not lie inside"):
        processor.prepare_row(rows, View(0, 0, 32, 32), None)


def test_rows_of_scenes_are_jittered(tmp_path: Path) -> None:
    fields = {
        "task": "semantic_segmentation",
        "label_column": "semseg",
        "input_column": {"rgb": "rgb", "depth": "depth"},
    }
    args = data_arguments("scenes", **SCENES, **fields, augment=True, augmentation={"large_scale_jitter": [0.1, 2.0]})
    data = prepare_data(args, config())
    batch = data.collator([data.train[row] for row in range(12)])
    observed = batch["observed_mask"]["rgb"]
    assert 0 < observed.float().mean() < 1
    is_padding = ~observed.all(dim=1)
    assert (batch["labels"][is_padding] == 255).all() and (batch["labels"] != 255).any()
    test: Any = data.test
    assert "observed_mask" not in data.collator([test[0]])  # scored whole
    assert data.processor.to_dict()["large_scale_jitter"] == [0.1, 2.0]  # type: ignore[union-attr]


# Rows


def images(write_parquet: Callable[..., str], **fields: Any) -> PreparedData:
    raw = columns(6)
    raw["rgb"] = [encoded(np.asarray(picture(number, (20, 18)))) for number in range(6)]
    path = write_parquet("train", image=raw["rgb"], label=raw["label"])
    model = MetaMAEConfig(modality="image", image_size=[12, 16], num_channels=3, patch_size=[2, 2], hidden_size=8)
    sections: dict[str, Any] = {
        "kind": "image",
        "input_column": "image",
        "label_column": "label",
        "test_split": "train",
    }
    return prepare_data(data_arguments("parquet", data_files=path, **sections, **fields), model)


def aligned(write_parquet: Callable[..., str], **fields: Any) -> PreparedData:
    path = write_parquet("train", **columns(6))
    sections: dict[str, Any] = {"kind": "multimodal", "label_column": "label", "test_split": "train"}
    return prepare_data(data_arguments("parquet", data_files=path, **sections, **fields), config())


def values_of(data: PreparedData, split: str = "train") -> torch.Tensor:
    rows = getattr(data, split)
    batch = data.collator([rows[row] for row in range(6)])
    return batch["pixel_values"] if "pixel_values" in batch else batch["inputs"]["rgb"]


@pytest.mark.parametrize("make", [images, aligned])
def test_draws_depend_on_seed_epoch_row_and_run_alone(make: Any, write_parquet: Callable[..., str]) -> None:
    data = make(write_parquet, augment=True, augmentation=EVERYTHING)
    first = values_of(data)
    assert torch.equal(first, values_of(data)) and first.isfinite().all()
    again = make(write_parquet, augment=True, augmentation=EVERYTHING)
    assert torch.equal(first, values_of(again))
    for epoch, seed in ((1, None), (0, 5)):
        again.train.set_epoch(epoch, seed)
        other = values_of(again)
        assert not any(torch.equal(row, former) for row, former in zip(other, first, strict=True))
    again.train.set_epoch(0, 0)
    assert torch.equal(first, values_of(again))
    plain = make(write_parquet)
    assert torch.equal(values_of(data, "test"), values_of(plain, "test"))  # scored as they are
    assert not torch.equal(first, values_of(plain))


def test_crops_of_images_are_those_of_the_view(write_parquet: Callable[..., str]) -> None:
    """Whole and never mirrored: nothing changes; always mirrored: the mirror image; small crops show little of it."""
    plain = values_of(images(write_parquet))
    views = {"crop_scale": [1.0, 1.0], "crop_ratio": [0.8333333, 0.8333334]}  # the pictures' own, 20 x 18 in 16 x 12
    whole = values_of(images(write_parquet, augment=True, flip_probability=0.0, **views))
    torch.testing.assert_close(whole, plain)
    mirrored = values_of(images(write_parquet, augment=True, flip_probability=1.0, **views))
    torch.testing.assert_close(mirrored, plain.flip(-1), atol=0.02, rtol=0)  # Pillow rounds bytes
    small = values_of(images(write_parquet, augment=True, crop_scale=[0.05, 0.1]))
    assert small.flatten(2).std(dim=2).mean() < 0.7 * plain.flatten(2).std(dim=2).mean()


def test_colours_need_bytes_in_three_channels(write_parquet: Callable[..., str]) -> None:
    model = MetaMAEConfig(modality="image", image_size=[8, 8], num_channels=2, patch_size=[2, 2], hidden_size=8)
    bands = [np.random.default_rng(row).random((8, 8, 2)).tolist() for row in range(6)]
    path = write_parquet("train", image=bands)
    fields: dict[str, Any] = {"data_files": path, "kind": "image", "input_column": "image", "augment": True}
    data: Any = prepare_data(data_arguments("parquet", **fields, augmentation={"erasing_probability": 1.0}), model)
    assert np.isfinite(data.train[0]["pixel_values"]).all()
    data = prepare_data(data_arguments("parquet", **fields, augmentation={"three_augment": True}), model)
    with pytest.raises(
        ValueError, match=r"row 0, column 'image': colours are changed in pictures of bytes in 3 channels"
    ):
        data.train[0]


def test_values_to_learn_are_cut_moved_and_scaled(write_parquet: Callable[..., str]) -> None:
    """Normals in bytes, two of three channels, a hole, a clip and a mirror."""
    raw = columns(3)
    normals = np.random.default_rng(3).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    normals[0, 0] = 128
    raw["normal"] = [encoded(normals)] * 3
    path = write_parquet("train", **raw)
    fields: dict[str, Any] = {
        "data_files": path,
        "kind": "multimodal",
        "input_column": {"rgb": "rgb"},
        "label_column": "normal",
        "task": "dense_regression",
        "label_scale": 1 / 255,
        "label_invalid_value": 128,
    }
    data: Any = prepare_data(data_arguments("parquet", **fields), config())
    labels = data.train[0]["labels"]
    assert data.num_labels == 3 and labels.shape == (3, 16, 16) and labels.dtype == np.float32
    expected = np.moveaxis(normals, -1, 0) / 255
    assert np.isnan(labels[:, 0, 0]).all() and np.isfinite(labels).sum() == 3 * 255
    np.testing.assert_allclose(labels[:, 1:], expected[:, 1:], rtol=1e-6)
    two: Any = prepare_data(data_arguments("parquet", **fields, label_channels=2, label_clip=[0.25, 0.5]), config())
    assert two.num_labels == 2 and two.train[0]["labels"].shape == (2, 16, 16)
    np.testing.assert_allclose(two.train[0]["labels"][:, 1:], expected[:2, 1:].clip(0.25, 0.5), rtol=1e-6)
    views: dict[str, Any] = {
        "augment": True,
        "flip_probability": 1.0,
        "crop_scale": [1.0, 1.0],
        "crop_ratio": [1.0, 1.0],
    }
    mirrored: Any = prepare_data(data_arguments("parquet", **fields, **views, label_flips_x=True), config())
    assert np.isnan(mirrored.train[0]["labels"][:, 0, -1]).all()  # what is not known stays so
    found = mirrored.train[0]["labels"][:, 1:]
    np.testing.assert_allclose(found[1:], expected[1:, 1:, ::-1], rtol=1e-6)
    np.testing.assert_allclose(found[0], 1 - expected[0, 1:, ::-1], atol=1e-6)
    with pytest.raises(ValueError, match=r"row 0, .*the map 'normal' has 3 channels, expected 4"):
        prepare_data(data_arguments("parquet", **fields, label_channels=4), config()).train[0]  # type: ignore[index]


def test_rand_augment_turns_no_input_of_directions(write_parquet: Callable[..., str]) -> None:
    pictures = columns(3)
    path = write_parquet("train", rgb=pictures["rgb"], normals=pictures["rgb"])
    shared = {"data_files": path, "kind": "multimodal", "augment": True}
    shared |= {"input_column": {"rgb": "rgb", "normals": "normals"}}
    turns = {"rand_augment_magnitude": 9}
    normals = {"kind": "continuous", "num_channels": 3, "stride": 1}
    both = config(modalities={"rgb": normals, "normals": normals})
    with pytest.raises(ValueError, match=r"the modalities \['normals'\] hold \(flips_x\): leave RandAugment out"):
        prepare_data(data_arguments("parquet", **shared, augmentation=turns), both)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"gray": 0.2}, "unknown entry 'gray'.*gray_probability"),
        ({"gray_probability": 1.5}, r"data.augmentation.gray_probability: expected a number in \[0, 1\], got 1.5"),
        ({"gray_probability": "often"}, "data.augmentation.gray_probability: expected float, got 'often'"),
        ({"color_jitter": [0.4, 0.4]}, "data.augmentation.color_jitter: expected one number, or one each"),
        ({"color_jitter": [0.4, 0.4, 0.4, 0.6]}, "at most 0.5"),
        ({"blur_sigma": [2.0, 0.1]}, "data.augmentation.blur_sigma: expected two numbers, the lower first"),
        ({"rand_augment_magnitude": 11}, "data.augmentation.rand_augment_magnitude: expected"),
        ({"large_scale_jitter": [0.1, 2.0]}, "large_scale_jitter is for data.kind 'multimodal'"),
    ],
)
def test_refused_entries(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data_arguments("x", kind="image", input_column="image", augment=True, augmentation=entries)


def test_entries_without_augment_or_of_directions_are_refused() -> None:
    for kind, named in (("image", "a"), ("multimodal", {"rgb": "a"})):
        with pytest.raises(ValueError, match="only with data.augment: set it to true"):
            data_arguments("x", kind=kind, input_column=named, augmentation={"three_augment": True})
    fields: dict[str, Any] = {
        "kind": "multimodal",
        "task": "dense_regression",
        "label_column": "normal",
        "augment": True,
    }
    with pytest.raises(ValueError, match="turns pictures, but not the directions"):
        data_arguments("x", **fields, label_flips_x=True, augmentation={"rand_augment_magnitude": 9})
    with pytest.raises(ValueError, match=r"data.label_clip: expected the lowest and the highest value"):
        data_arguments("x", **fields, label_clip=[1.0, 0.0])
    assert parse_augmentation(None, False, True) == Augmentation() and not Augmentation().changes_rows


def test_fill_is_the_mean_colour() -> None:
    outside = Operation(places=lambda width, height: (1, 0, 1000, 0, 1, 0))
    assert pixels(RowChanges((outside,)).colours(picture()))[3, 3].tolist() == list(FILL)
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")  # pictures of files are read as such
    assert buffer.getvalue()
