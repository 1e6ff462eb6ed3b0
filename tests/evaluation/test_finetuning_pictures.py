"""Pictures of fine-tuned models: what is drawn is what was given, at any number of classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hf_maskssl.evaluation.outliers import find_outliers
from hf_maskssl.pictures import finetuning as finetuning_pictures
from hf_maskssl.pictures.finetuning import (
    Curve,
    MapSample,
    draw_agreement,
    draw_class_maps,
    draw_confusion,
    draw_depth_maps,
    draw_validation,
    draw_value_maps,
    merge_classes,
)
from hf_maskssl.pictures.modalities import class_color


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is written."""
    found: list[Figure] = []
    original = finetuning_pictures.save_figure

    def save(figure: Figure, path: Any) -> Path:
        found.append(figure)
        return original(figure, path)

    monkeypatch.setattr(finetuning_pictures, "save_figure", save)
    return found


def is_picture(path: Path) -> bool:
    with Image.open(path) as image:
        return image.size[0] > 200 and np.ptp(np.asarray(image.convert("L"))) > 100


def test_confusion_shows_shares_of_the_true_class(tmp_path: Path, figures: list[Figure]) -> None:
    counts = np.array([[6, 2, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    path = draw_confusion(counts, ["cat", "dog", "never", "cow"], tmp_path / "a" / "confusion.png", "title", 2)
    assert is_picture(path)
    axes = figures[0].axes[0]
    # Rows: cat, dog, cow; "never" is neither true nor predicted.
    pixels: Any = axes.images[0].get_array()
    shown = np.ma.filled(pixels, -1)
    assert shown.tolist() == [[75, 25, 0], [0, 100, 0], [100, 0, 0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat (4)", "dog (2)", "cow (0)"]
    assert {text.get_text() for text in axes.texts} == {"75", "25", "100"}


def test_many_classes_are_merged_and_nothing_is_lost(tmp_path: Path, figures: list[Figure]) -> None:
    random = np.random.default_rng(0)
    counts = random.integers(0, 3, size=(90, 90)) + np.diag(np.full(90, 50))
    counts[:, 17] += 20  # often predicted wrongly
    merged, names = merge_classes(counts, [f"class {number}" for number in range(90)], 30)
    assert merged.shape == (30, 30) and len(names) == 30 and names[-1] == "61 other classes"
    assert merged.sum() == counts.sum() and "class 17" in names
    place = names.index("class 17")
    assert merged[place, place] == counts[17, 17] and merged[:, place].sum() == counts[:, 17].sum()
    # Among themselves, too, the classes that are kept are as they were.
    kept = [int(name.split()[1]) for name in names[:-1]]
    assert np.array_equal(merged[:-1, :-1], counts[np.ix_(kept, kept)])
    assert is_picture(
        draw_confusion(counts, [f"a very long name of class {n}" for n in range(90)], tmp_path / "b.png")
    )
    assert len(figures[0].axes[0].get_yticklabels()) == 30 and not figures[0].axes[0].texts


def test_agreement_has_the_line_the_points_and_the_outliers(tmp_path: Path, figures: list[Figure]) -> None:
    random = np.random.default_rng(0)
    true = random.normal(size=60)
    said = true + random.normal(scale=0.1, size=(3, 60))
    said[:, 9] += 4
    outliers = find_outliers(true, said.mean(axis=0))
    assert outliers.places.tolist() == [9]
    rows = np.arange(60) + 1000
    assert is_picture(draw_agreement(true, said, tmp_path / "a.png", "title", "label", outliers, rows))
    axes = figures[0].axes[0]
    line: Any = axes.get_lines()[0]
    assert np.array_equal(line.get_xdata(), line.get_ydata())
    assert axes.get_xlim() == axes.get_ylim()
    offsets: Any = axes.collections[1].get_offsets()
    assert np.allclose(offsets, np.stack([true, said.mean(axis=0)], axis=1))
    assert [text.get_text() for text in axes.texts] == ["1009"]


def test_validation_marks_the_epoch_that_is_kept(tmp_path: Path, figures: list[Figure]) -> None:
    points = [{"epoch": epoch, "accuracy": 0.1 * epoch, "loss": 1 / epoch} for epoch in (1, 2, 3)]
    curves = [
        Curve("seed 0", points, 2),
        Curve("seed 1", points[:2], 1),
        Curve("without pre-training", points, kind="baseline"),
        Curve("seed 2, of an earlier version", []),
    ]
    assert is_picture(draw_validation(curves, "accuracy", tmp_path / "a.png"))
    score, loss = figures[0].axes
    lines: list[Any] = list(score.get_lines())
    rings = [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines if line.get_markersize() == 8]
    assert np.allclose(rings, [(2, 20.0), (1, 10.0)])
    assert len(loss.get_lines()) == 3 + 2
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert labels == ["seed 0", "seed 1", "without pre-training", "epoch that is kept"]


def test_maps_of_classes_and_depth(tmp_path: Path, figures: list[Figure]) -> None:
    picture = np.random.default_rng(0).random((8, 12, 3))
    classes = np.arange(96).reshape(8, 12) // 32
    classes[0, 0] = 255
    said = np.where(classes == 1, 0, classes)
    said[0, 0] = 2
    samples = [MapSample(f"row {n}", {"rgb": picture}, classes, said) for n in (3, 8)]
    assert is_picture(draw_class_maps(samples, ["wall", "floor", "box"], tmp_path / "c.png"))
    cells: list[Any] = [axes.images[0].get_array() for axes in figures[0].axes]
    assert len(cells) == 6 and np.allclose(cells[1][7, 0], class_color(2)) and np.allclose(cells[1][0, 0], 1.0)
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert labels == ["wall", "floor", "box", "no class"]

    depth = np.linspace(1, 5, 96).reshape(8, 12)
    other = np.where(np.arange(12) < 6, 0.0, depth / 2)  # half of it is not known
    samples = [
        MapSample("row 0", {"rgb": picture}, depth, depth),
        MapSample("row 1", {"rgb": picture}, other, depth + 9),
    ]
    assert is_picture(draw_depth_maps(samples, tmp_path / "d.png"))
    cells = [axes.images[0].get_array() for axes in figures[1].axes[:6]]
    assert np.array_equal(cells[1], cells[2])  # the same depth has the same colour
    assert np.allclose(cells[4][:, :6], finetuning_pictures.UNKNOWN_COLOR)
    # One scale for all: a depth of half has another colour, and what lies beyond the scale that of its end.
    assert not np.allclose(cells[4][-1, -1], cells[1][-1, -1]) and np.allclose(cells[5][:, :], cells[1][-1, -1])


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="counts: expected a matrix of 2 x 2"):
        draw_confusion(np.zeros((2, 2)), ["a", "b"], tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"predictions \(runs, n\), got \(3,\) and \(3,\)"):
        draw_agreement(np.zeros(3), np.zeros(3), tmp_path / "a.png")
    with pytest.raises(ValueError, match="at least one run with a validation"):
        draw_validation([Curve("seed 0", [])], "accuracy", tmp_path / "a.png")
    with pytest.raises(ValueError, match="samples"):
        draw_class_maps([], [], tmp_path / "a.png")
    with pytest.raises(ValueError, match="depth is known"):
        draw_depth_maps([MapSample("row 0", {}, np.zeros((2, 2)), np.ones((2, 2)))], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_maps_of_values(channels: int, tmp_path: Path, figures: list[Figure]) -> None:
    picture = np.full((8, 12, 3), 0.5)
    true = np.stack([np.linspace(-1, 1, 96).reshape(8, 12)] * channels)
    true[0, 0, 0], true[-1, -1, -1] = -1.0, 1.0
    holes = np.where(np.arange(12) < 6, np.nan, true)
    samples = [MapSample("row 0", {"rgb": picture}, true, true + 9), MapSample("row 1", {"rgb": picture}, holes, true)]
    assert is_picture(draw_value_maps(samples, tmp_path / "v.png", "title", "normal"))
    cells = [np.asarray(axes.images[0].get_array())[..., :3] for axes in figures[0].axes[:6]]
    assert np.allclose(cells[4][:, :6], finetuning_pictures.UNKNOWN_COLOR) and np.array_equal(
        cells[4][:, 6:], cells[5][:, 6:]
    )
    # What lies beyond the scale has the colour of its end.
    assert np.ptp(cells[2].reshape(-1, 3), axis=0).max() == 0
    if channels == 2:
        assert not cells[1][..., 2].any()
    if channels >= 3:
        assert cells[1][0, 1, 0] == pytest.approx((true[0, 0, 1] + 1) / 2)
    with pytest.raises(ValueError, match="some value that is known"):
        draw_value_maps([MapSample("row 0", {}, np.full((1, 2, 2), np.nan), np.ones((1, 2, 2)))], tmp_path / "a.png")
