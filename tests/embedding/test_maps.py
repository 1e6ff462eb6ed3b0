"""Maps: principal components, colours, pictures, and a page that loads nothing and runs nothing of the data's."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_neighbors import features

from hf_maskssl.commands import map as command
from hf_maskssl.embedding.maps import CURVE_COLORS, MOST_CLASSES, OTHERS_COLOR, coloring, draw_map, map_features


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["hf-maskssl map", *map(str, words)])
    command.main()


def page_data(path: Path) -> dict[str, object]:
    """The rows in a page."""
    found = re.search(r"^const data = (.*);$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return json.loads(found[1])


def test_the_axes_are_principal_components(tmp_path: Path) -> None:
    table = features(tmp_path / "f.parquet", rows=200)
    table = dataclasses.replace(table, values=table.values * np.array([1, 1, 9, 1, 4], dtype=np.float32))
    found = map_features(table)
    centred = table.values - table.values.mean(0)
    _, sizes, directions = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(np.abs(found.points), np.abs(centred @ directions[:2].T), atol=1e-4)
    shares = sizes**2 / (sizes**2).sum()
    assert found.axes == (f"PC 1 ({shares[0]:.0%})", f"PC 2 ({shares[1]:.0%})")


def test_of_many_rows_some_are_drawn(tmp_path: Path) -> None:
    table = features(tmp_path / "f.parquet", rows=200)
    found = map_features(table, most=50)
    assert len(found.points) == len(found.table) == 50 and found.rows == 200
    rows = found.table.columns["row"].to_pylist()
    assert rows == sorted(set(rows))
    np.testing.assert_array_equal(found.table.values, table.values[rows])


def test_classes_have_colours_and_numbers_a_scale(tmp_path: Path) -> None:
    rows = 120
    columns = {
        "word": ["b", "a", None] * 40,
        "many": [f"c{row % 30}" for row in range(rows)],
        "number": [row / 7 for row in range(rows)],
        "few": [row % 11 for row in range(rows)],
    }
    table = features(tmp_path / "f.parquet", rows=rows, **columns)  # type: ignore[arg-type]
    words = coloring(table, "word")
    assert words.classes is not None and list(words.classes) == ["a", "b", "no value"]
    assert words.colors[:3] == [words.classes["b"], words.classes["a"], words.classes["no value"]]
    many = coloring(table, "many")
    assert many.classes is not None and len(many.classes) == MOST_CLASSES and "others (11)" in many.classes
    assert many.colors.count(OTHERS_COLOR) == 11 * 4
    number = coloring(table, "number")
    assert number.classes is None and (number.low, number.high) == (0.0, (rows - 1) / 7)
    assert number.colors[0] == "#440154" and number.colors[-1] == "#fde725"  # viridis' ends
    few = coloring(table, "few")
    assert few.classes is not None and list(few.classes) == [str(value) for value in range(11)]
    assert coloring(table, None).colors == [CURVE_COLORS[0]] * rows


def test_pictures_and_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "</script><script>alert(1)</script>"
    features(tmp_path / "f.parquet", label=["one", "two"] * 14 + [script, "one"])
    outputs = [tmp_path / "map.png", tmp_path / "map.html"]
    run(monkeypatch, tmp_path / "f.parquet", "--color", "label", "--output", *outputs)
    assert Image.open(outputs[0]).size[0] > 600
    page = outputs[1].read_text(encoding="utf-8")
    assert page.count("<script>") == page.count("</script>") == 1  # nothing of the data's is run
    assert not re.search(r"(src|href)\s*=|https?:|@import|url\(", page)  # nothing is loaded
    data = page_data(outputs[1])
    assert data["columns"] == ["row", "split", "label"] and data["values"][2][-2] == script  # type: ignore[index]
    assert len(data["x"]) == 30 and sorted(data["order"]) == list(range(30))  # type: ignore[arg-type]
    names = [data["classes"][number] for number in data["color"]]  # type: ignore[index, attr-defined]
    assert names == ["one", "two"] * 14 + [script, "one"]


def test_a_scale_in_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features(tmp_path / "f.parquet", size=[row / 2 for row in range(30)])  # type: ignore[arg-type]
    run(monkeypatch, tmp_path / "f.parquet", "--color", "size", "--output", tmp_path / "map.html")
    data = page_data(tmp_path / "map.html")
    assert data["classes"] == [] and (data["scale"]["low"], data["scale"]["high"]) == ("0", "14.5")  # type: ignore[index]


def test_fifty_thousand_points(tmp_path: Path) -> None:
    table = features(tmp_path / "f.parquet", rows=50_001, width=2)
    found = map_features(table)
    assert len(found.points) == 50_000
    draw_map(found, coloring(found.table, None), tmp_path / "map.png")
    assert Image.open(tmp_path / "map.png").size[0] > 500


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--color", "lable"], "--color: .* has no column 'lable' .did you mean 'label'"),
        (["--output", "map.jpg"], "--output map.jpg: expected a name that ends with .png"),
        (["--output", "f.png"], "--output f.png exists"),
        (["--method", "umap"], r"--method umap needs umap, .*hf_maskssl\[map\]"),
    ],
)
def test_what_cannot_be_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "umap", None)
    features(Path("f.parquet"), label=["a"] * 30)
    Path("f.png").touch()
    words = words if "--output" in words else [*words, "--output", "map.png"]
    with pytest.raises((ValueError, ImportError), match=message):
        run(monkeypatch, "f.parquet", *words)


def test_umap_is_asked_for_a_map_with_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in where the extra is not installed: what it is given."""
    told: dict[str, object] = {}

    class Umap:
        def __init__(self, **options: object) -> None:
            told.update(options)

        def fit_transform(self, values: np.ndarray) -> np.ndarray:
            return values[:, :2]

    module = type(sys)("umap")
    module.UMAP = Umap  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", module)
    found = map_features(features(tmp_path / "f.parquet", rows=9), "umap", seed=3)
    assert found.points.shape == (9, 2) and told["random_state"] == 3 and told["n_neighbors"] == 8
