"""Pseudo labels: what is written, by whom, and what survives a kill. The networks are tiny and random."""

import io
import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from transformers import (
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessorPil,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessorPil,
    SwinConfig,
)

from forked import launch
from hf_maskssl.annotation import pseudo_labels
from hf_maskssl.annotation.picture_files import open_picture
from hf_maskssl.annotation.pseudo_labels import PseudoLabelArguments, encode_depth, make_pseudo_labels
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.tables.sources import read_split
from hf_maskssl.models.image_processing_array import ORIENTATION_TAG

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLASSES = ["sky", "wall", "floor", "dog", "cat"]
TURNED = "wide/turned.jpg"


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("networks")
    small = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    config = DPTConfig(
        **small,
        image_size=32,
        patch_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        use_auxiliary_head=False,
    )
    DPTForDepthEstimation(config).save_pretrained(folder / "depth")
    DPTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder / "depth")
    stages = ["stage1", "stage2", "stage3", "stage4"]
    swin = SwinConfig(
        embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4, image_size=64, out_features=stages
    )
    tiny = {"feature_size": 32, "mask_feature_size": 16, "hidden_dim": 16, "encoder_feedforward_dim": 16}
    tiny |= {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "dim_feedforward": 16}
    names = dict(enumerate(CLASSES))
    segmenter = Mask2FormerConfig(backbone_config=swin, num_queries=9, id2label=names, **tiny)
    Mask2FormerForUniversalSegmentation(segmenter).save_pretrained(folder / "semseg")
    # Keeps proportions, so that wide and high pictures cannot share a batch.
    size = {"shortest_edge": 32, "longest_edge": 64}
    Mask2FormerImageProcessorPil(size=size).save_pretrained(folder / "semseg")
    return {"depth_model": str(folder / "depth"), "segmentation_model": str(folder / "semseg")}


def noise_picture(height: int, width: int, seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine pictures of two sizes in two classes; one lies on its side, two share a name."""
    root = tmp_path / "pictures"
    for number in range(7):
        path = root / ("wide" if number % 2 else "a+high") / f"{number}.{'jpg' if number % 3 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise_picture(*((30, 48) if number % 2 else (40, 24)), seed=number).save(path)
    noise_picture(30, 48, seed=8).save(root / "wide" / "1.png")
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    noise_picture(30, 48, seed=7).save(root / TURNED, exif=exif)
    return root


@pytest.fixture
def arguments(networks: dict[str, str], folder: Path, tmp_path: Path) -> Callable[..., PseudoLabelArguments]:
    def build(name: str = "out", **fields: Any) -> PseudoLabelArguments:
        defaults = {"data_dir": str(folder), "batch_size": 4, **networks}
        return PseudoLabelArguments(output_dir=str(tmp_path / name), **defaults | fields)

    return build


def files(root: str | Path, modality: str = "*") -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(Path(root).glob(f"{modality}/*/*"))}


def expected_maps(args: PseudoLabelArguments, picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The networks' answers for one picture by itself, written out with plain interpolation."""
    size = (picture.height, picture.width)
    with torch.no_grad():
        pixels = DPTImageProcessorPil.from_pretrained(args.depth_model)(picture, return_tensors="pt")
        depth = DPTForDepthEstimation.from_pretrained(args.depth_model).eval()(**pixels).predicted_depth
        depth = torch.nn.functional.interpolate(depth[:, None], size, mode="bicubic", align_corners=False)[0, 0]
        pixels = Mask2FormerImageProcessorPil.from_pretrained(args.segmentation_model)(picture, return_tensors="pt")
        outputs = Mask2FormerForUniversalSegmentation.from_pretrained(args.segmentation_model).eval()(**pixels)
        masks = outputs.masks_queries_logits
        masks = torch.nn.functional.interpolate(masks, (384, 384), mode="bilinear", align_corners=False).sigmoid()
        scores = torch.einsum("bqc,bqhw->bchw", outputs.class_queries_logits.softmax(-1)[..., :-1], masks)
        scores = torch.nn.functional.interpolate(scores, size, mode="bilinear", align_corners=False)
    return depth.numpy(), scores[0].argmax(0).numpy()


def test_labels_are_the_networks_own_at_the_pictures_size(
    arguments: Callable[..., PseudoLabelArguments], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = arguments()
    with caplog.at_level(logging.INFO):
        report = make_pseudo_labels(args)
    assert (report.pictures, report.done_before, report.written, report.unreadable) == (9, 0, 9, [])
    assert "9 pictures labelled now, 0 before, 0 unreadable" in caplog.text
    root = Path(args.output_dir)
    written = {modality: sorted((root / modality).glob("*/*")) for modality in pseudo_labels.MODALITIES}
    names = {modality: [(path.parent.name, path.stem) for path in found] for modality, found in written.items()}
    assert names["rgb"] == names["depth"] == names["semseg"] and len(set(names["rgb"])) == 9
    assert ("a%2Bhigh", "0") not in names["rgb"] and ("a+high", "0") in names["rgb"]
    for rgb, depth, semseg in zip(*(written[name] for name in ("rgb", "depth", "semseg")), strict=True):
        picture = Image.open(rgb).convert("RGB")
        expected_depth, expected_classes = expected_maps(args, picture)
        with Image.open(depth) as file:
            assert file.mode == "I;16"
            found = np.asarray(file).astype(np.float64)
        assert (found.min(), found.max()) == (1, 65535)
        low, high = expected_depth.min(), expected_depth.max()
        np.testing.assert_allclose((found - 1) / 65534, (expected_depth - low) / (high - low), atol=2e-4)
        with Image.open(semseg) as file:
            assert file.mode == "L"
            assert (np.asarray(file) == expected_classes).mean() > 0.99
    assert (root / "rgb" / "wide" / "3.png").samefile(folder / "wide" / "3.png")
    with Image.open(root / "rgb" / "wide" / "turned.png") as upright:  # the file itself lies on its side
        assert upright.size == (30, 48)
    content = json.loads((root / "pseudo_labels.json").read_text())
    assert content["classes"]["semseg"] == CLASSES and content["complete"] and content["labelled"] == 9
    assert not list(root.glob("**/.*.partial"))
    data = data_arguments("multimodal_folder", data_dir=args.output_dir, kind="multimodal")
    rows = read_split(data, "train")
    assert len(rows) == 9 and set(rows.column_names) == {"rgb", "depth", "semseg", "label"}
    assert rows.features["label"].names == ["a+high", "wide"]
    assert all(row["rgb"].size == row["depth"].size == row["semseg"].size for row in rows)


def test_options(arguments: Callable[..., PseudoLabelArguments], folder: Path) -> None:
    """NumPy depth, near and far turned round, shrunk pictures, copies, bf16, and reading in other processes."""
    plain = arguments("plain", depth_format="npy", max_side=20, copy_rgb=True, num_workers=1)
    half = arguments("half", depth_format="npy", max_side=20, flip_depth=True, mixed_precision="bf16")
    make_pseudo_labels(plain)
    make_pseudo_labels(half)
    for path in sorted(Path(plain.output_dir).glob("depth/*/*.npy")):
        depth, other = np.load(path), np.load(Path(half.output_dir) / path.relative_to(plain.output_dir))
        assert depth.dtype == np.float32 and max(depth.shape) == 20
        np.testing.assert_allclose(other, -depth, rtol=0.1, atol=0.02)
        with Image.open(path.parents[2] / "rgb" / path.parent.name / f"{path.stem}.png") as rgb:
            assert rgb.size == depth.shape[::-1]


def run_and_die(args: PseudoLabelArguments) -> int:
    """The exit status of a process that is killed between writing a file and giving it its name.

    Threads write the pictures, in any order: the process dies at the first depth map or class map that is written
    after a whole picture, of which `rgb` is the last file, so that one picture at least is done and one is not.
    """
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # threads do not survive a fork
        rename, whole_pictures = os.replace, 0

        def replace(source: Any, target: Any) -> None:
            nonlocal whole_pictures
            last_of_picture = Path(target).relative_to(args.output_dir).parts[0] == "rgb"
            if whole_pictures and not last_of_picture:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)
            whole_pictures += last_of_picture

        os.replace = replace  # type: ignore[assignment]
        try:
            make_pseudo_labels(args)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


@pytest.mark.slow
def test_killed_run_is_finished_by_two_processes(
    arguments: Callable[..., PseudoLabelArguments], caplog: pytest.LogCaptureFixture
) -> None:
    args = arguments("killed", num_workers=0)
    make_pseudo_labels(arguments("whole"))
    assert run_and_die(args) == signal.SIGKILL
    before = files(args.output_dir)
    assert any(".partial" in name for name in before), "the kill came in the middle of a file"
    done = {name for name in before if name.startswith("rgb/") and ".partial" not in name}
    assert 0 < len(done) < 9
    stamps = {name: (Path(args.output_dir) / name).stat().st_mtime_ns for name in done}

    command = [str(EXAMPLES / "run_pseudo_label.py"), "--output_dir", args.output_dir, "--batch_size", "2"]
    command += ["--data_dir", str(args.data_dir)]
    command += ["--depth_model", args.depth_model, "--segmentation_model", args.segmentation_model]
    errors = launch(EXAMPLES / "accelerate" / "two_cpu_processes.yaml", command).stderr
    assert f"9 pictures, {len(done)} of them labelled before, {9 - len(done)} to do" in errors
    assert f"{9 - len(done)} pictures labelled now, {len(done)} before, 0 unreadable" in errors
    whole = Path(args.output_dir).with_name("whole")
    found, expected = files(args.output_dir), files(whole)
    assert found.keys() == expected.keys()
    for name in expected:
        mine, theirs = (np.asarray(Image.open(root / name)).astype(int) for root in (Path(args.output_dir), whole))
        # Other batches, other rounding.
        assert (np.abs(mine - theirs) > (20 if name.startswith("depth/") else 0)).mean() < 0.01
    assert {name: (Path(args.output_dir) / name).stat().st_mtime_ns for name in done} == stamps


def test_unreadable_pictures_are_named_and_left_out(
    arguments: Callable[..., PseudoLabelArguments],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (folder / "wide" / "empty.jpg").write_bytes(b"")
    whole = (folder / "wide" / "5.jpg").read_bytes()
    (folder / "wide" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="1 of 11 pictures cannot be read, more than 1%.*wide/"):
        make_pseudo_labels(arguments(batch_size=1))
    monkeypatch.setattr(pseudo_labels, "MAX_UNREADABLE", 0.2)
    caplog.clear()
    report = make_pseudo_labels(arguments())
    assert report.written + report.done_before == 9 and len(report.unreadable) == 2
    assert "wide/cut" in report.unreadable[0] and "unreadable image" in report.unreadable[0]
    assert "wide/empty" in report.unreadable[1] and "the file is empty (0 bytes)" in report.unreadable[1]
    assert all(f"{line.split(':')[0]} is left out" in caplog.text for line in report.unreadable)
    assert len(files(arguments().output_dir, "rgb")) == 9
    report = make_pseudo_labels(arguments())
    assert (report.done_before, report.written, len(report.unreadable)) == (9, 0, 2)


def test_rows_of_a_data_set(arguments: Callable[..., PseudoLabelArguments], tmp_path: Path) -> None:
    """Pictures inside a table: their own bytes are written, numbered where they have no name."""
    rows = []
    for number, (mode, kind) in enumerate([("RGB", "JPEG"), ("L", "PNG"), ("RGBA", "PNG"), ("RGB", "TIFF")]):
        buffer = io.BytesIO()
        noise_picture(20, 30, seed=number).convert(mode).save(buffer, kind)
        rows.append({"path": "x.jpeg" if number == 0 else None, "bytes": buffer.getvalue()})
    columns = {"picture": rows, "kind": ["b/..", None, "b/..", ".c"]}
    features = Features({"picture": ImageFeature(), "kind": Value("string")})
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "rows.parquet")
    args = arguments(source="parquet", data_dir=None, data_files=[str(tmp_path / "rows.parquet")])
    with pytest.raises(ValueError, match=r"input_column 'image': the data has the columns \['picture', 'kind'\]"):
        make_pseudo_labels(args)
    args.input_column, args.label_column = "picture", "kind"
    make_pseudo_labels(args)
    found = files(args.output_dir, "rgb")
    assert list(found) == ["rgb/%2Ec/3.png", "rgb/all/1.png", "rgb/b%2F../2.png", "rgb/b%2F../x.jpg"]
    assert found["rgb/b%2F../x.jpg"] == rows[0]["bytes"]
    with pytest.raises(ValueError, match="begun with other settings: flip_depth was False, is now True"):
        args.flip_depth = True
        make_pseudo_labels(args)
    (Path(args.output_dir) / "pseudo_labels.json").unlink()
    with pytest.raises(ValueError, match="holds depth maps, but no pseudo_labels.json that says of what"):
        make_pseudo_labels(args)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "whole numbers 0..255.*float32"),
        (np.full((4, 4), 256), "whole numbers"),
        ({"path": None, "bytes": None}, "picture is missing"),
        ({"path": "deep", "bytes": None}, "mode I;16"),
    ],
)
def test_what_is_no_picture(value: Any, message: str, tmp_path: Path) -> None:
    if isinstance(value, dict) and value["path"]:
        Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
        value = {"path": str(tmp_path / "deep.png"), "bytes": None}
    with pytest.raises(ValueError, match=message):
        open_picture(value)


@pytest.mark.parametrize("name", ["pictures", "pictures/labels", "."])
def test_labels_go_into_a_folder_of_their_own(name: str, arguments: Callable[..., PseudoLabelArguments]) -> None:
    """A call that goes on would otherwise find depth and classes among the pictures."""
    with pytest.raises(ValueError, match="one lies in the other.*name an output_dir beside data_dir"):
        arguments(name)


def test_networks_that_do_not_fit_are_refused(
    arguments: Callable[..., PseudoLabelArguments], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(pseudo_labels, "MAX_CLASSES", 4)
        with pytest.raises(ValueError, match="has 5 classes; class maps are written with 8 bit"):
            make_pseudo_labels(arguments())
    monkeypatch.setattr(pseudo_labels, "depth_maps", lambda *given: [np.full((2, 2), np.nan)] * len(given[2]))
    with pytest.raises(ValueError, match="values that are not finite with mixed_precision 'no'"):
        make_pseudo_labels(arguments())
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        arguments(batch_size=0)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, (3, 4), elements=st.floats(-(2**40), 2**40, width=32)))
def test_depth_keeps_its_order_and_leaves_zero_free(depth: np.ndarray) -> None:
    coded = encode_depth(depth)
    assert coded.dtype == np.uint16 and coded.min() == 1
    assert coded.max() == (65535 if depth.max() > depth.min() else 1)
    order = depth.ravel().argsort()
    assert (np.diff(coded.ravel()[order].astype(int)) >= 0).all()
