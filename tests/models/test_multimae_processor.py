"""The processor of aligned pictures: values, alignment, file modes, errors, and loading it with and without this package."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, pipeline

from hf_maskssl.models.image_processing_multimae import (
    MultiMAEImageProcessor,
    View,
    _warn_once,
    robustly_standardized,
)

RGB = {"kind": "continuous", "num_channels": 3}
PLAIN = {"kind": "continuous", "num_channels": 1}
MODALITIES: dict[str, dict[str, Any]] = {
    "rgb": RGB,
    "depth": {**PLAIN, "loss": "l1", "patch_size": 8},
    "semseg": {"kind": "categorical", "num_classes": 7, "stride": 2, "embedding_size": 4},
    "heat": {**PLAIN, "resample": "nearest"},
    "norm_rgb": {"target_of": "rgb", "loss": "standardized_mse"},
}


def processor(size: Any = (8, 12), modalities: Any = None, **fields: Any) -> MultiMAEImageProcessor:
    return MultiMAEImageProcessor(modalities or MODALITIES, size, **fields)


def sample(height: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "rgb": generator.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "depth": generator.uniform(1, 5, (height, width)),
        "semseg": generator.integers(0, 7, (height, width)),
        "heat": generator.normal(size=(height, width)),
    }


def test_values_of_each_kind_and_shapes_beside_each_other() -> None:
    raw = sample(8, 12)
    inputs = processor()({name: [value] for name, value in raw.items()}, return_tensors="pt")["inputs"]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(inputs["rgb"][0], ((raw["rgb"] / 255 - mean) / std).transpose(2, 0, 1), atol=1e-5)
    np.testing.assert_array_equal(inputs["heat"][0, 0], raw["heat"].astype(np.float32))
    # Class maps: the pixel under the centre of each coarser one.
    np.testing.assert_array_equal(inputs["semseg"][0], raw["semseg"][1::2, 1::2])
    assert inputs["semseg"].dtype == torch.int64 and inputs["depth"].dtype == torch.float32
    ordered = np.sort(raw["depth"].ravel())[9:86]
    np.testing.assert_allclose(
        inputs["depth"][0, 0], (raw["depth"] - ordered.mean()) / np.sqrt(ordered.var(ddof=1) + 1e-6), rtol=1e-4
    )


def test_robust_standardisation_is_the_authors(shared_golden: Any) -> None:
    golden = shared_golden("multimae_losses")
    maps = np.asarray(golden["input.depth_raw"])
    result = [robustly_standardized(one, np.ones(one.shape[1:], dtype=bool)) for one in maps]
    np.testing.assert_allclose(result, golden["depth_standardized"], atol=1e-5)


def test_invalid_pixels_stay_out_of_statistics_and_become_zero() -> None:
    depth = np.random.default_rng(0).uniform(1, 5, (6, 10)).astype(np.float32)
    holes = np.zeros((6, 10), dtype=bool)
    holes[:, 3] = holes[2] = True
    rest = np.sort(depth[~holes])[int(0.1 * 45) : int(0.9 * 45)]
    expected = (depth - rest.mean()) / np.sqrt(rest.var(ddof=1) + 1e-6)
    for mark, option in ((0.0, 0), (np.nan, "nan"), (np.inf, "nan")):
        one = processor((6, 10), {"depth": {**PLAIN, "invalid_value": option}})
        result = one({"depth": np.where(holes, np.float32(mark), depth)}, return_tensors="np")["inputs"]["depth"][0, 0]
        np.testing.assert_allclose(result[~holes], expected[~holes], rtol=1e-4, atol=1e-6)
        assert (result[holes] == 0).all()
    # Resizing never mixes them in: a constant map with holes stays constant.
    raw = {**PLAIN, "standardize": "none", "invalid_value": 0}
    constant = np.where(holes, 0.0, 4.0)
    resized = processor((9, 7), {"depth": raw})({"depth": constant}, return_tensors="np")["inputs"]["depth"]
    assert set(np.unique(resized.round(4))) == {0.0, 4.0}
    empty = processor((6, 10), {"depth": {**PLAIN, "invalid_value": 0}})(
        {"depth": np.zeros((6, 10))}, return_tensors="np"
    )
    assert (empty["inputs"]["depth"] == 0).all()


def test_crop_and_flip_are_the_same_for_all_pictures_and_maps() -> None:
    """All pictures carry one pattern, 8-pixel squares of distinct values; whatever is cut and mirrored, they agree."""
    values = np.arange(1, 37).reshape(6, 6).repeat(8, axis=0).repeat(8, axis=1)
    same = {"standardize": "none", "resample": "nearest"}
    entries = {
        "rgb": {**RGB, **same, "scale": 1.0},
        "far": {**PLAIN, **same},
        "classes": {"kind": "categorical", "num_classes": 40},
        "coarse": {"kind": "categorical", "num_classes": 40, "stride": 2},
        "half": {"kind": "categorical", "num_classes": 40, "stride": 2},
    }
    one = processor((24, 24), entries)
    pictures = {
        "rgb": Image.fromarray(np.repeat(values[..., None], 3, axis=2).astype(np.uint8)),
        "far": values.astype(np.float64),
        "classes": Image.fromarray(values.astype(np.uint8)),
        "coarse": values,
        # Stored at the modality's own resolution.
        "half": values[::2, ::2],
    }
    generator = np.random.default_rng(0)
    flips = []
    for _ in range(20):
        view = one.random_view((48, 48), generator)
        flips.append(view.is_flipped)
        inputs, labels = one.prepare_row(pictures, view, labels={"classes": values, "depth": values * 1.0})
        cut = values[view.top : view.top + view.height, view.left : view.left + view.width]
        cut = cut[:, ::-1] if view.is_flipped else cut
        rows = ((np.arange(24) + 0.5) * view.height / 24).astype(int)
        columns = ((np.arange(24) + 0.5) * view.width / 24).astype(int)
        columns = (
            view.width - 1 - ((23 - np.arange(24) + 0.5) * view.width / 24).astype(int) if view.is_flipped else columns
        )
        np.testing.assert_array_equal(inputs["classes"], cut[rows[:, None], columns])
        for other in (*inputs["rgb"], inputs["far"][0], labels["classes"], labels["depth"]):
            assert (other == inputs["classes"]).mean() > 0.98  # Pillow rounds half-way centres its own way
        np.testing.assert_array_equal(inputs["coarse"], inputs["half"])
    assert 4 < sum(flips) < 16


def test_random_views_have_the_sizes_asked_for_and_can_be_repeated() -> None:
    one = processor((32, 64), crop_scale=(0.25, 0.5), crop_ratio=(0.8, 1.25), flip_probability=0.0)
    views = [one.random_view((100, 220), np.random.default_rng(seed)) for seed in range(200)]
    shares = np.array([view.height * view.width / 22000 for view in views])
    ratios = np.array([view.width / view.height / 2 for view in views])
    assert (shares > 0.24).all() and (shares < 0.51).all() and shares.std() > 0.05
    assert (ratios > 0.77).all() and (ratios < 1.3).all() and ratios.std() > 0.08
    assert len({(view.top, view.left) for view in views}) > 150 and not any(view.is_flipped for view in views)
    raw = sample(20, 40)
    draws = [
        one(raw, augment=True, generator=np.random.default_rng(s), return_tensors="pt")["inputs"] for s in (1, 1, 2)
    ]
    assert all(torch.equal(draws[0][name], draws[1][name]) for name in raw)
    assert not torch.equal(draws[0]["rgb"], draws[2]["rgb"])
    # No box of such a shape fits into a thin picture: the middle of it.
    assert one.random_view((10, 400), np.random.default_rng(0)) == View(0, 190, 10, 20)


def test_the_middle_is_cut_out_where_asked() -> None:
    assert processor((8, 12)).fixed_view((100, 50)) == View(0, 0, 100, 50)
    assert processor((8, 12), crop_fraction=1.0).fixed_view((100, 48)) == View(34, 0, 32, 48)
    assert processor((8, 8), crop_fraction=0.5).fixed_view((100, 48)) == View(38, 12, 24, 24)


def test_a_flip_turns_the_sign_of_normals() -> None:
    normals = np.random.default_rng(0).normal(size=(3, 8, 12)).astype(np.float32)
    plain = {**RGB, "scale": 1.0, "standardize": "none"}
    one = processor((8, 12), {"normals": plain, "other": RGB})
    given = {"normals": normals, "other": normals}
    flipped = one.prepare_row(given, View(0, 0, 8, 12, is_flipped=True))[0]
    np.testing.assert_array_equal(flipped["other"], normals[..., ::-1])
    np.testing.assert_array_equal(flipped["normals"], normals[..., ::-1] * np.float32([-1, 1, 1])[:, None, None])


def test_a_flip_turns_bytes_about_their_middle() -> None:
    """Whatever is subtracted afterwards."""
    normals = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    one = processor((8, 12), {"normals": {**RGB, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}})
    flipped = one.prepare_row({"normals": normals}, View(0, 0, 8, 12, is_flipped=True))[0]["normals"]
    mirrored = normals[:, ::-1].copy()
    mirrored[..., 0] = 255 - mirrored[..., 0]
    np.testing.assert_allclose(flipped, one.prepare_row({"normals": mirrored})[0]["normals"], atol=1e-5)


def test_sensor_depth_has_holes_unless_told_otherwise() -> None:
    depth = np.random.default_rng(0).integers(1, 60000, (8, 12)).astype(np.uint16)
    depth[2:4] = 0
    values = {}
    for name, fields in (("default", {}), ("given", {"invalid_value": 0}), ("none", {"invalid_value": None})):
        one = processor((8, 12), {"depth": {**PLAIN, **fields}})
        values[name] = one({"depth": depth}, return_tensors="np")["inputs"]["depth"][0, 0]
    assert (values["default"][2:4] == 0).all() and (values["none"][2:4] < -1).all()
    np.testing.assert_array_equal(values["default"], values["given"])


def test_batches_of_maps_may_be_one_array() -> None:
    raw = [sample(8, 12, seed) for seed in range(3)]
    one = processor()
    for kind in (np.stack, lambda maps: torch.from_numpy(np.stack(maps))):
        stacked = {name: kind([each[name] for each in raw]) for name in raw[0]}
        found = one(stacked, return_tensors="np")["inputs"]
        for row, each in enumerate(raw):
            for name, values in one(each, return_tensors="np")["inputs"].items():
                np.testing.assert_array_equal(found[name][row], values[0])


def test_numbers_scaled_twice_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    _warn_once.cache_clear()
    pixels = np.random.default_rng(0).random((8, 12, 3))
    one = processor((8, 12), {"rgb": RGB})
    for picture in (pixels * 255, (pixels * 2).astype(np.uint8), np.zeros((8, 12, 3))):
        one([picture])
    assert not caplog.records
    one([pixels, pixels])
    (record,) = caplog.records
    assert "modality 'rgb': pictures in 0..1 are multiplied" in record.getMessage()


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float64, Image.fromarray])
def test_class_ids_out_of_range_are_found_where_they_are_used(kind: Any) -> None:
    """And named by their place in the whole picture, mirrored or not; -1 of signed types as well."""
    ids = np.full((20, 30), 3, dtype=np.uint8)
    ids[:, 0] = ids[15] = 7
    ids[9, 20] = 255
    picture = kind(ids)
    one = processor((8, 12), {"classes": {"kind": "categorical", "num_classes": 7}})
    for is_flipped in (False, True):
        inside = one.prepare_row({"classes": picture}, View(4, 10, 8, 12, is_flipped))[0]["classes"]
        expected = ids[4:12, 10:22].astype(np.int64)
        np.testing.assert_array_equal(inside, expected[:, ::-1] if is_flipped else expected)
        assert inside.dtype == np.int64
        with pytest.raises(ValueError, match=r"pixel row 15, column (10|21) has the class 7, expected 0\.\.6"):
            one.prepare_row({"classes": picture}, View(8, 10, 8, 12, is_flipped))
    if kind in (np.int64, np.float64):
        signed = kind(ids)
        signed[5, 12] = -1
        with pytest.raises(ValueError, match="pixel row 5, column 12 has the class -1"):
            one.prepare_row({"classes": signed}, View(4, 10, 8, 12))


def test_pil_images_and_their_arrays_give_the_same_bits_in_every_view() -> None:
    raw = sample(37, 53)
    deep = np.random.default_rng(3).integers(0, 60000, (37, 53)).astype(np.uint16)
    arrays = {"rgb": raw["rgb"], "depth": deep, "semseg": raw["semseg"].astype(np.uint8)}
    images = {name: Image.fromarray(values) for name, values in arrays.items()}
    one = processor((24, 32))
    for seed in range(8):
        ours, theirs = (one.prepare_row(row, generator=np.random.default_rng(seed))[0] for row in (images, arrays))
        for name, values in ours.items():
            np.testing.assert_array_equal(values, theirs[name])
            assert values.flags.writeable and values.flags.c_contiguous


def test_a_cropped_row_follows_the_formula_step_by_step() -> None:
    """Bytes by Pillow, mirrored, scaled, standardised; depth as the mean of its valid pixels, with float64 statistics."""
    generator = np.random.default_rng(5)
    rgb = generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    depth = generator.integers(1, 60000, (40, 56)).astype(np.uint16)
    depth[generator.random((40, 56)) < 0.1] = 0
    one, box = processor((24, 32)), (7, 5, 50, 36)
    result = one.prepare_row({"rgb": Image.fromarray(rgb), "depth": Image.fromarray(depth)}, View(5, 7, 31, 43, True))[
        0
    ]
    seen = np.asarray(Image.fromarray(rgb).resize((32, 24), Image.Resampling.BILINEAR, box=box), dtype=np.float32)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    expected = (seen[:, ::-1] * np.float32(1 / 255) - mean) / std
    np.testing.assert_array_equal(result["rgb"], expected.transpose(2, 0, 1))

    def plane(values: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(values.astype(np.float32))
        return np.asarray(picture.resize((32, 24), Image.Resampling.BILINEAR, box=box))[:, ::-1]

    share, total = plane(depth > 0), plane(depth)
    shown = share > 0.5
    values = total / np.where(shown, share, 1)
    ordered = np.sort(values[shown].astype(np.float64))
    kept = ordered[int(0.1 * ordered.size) : int(0.9 * ordered.size)]
    standardised = np.where(shown, (values - kept.mean()) / np.sqrt(kept.var(ddof=1) + 1e-6), 0.0)
    np.testing.assert_allclose(result["depth"][0], standardised, rtol=1e-6, atol=1e-6)
    assert 0 < shown.mean() < 1


def files() -> list[tuple[str, Any, np.ndarray]]:
    """(modality, picture, values) of every mode that files come in."""
    deep = np.random.default_rng(0).integers(0, 65536, (8, 12)).astype(np.uint16)
    ids = np.random.default_rng(1).integers(0, 7, (8, 12)).astype(np.uint8)
    palette = Image.frombytes("P", (12, 8), ids.tobytes())
    palette.putpalette([200, 10, 10, 10, 200, 10] + [5] * 762)
    return [
        ("heat", Image.fromarray(deep), deep),
        ("heat", Image.fromarray(ids), ids),
        ("heat", Image.fromarray(deep.astype(np.int32)), deep),
        ("heat", Image.fromarray(deep / np.float32(7)), deep / np.float32(7)),
        ("heat", deep, deep),
        ("heat", torch.from_numpy(deep.astype(np.float32))[None], deep),
        ("classes", Image.fromarray(ids), ids),
        ("classes", palette, ids),
        ("classes", Image.fromarray(ids.astype(np.uint16)), ids),
        ("classes", Image.fromarray(ids > 3), ids > 3),
        ("classes", ids.astype(np.float64), ids),
    ]


@pytest.mark.parametrize(("name", "picture", "values"), files())
def test_every_mode_of_file_keeps_its_values(name: str, picture: Any, values: np.ndarray) -> None:
    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        picture.save(buffer, "TIFF" if picture.mode in ("I", "F") else "PNG")
        picture = Image.open(buffer)
    one = processor((8, 12), {"heat": PLAIN, "classes": {"kind": "categorical", "num_classes": 7}})
    result = one({name: picture}, return_tensors="np")["inputs"][name]
    np.testing.assert_array_equal(result.reshape(8, 12), values.astype(result.dtype))


def test_pictures_of_other_modes_become_rgb() -> None:
    grey = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12))
    one = processor((8, 12), {"rgb": {**RGB, "standardize": "none"}})
    for picture in (grey, grey.convert("RGBA"), grey.convert("P")):
        values = one([picture], return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(values[0], np.stack([np.asarray(grey) / 255] * 3), rtol=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"thermal": np.ones((8, 12))}, r"row 0: modality 'thermal' is unknown: expected one of \['rgb', 'depth'"),
        ({"depth": [np.ones((8, 12)), np.full((8, 12), np.nan)]}, r"row 1: modality 'depth': pixel row 0, .* \[nan\]"),
        (
            {"semseg": np.full((8, 12), 7)},
            r"modality 'semseg': pixel row 1, column 1 has the class 7, expected 0\.\.6",
        ),
        ({"semseg": np.full((8, 12), 1.5)}, "modality 'semseg': expected whole numbers"),
        ({"semseg": Image.new("RGB", (12, 8))}, "modality 'semseg': expected a class map .* mode RGB"),
        ({"depth": Image.new("RGB", (12, 8))}, "modality 'depth': expected 1 channel .* mode RGB"),
        ({"rgb": Image.new("F", (12, 8))}, "modality 'rgb': expected 3 channels .* mode F"),
        ({"rgb": np.ones((4, 8, 12))}, r"modality 'rgb': expected 3 channels, got an array \(4, 8, 12\)"),
        (
            {"rgb": np.ones((8, 12, 3)), "depth": np.ones((8, 11))},
            "sizes differ between modalities: .*'depth' has stride",
        ),
        (
            {"rgb": np.ones((2, 8, 12, 3)), "depth": np.ones((8, 12))},
            "equally many pictures .* {'rgb': 2, 'depth': 1}",
        ),
        ([], "at least one"),
        ("picture.png", "modality 'rgb': expected a picture, an array of numbers, got p"),
    ],
)
def test_pictures_that_do_not_fit_are_named(images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processor()(images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: processor(modalities={"depth": {"kind": "map"}}), "modality 'depth': expected `kind`"),
        (lambda: processor(modalities={"depth": {**PLAIN, "colour": 1}}), r"unknown fields \['colour'\]"),
        (
            lambda: processor(modalities={"depth": {**PLAIN, "standardize": "sample"}}),
            "'depth': `standardize` must be one",
        ),
        (
            lambda: processor(modalities={"x": {**PLAIN, "mean": [1, 2], "std": [1, 2]}}),
            "'x': mean and std: expected 1",
        ),
        (
            lambda: processor(modalities={"x": {**PLAIN, "invalid_value": "inf"}}),
            "'nan' or nothing as `invalid_value`",
        ),
        (
            lambda: processor(modalities={"s": {"kind": "categorical", "num_classes": 3, "scale": 2.0}}),
            "none of the fields",
        ),
        (lambda: processor((9, 12)), r"'semseg': image_size \[9, 12\] must be a multiple of its stride 2"),
        (lambda: processor(crop_scale=(0.5, 1.5)), r"shares in \(0, 1\], got \[0.5, 1.5\]"),
        (lambda: processor().prepare_row({"heat": np.ones((4, 4))}, View(0, 0, 5, 4)), "does not lie inside"),
        (
            lambda: processor((4, 4), {"x": {**PLAIN, "standardize": "dataset"}})({"x": np.ones((4, 4))}),
            "'x': standardize 'dataset' needs its `mean`",
        ),
    ],
)
def test_settings_that_cannot_be_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_auto_image_processor_finds_it(tmp_path: Path) -> None:
    one = processor(crop_fraction=0.9, ignore_index=-1)
    one.save_pretrained(tmp_path / "saved")
    again = AutoImageProcessor.from_pretrained(tmp_path / "saved")
    assert type(again) is MultiMAEImageProcessor and again.to_dict() == one.to_dict()
    raw = sample(30, 40)
    results = [each(raw, return_tensors="pt")["inputs"] for each in (one, again)]
    for name in raw:
        torch.testing.assert_close(results[0][name], results[1][name], rtol=0, atol=0)


def rgb_alone() -> dict[str, Any]:
    """A tiny model's configuration and its processor, for pipelines."""
    from hf_maskssl import MultiMAEConfig

    config = MultiMAEConfig(
        modalities={"rgb": RGB, "depth": PLAIN},
        head_modalities=["rgb"],
        image_size=[16, 24],
        patch_size=8,
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=8,
        num_visible_tokens=3,
        segmentation_hidden_size=64,
        segmentation_patch_size=4,
        depth_hidden_size=8,
        depth_reassemble_sizes=[4, 4, 8, 8],
        num_labels=3,
    )
    return {"config": config, "image_processor": MultiMAEImageProcessor(config.modalities, config.image_size)}


def test_pipelines_run_on_rgb_alone() -> None:
    import hf_maskssl

    parts = rgb_alone()
    picture, config = Image.fromarray(sample(30, 40)["rgb"]), parts.pop("config")

    def run(task: str, model: Any) -> Any:
        return pipeline(task, model=model(config).eval(), device="cpu", **parts)(picture)

    assert np.shape(run("image-feature-extraction", hf_maskssl.MultiMAEModel)) == (1, 1 + 6, 8)
    segments = run("image-segmentation", hf_maskssl.MultiMAEForSemanticSegmentation)
    assert sum(np.asarray(segment["mask"]).astype(bool).sum() for segment in segments) == 30 * 40
    depth = run("depth-estimation", hf_maskssl.MultiMAEForDepthEstimation)
    assert depth["depth"].size == (40, 30)


def test_predictions_get_the_sizes_of_the_pictures() -> None:
    logits = torch.zeros(2, 3, 4, 4)
    logits[0, 1, :, :2] = logits[1, 2, :2] = 5.0
    outputs = SimpleNamespace(
        logits=logits, predicted_depth=torch.ones(2, 4, 4) * torch.tensor([1.0, 2.0])[:, None, None]
    )
    maps = processor().post_process_semantic_segmentation(outputs, [(8, 6), (5, 9)])
    assert [tuple(one.shape) for one in maps] == [(8, 6), (5, 9)]
    assert maps[0][:, 0].unique().tolist() == [1] and maps[0][:, -1].unique().tolist() == [0]
    assert maps[1][0].unique().tolist() == [2] and processor().post_process_semantic_segmentation(outputs)[
        0
    ].shape == (4, 4)
    depths = processor().post_process_depth_estimation(outputs, [(8, 6), (5, 9)])
    assert tuple(depths[1]["predicted_depth"].shape) == (5, 9)
    torch.testing.assert_close(depths[1]["predicted_depth"], torch.full((5, 9), 2.0))
    with pytest.raises(ValueError, match="one .* per sample, 2, got 1"):
        processor().post_process_depth_estimation(outputs, [(8, 6)])
