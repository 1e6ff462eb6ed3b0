"""Pictures of MultiMAE: every pixel of a cell is what it claims to be."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hf_maskssl.commands import predict
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.builtin.scenes import CLASSES, LAYOUT
from hf_maskssl.models.configuration_multimae import MultiMAEConfig
from hf_maskssl.models.image_processing_multimae import MultiMAEImageProcessor
from hf_maskssl.models.layers import patchify
from hf_maskssl.models.modeling_multimae import MultiMAEForPretraining
from hf_maskssl.models.multimodal_losses import standardize_patches
from hf_maskssl.pictures import modalities as modality_pictures
from hf_maskssl.pictures.demo import Demo, page, usual_counts
from hf_maskssl.pictures.modalities import (
    Cell,
    Painter,
    Samples,
    class_color,
    draw_modalities,
    draw_repainted,
    draw_single_inputs,
    known_class_names,
    restore_patches,
)
from hf_maskssl.pictures.reconstruction import HIDDEN_PIXEL

SIZE = (16, 24)  # 6 patches
MODALITIES: dict[str, dict[str, Any]] = {
    "depth": {"kind": "continuous", "num_channels": 1, "loss": "l1"},
    "semseg": {"kind": "categorical", "num_classes": 10, "stride": 2, "embedding_size": 4},
    "rgb": {"kind": "continuous", "num_channels": 3},
    "norm_rgb": {"target_of": "rgb", "loss": "standardized_mse"},
    "normals": {"kind": "continuous", "num_channels": 3, "is_input": False},
}
PROCESSOR = MultiMAEImageProcessor(MODALITIES, SIZE)


def make_model(modalities: dict[str, Any] = MODALITIES) -> Any:
    torch.manual_seed(0)
    width = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    width |= {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    width |= {"decoder_intermediate_size": 8, "num_visible_tokens": 7}
    return MultiMAEForPretraining(
        MultiMAEConfig(modalities=modalities, image_size=SIZE, patch_size=8, depth_layers=[0] * 4, **width)
    )


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


def raw_pictures(count: int) -> dict[str, list[np.ndarray]]:
    random = np.random.default_rng(0)
    return {
        "depth": list(random.uniform(1, 9, (count, *SIZE)).astype(np.float32)),
        "semseg": list(random.integers(0, 10, (count, *SIZE), dtype=np.uint8)),
        "rgb": list(random.integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)),
        "normals": list(random.integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)),
    }


def make_batch(count: int = 2) -> dict[str, Any]:
    batch = dict(PROCESSOR(raw_pictures(count), return_tensors="pt"))
    return batch | {"labels": torch.zeros(count), "index": torch.arange(count)}


class Drawn:
    """Blocks of cells, instead of a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cells: dict[tuple[int, str, str], Cell] = {}
        self.painter: Any = None
        monkeypatch.setattr(modality_pictures, "_draw_blocks", self.keep)

    def keep(self, painter: Any, blocks: Any, columns: Sequence[str], rows: Sequence[str], path: Any) -> Path:
        self.painter = painter
        for sample, block in enumerate(blocks):
            for row, cells in zip(rows, block, strict=True):
                self.cells |= {(sample, row, column): cell for column, cell in zip(columns, cells, strict=True)}
        return Path(path)

    def pixels(self, sample: int, row: str, column: str) -> np.ndarray:
        found = self.cells[sample, row, column].pixels
        assert found is not None
        return found


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    return Drawn(monkeypatch)


def checker(patches: Sequence[int], size: tuple[int, int] = SIZE, patch: int = 8) -> np.ndarray:
    """(H, W) bool, True on these patches of a 2 x 3 grid."""
    flags = np.isin(np.arange(6), patches).reshape(2, 3)
    return np.kron(flags, np.ones((patch, patch))).astype(bool)


# ---- Figure 1 -------------------------------------------------------------------------------------------------------


def test_masked_inputs_predictions_and_targets(model: Any, drawn: Drawn) -> None:
    """Explicit masks, per sample: what is hidden is painted over, what is visible lies over the prediction."""
    batch = make_batch()
    hidden = {"rgb": [[0, 1, 2, 3], [5]], "depth": [[4, 5], [0, 1, 2, 3]], "semseg": [[1], [2, 3]]}
    masks = {
        name: torch.stack([torch.from_numpy(np.isin(np.arange(6), row)) for row in rows])
        for name, rows in hidden.items()
    }
    draw_modalities(model, batch, "unused", PROCESSOR, masks=masks)
    with torch.no_grad():
        raw = model(inputs=batch["inputs"], task_masks=masks, predict_all=True).predictions
    pictures = raw_pictures(2)
    for sample in range(2):
        rgb = pictures["rgb"][sample] / 255
        np.testing.assert_allclose(drawn.pixels(sample, "rgb", "target"), rgb, atol=1e-5)
        is_hidden = checker(hidden["rgb"][sample])
        masked, shown = drawn.pixels(sample, "rgb", "masked input"), drawn.pixels(sample, "rgb", "prediction")
        np.testing.assert_allclose(masked[is_hidden], np.broadcast_to(HIDDEN_PIXEL, masked[is_hidden].shape))
        for pixels in (masked, shown):
            np.testing.assert_allclose(pixels[~is_hidden], rgb[~is_hidden], atol=1e-5)
        mean, std = (np.array(getattr(PROCESSOR.pictures()["rgb"], name)) for name in ("mean", "std"))
        predicted = np.clip(raw["rgb"][sample].permute(1, 2, 0).numpy() * std + mean, 0, 1)
        np.testing.assert_allclose(shown[is_hidden], predicted[is_hidden], atol=1e-5)
        # Class maps: half the resolution, patches of four.
        is_hidden, ids = checker(hidden["semseg"][sample], patch=4), batch["inputs"]["semseg"][sample].numpy()
        guesses = np.where(is_hidden, raw["semseg"][sample].argmax(0).numpy(), ids)
        expected = np.stack([class_color(int(number)) for number in guesses.ravel()]).reshape(8, 12, 3)
        np.testing.assert_allclose(drawn.pixels(sample, "semseg", "prediction"), expected)
        # An output that is no input has no visible patch.
        assert drawn.cells[sample, "normals", "masked input"].note == "not an input"
        depth = drawn.pixels(sample, "depth", "prediction"), drawn.pixels(sample, "depth", "target")
        same = (depth[0] == depth[1]).all(-1)
        assert same[~checker(hidden["depth"][sample])].all() and not same.all()
    assert list(dict.fromkeys(row for _, row, _ in drawn.cells)) == [
        "rgb",
        "rgb, from\nnorm_rgb",
        "depth",
        "semseg",
        "normals",
    ]


def test_standardised_patches_get_their_statistics_back() -> None:
    target = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)) * 3 + 1
    patches = standardize_patches(patchify(target, (8, 8)))
    standardised = patches.unflatten(1, (2, 3)).unflatten(-1, (8, 8, 3)).permute(0, 5, 1, 3, 2, 4).reshape(2, 3, *SIZE)
    torch.testing.assert_close(restore_patches(standardised, target, (8, 8)), target, atol=1e-5, rtol=1e-5)


def test_prediction_of_standardised_patches(model: Any, drawn: Drawn) -> None:
    batch = make_batch(1)
    masks = {name: torch.ones(1, 6, dtype=torch.bool) for name in ("rgb", "semseg")}
    masks["depth"] = torch.tensor([[False] * 5 + [True]])
    draw_modalities(model, batch, "unused", None, masks=masks)
    with torch.no_grad():
        raw = model(inputs=batch["inputs"], task_masks=masks, predict_all=True).predictions["norm_rgb"]
    rgb = batch["inputs"]["rgb"]
    expected = restore_patches(raw, rgb, (8, 8))[0]
    shown = ((expected - rgb.min()) / (rgb.max() - rgb.min())).clamp(0, 1)  # no processor: the target's own range
    np.testing.assert_allclose(
        drawn.pixels(0, "rgb, from\nnorm_rgb", "prediction"), shown.permute(1, 2, 0).numpy(), atol=1e-5
    )


def test_absent_modalities_are_said_to_be(model: Any, drawn: Drawn) -> None:
    batch = make_batch()
    batch["presence"] = {"depth": torch.tensor([False, True]), "rgb": torch.tensor([True, False])}
    batch["inputs"]["depth"][0] = 0
    batch["inputs"]["rgb"][1] = 0
    del batch["inputs"]["normals"]
    draw_modalities(model, batch, "unused", PROCESSOR)
    notes = {key: cell.note for key, cell in drawn.cells.items() if cell.note == "absent"}
    assert {key[:2] for key in notes} == {
        (0, "depth"),
        (1, "rgb"),
        (1, "rgb, from\nnorm_rgb"),
        (0, "normals"),
        (1, "normals"),
    }
    assert drawn.pixels(0, "depth", "prediction").shape == (*SIZE, 3), "predicted all the same"
    drawn.cells.clear()
    draw_single_inputs(model, batch, "unused", PROCESSOR)
    assert drawn.cells[0, "from depth", "rgb"].pixels is None
    assert drawn.cells[1, "from depth", "rgb"].pixels is not None


# ---- Figures 3 and 4 --------------------------------------------------------------------------------------------------


def test_from_one_modality_alone(model: Any, drawn: Drawn) -> None:
    batch = make_batch()
    draw_single_inputs(model, batch, "unused", PROCESSOR)
    found = model.predict({"semseg": batch["inputs"]["semseg"]}, targets=["normals"])["normals"]
    shown = (found[1].permute(1, 2, 0).numpy() * 0.5 + 0.5).clip(0, 1)
    np.testing.assert_allclose(drawn.pixels(1, "from semseg", "normals"), shown, atol=1e-4)
    framed = {key[1:] for key, cell in drawn.cells.items() if cell.framed}
    assert framed == {(f"from {name}", name) for name in ("rgb", "depth", "semseg")}


def test_other_hues_of_one_patch(model: Any, drawn: Drawn) -> None:
    batch = make_batch(1)
    colorful = batch["inputs"]["rgb"].clone()
    blue = (torch.tensor([0.0, 0.0, 1.0]) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    colorful[0, :, 8:, 16:] = blue[:, None, None]
    batch["inputs"]["rgb"] = colorful
    draw_repainted(model, batch, "unused", PROCESSOR, num_patches=2)
    chosen = checker([5])
    for row, color in (("as it is", [0, 0, 1]), ("hue + 120°", [1, 0, 0]), ("hue + 240°", [0, 1, 0])):
        seen, shown = (drawn.pixels(0, row, column) for column in ("2 of rgb", "prediction"))
        np.testing.assert_allclose(seen[chosen], np.broadcast_to(color, seen[chosen].shape), atol=1e-5)
        np.testing.assert_allclose(shown[chosen], seen[chosen])
        assert (np.abs(seen - HIDDEN_PIXEL).max(-1) < 1e-9).sum() == 4 * 64, "four of six patches are hidden"
        np.testing.assert_array_equal(drawn.pixels(0, row, "target"), drawn.pixels(0, "as it is", "target"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"whole": "lidar"}, r"whole: expected one of the inputs.*got 'lidar'"),
        ({"partial": "normals"}, "partial: expected one of the inputs"),
        ({"whole": "rgb", "partial": "depth"}, "expected an output of three channels"),
        ({"num_patches": 6}, "num_patches: expected 1 to 5, got 6"),
        ({"num_samples": 0}, "nothing to draw: num_samples is 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(model: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        draw_repainted(model, make_batch(), tmp_path / "p.png", PROCESSOR, **options)
    assert list(tmp_path.iterdir()) == []


# ---- files ------------------------------------------------------------------------------------------------------------


def test_same_weights_give_the_same_file_and_leave_the_run_undisturbed(model: Any, tmp_path: Path) -> None:
    model.train()
    batch, state = make_batch(), torch.get_rng_state()
    first = draw_modalities(model, batch, tmp_path / "new" / "a.png", PROCESSOR)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.rand(3)
    second = draw_modalities(model, batch, tmp_path / "b.png", PROCESSOR)
    assert first is not None and second is not None and first.read_bytes() == second.read_bytes()
    assert draw_modalities(model, batch, None, PROCESSOR) is None


def test_legend_names_the_classes_drawn(model: Any) -> None:
    inputs = {"semseg": torch.tensor([[[0, 0, 3], [1, 255, 3]]])}
    painter = Painter(model.config, Samples(inputs, {}), PROCESSOR, {"semseg": ["floor", "wall"]})
    painter.target("semseg", 0)
    assert [handle.get_label() for handle in painter.legend()] == ["floor", "wall", "class 3", "no class"]


def test_class_names_come_from_scenes_or_pseudo_labels(tmp_path: Path) -> None:
    names = {"semseg": ["sky", "dog"]}
    (tmp_path / "pseudo_labels.json").write_text(json.dumps({"classes": names}))
    args = data_arguments("multimodal_folder", data_dir=str(tmp_path), kind="multimodal")
    assert known_class_names(args) == names
    renamed = data_arguments(
        "multimodal_folder", data_dir=str(tmp_path), kind="multimodal", input_column={"c": "semseg"}
    )
    assert known_class_names(renamed)["c"] == names["semseg"]
    assert known_class_names(data_arguments("scenes", kind="multimodal"))["semseg"] == list(CLASSES)
    layout = data_arguments("scenes", kind="multimodal", input_column={"rgb": "rgb", "semseg": "layout"})
    assert known_class_names(layout)["semseg"] == list(LAYOUT)
    assert known_class_names(data_arguments("digits")) == {}


def test_example_takes_the_classes_that_the_model_knows() -> None:
    assert predict.scene_columns(make_model().config)["semseg"] == "semseg"
    few = {**MODALITIES, "semseg": {**MODALITIES["semseg"], "num_classes": len(LAYOUT)}}
    assert predict.scene_columns(make_model(few).config)["semseg"] == "layout"


def test_example_on_modalities_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No depth and no rgb: nothing to repaint, which is said, unless it was asked for."""
    own = {"thermal": {"kind": "continuous", "num_channels": 1}, "bands": {"kind": "continuous", "num_channels": 3}}
    make_model(own).save_pretrained(tmp_path / "model")
    MultiMAEImageProcessor(own, SIZE).save_pretrained(tmp_path / "model")
    for name, pictures in {"thermal": raw_pictures(1)["rgb"][0][..., 0], "bands": raw_pictures(1)["rgb"][0]}.items():
        (tmp_path / "data" / name / "all").mkdir(parents=True)
        Image.fromarray(pictures).save(tmp_path / "data" / name / "all" / "0.png")
    command = [str(tmp_path / "model"), "--data_dir", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    paths = predict.main([*command, "--pictures", "repainted", "masked", "--num_samples", "2"])
    for picture in paths:
        assert json.loads(picture.with_suffix(".json").read_text())["models"] == [command[0]]
    assert [path.name for path in paths] == ["masked.png"]
    written, note = capsys.readouterr().out.splitlines()
    assert written.startswith("Written: ") and "repainted.png" in note and "got 'depth'" in note
    named = ["--pictures", "repainted", "--whole", "thermal", "--partial", "bands"]
    assert [path.name for path in predict.main([*command, *named])] == ["repainted.png"]
    with pytest.raises(ValueError, match="whole: expected one of the inputs.*got 'depth'"):
        predict.main([*command, "--pictures", "repainted", "--partial", "bands"])


@pytest.mark.parametrize("source", ["scenes", "folder", "recipe"])
def test_example(source: str, tmp_path: Path) -> None:
    few = {name: MODALITIES[name] for name in ("depth", "rgb")}
    make_model(few).save_pretrained(tmp_path / "model")
    MultiMAEImageProcessor(few, SIZE).save_pretrained(tmp_path / "model")
    command = [str(tmp_path / "model"), "--num_samples", "1", "--output", str(tmp_path / "out")]
    if source == "folder":
        for name, pictures in raw_pictures(3).items():
            (tmp_path / "data" / name / "all").mkdir(parents=True)
            for number, pixels in enumerate(pictures):
                pixels = pixels.astype(np.uint16) if name == "depth" else pixels
                Image.fromarray(pixels).save(tmp_path / "data" / name / "all" / f"{number}.png")
        command += ["--data_dir", str(tmp_path / "data"), "--pictures", "masked"]
    if source == "recipe":
        recipe = (
            "data: {source: scenes, kind: multimodal, augment: true, scene_size: [16, 24], num_scenes: {train: 1}}"
        )
        (tmp_path / "recipe.yaml").write_text(recipe)
        command += ["--recipe", str(tmp_path / "recipe.yaml"), "--pictures", "masked"]
    paths = predict.main(command)
    assert [path.name for path in paths] == [f"{name}.png" for name in predict.PICTURES][
        : 3 if source == "scenes" else 1
    ]
    for path in paths:
        with Image.open(path) as picture:
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100
    if source == "scenes":
        with pytest.raises(ValueError, match="unknown options.*need a --recipe"):
            predict.main([*command, "--crop_fraction", "0.5"])


# ---- the page -------------------------------------------------------------------------------------------------------


def test_a_page_shows_as_many_patches_as_are_chosen(model: Any, drawn: Drawn) -> None:
    demo = Demo(model, make_batch(3), PROCESSOR)
    assert demo.num_samples == 3 and demo.num_patches == {"depth": 6, "semseg": 6, "rgb": 6}
    masks = demo.masks(5, {"depth": 0, "semseg": 2, "rgb": 6})
    assert {name: int((~mask).sum()) for name, mask in masks.items()} == {"depth": 0, "semseg": 2, "rgb": 6}
    assert torch.equal(masks["semseg"], demo.masks(5, {"depth": 3, "semseg": 2, "rgb": 1})["semseg"])
    assert usual_counts(demo) == {"depth": 2, "semseg": 2, "rgb": 2}  # of 7 tokens of 18


def test_the_picture_of_a_page_is_that_of_its_sample(model: Any, tmp_path: Path) -> None:
    batch = make_batch(3)
    demo = Demo(model, batch, PROCESSOR)
    second = {"inputs": {name: values[1:2] for name, values in batch["inputs"].items()}}
    masks = demo.masks(0, {"depth": 1, "semseg": 2, "rgb": 3})
    draw_modalities(model, second, tmp_path / "expected.png", PROCESSOR, masks=masks)
    with Image.open(tmp_path / "expected.png") as expected:
        np.testing.assert_array_equal(np.asarray(demo.picture(1, 0, [1, 2, 3])), np.asarray(expected))
    with pytest.raises(ValueError, match="no patch is visible"):
        demo.picture(1, 0, [0, 0, 0])


def test_the_page_asks_for_what_is_drawn(model: Any) -> None:
    pytest.importorskip("gradio")
    blocks = page(Demo(model, make_batch(2), PROCESSOR), "Predictions")
    labels = [part["props"].get("label") for part in blocks.config["components"]]
    assert "visible patches of depth, of 6" in labels and "masked input, prediction, target" in labels


def test_a_page_without_gradio_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r'A page of predictions needs gradio, .*pip install "hf_maskssl\[demo\]"'):
        predict.main(["nowhere", "--serve"])
