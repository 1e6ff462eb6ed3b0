"""Pictures of masks: what is painted over is what the model masked, and nothing else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb as color_of
from PIL import Image
from transformers import AutoModelForPreTraining, PreTrainedModel, PreTrainedTokenizerFast

from hf_maskssl.commands import masks
from hf_maskssl.data.text.tokenizers import build_byte_tokenizer, build_character_tokenizer
from hf_maskssl.models.configuration_metamae import MetaMAEConfig
from hf_maskssl.models.configuration_sma import SMAConfig
from hf_maskssl.models.feature_extraction_series import SeriesFeatureExtractor
from hf_maskssl.models.image_processing_array import ArrayImageProcessor
from hf_maskssl.pictures import masks as mask_pictures
from hf_maskssl.pictures.masks import (
    count_column_masks,
    draw_column_masks,
    draw_image_masks,
    draw_series_masks,
    draw_text_masks,
    sample_masks,
    text_cells,
)
from hf_maskssl.pictures.reconstruction import HIDDEN_PIXEL, SHADE_COLOR, hide_pixels

SIZES: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
SIZES |= {"num_masked_per_query": 1, "mask_ratio": 0.5, "hidden_dropout_prob": 0.1}
SHAPES: dict[str, dict[str, Any]] = {
    "image": {"modality": "image", "image_size": [6, 8], "num_channels": 3},
    "series": {"modality": "series", "series_length": 20, "num_channels": 2},
    "table": {"modality": "series", "series_length": 6, "num_channels": 1},
    "text": {"modality": "tokens", "vocab_size": 262, "max_position_embeddings": 32},
}


def make_model(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForPreTraining.from_config(SMAConfig(**SIZES, **SHAPES[name]))


class Fixed(torch.nn.Module):
    """A model whose mask of a batch is given, the same for every draw."""

    config = SMAConfig(**SIZES, **SHAPES["series"])
    device = torch.device("cpu")

    def __init__(self, is_masked: Any) -> None:
        super().__init__()
        self.is_masked = torch.as_tensor(is_masked, dtype=torch.bool)

    def sample_mask(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.is_masked


def open_picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def area_of(picture: np.ndarray, color: Any) -> int:
    """Pixels of that very colour."""
    wanted = [round(255 * part) for part in color_of(color)]
    return int((np.abs(picture.astype(int) - wanted).max(-1) <= 1).sum())


# ---- sampling -----------------------------------------------------------------------------------------------------


def test_views_differ_by_their_draws_alone() -> None:
    model = make_model("series").train()
    state = torch.get_rng_state()
    inputs = {"input_values": torch.randn(3, 20, 2, generator=torch.Generator().manual_seed(0))}
    masks = sample_masks(model, inputs, [4, 7, 4])
    assert masks.shape == (3, 3, 20) and (masks.sum(2) == 10).all()
    assert (masks[0] == masks[2]).all() and (masks[0] != masks[1]).any()
    assert model.training and torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    other: Any = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="Linear has no `sample_mask`"):
        draw_image_masks(other, torch.zeros(1, 3, 8, 8), tmp_path / "a.png")
    config = MetaMAEConfig(objective="shed", image_size=8, num_hidden_layers=1)
    with pytest.raises(ValueError, match="`sample_mask` is for objective 'metamae', got 'shed'"):
        draw_image_masks(AutoModelForPreTraining.from_config(config), torch.zeros(1, 3, 8, 8), tmp_path / "a.png")
    with pytest.raises(ValueError, match="seeds: expected at least one"):
        draw_image_masks(make_model("image"), torch.zeros(1, 3, 6, 8), tmp_path / "a.png", num_views=0)
    with pytest.raises(ValueError, match="column_names: expected 6 names, got 2"):
        draw_column_masks(make_model("table"), torch.zeros(1, 6, 1), ["a", "b"], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


# ---- images and series --------------------------------------------------------------------------------------------


def test_masked_pixels_are_painted_over() -> None:
    pixels = np.random.default_rng(0).uniform(0, 0.3, (4, 5, 3))
    mask = np.zeros((4, 5), bool)
    mask[1, 2] = mask[3, 0] = True
    hidden = hide_pixels(pixels, mask)
    np.testing.assert_array_equal(hidden[1, 2], HIDDEN_PIXEL)
    np.testing.assert_array_equal(hidden[~mask], pixels[~mask])


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_area_painted_over_is_the_masks(tmp_path: Path, share: float) -> None:
    is_masked = torch.arange(48).expand(2, -1) < 48 * share  # the upper rows
    images = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    none: Any = Fixed(torch.zeros(2, 48))
    everything: Any = Fixed(torch.ones(2, 48))
    part: Any = Fixed(is_masked)
    areas = [
        area_of(open_picture(draw_image_masks(model, images, tmp_path / "p.png", num_views=3)), HIDDEN_PIXEL)
        for model in (none, part, everything)
    ]
    assert areas[0] == 0 < areas[1]
    assert areas[1] / areas[2] == pytest.approx(share, rel=0.02)


def test_images_keep_their_place_and_the_mask_its_rows(tmp_path: Path) -> None:
    """The mask of row-major pixels: the upper half is hidden in the views and not in the input."""
    model: Any = Fixed(torch.arange(48).expand(1, -1) < 24)
    processor = ArrayImageProcessor(3, [6, 8], standardize="dataset", mean=[0.5] * 3, std=[0.2] * 3)
    path = draw_image_masks(model, torch.zeros(1, 3, 6, 8), tmp_path / "p.png", num_views=1, processor=processor)
    picture = open_picture(path)
    wanted = [round(255 * part) for part in HIDDEN_PIXEL]
    rows, columns = np.nonzero(np.abs(picture.astype(int) - wanted).max(-1) <= 1)
    assert columns.min() > picture.shape[1] * 0.5, "the input itself is not painted over"
    assert rows.max() < picture.shape[0] * 0.6 and rows.min() < picture.shape[0] * 0.2


def test_same_model_gives_the_same_file(tmp_path: Path) -> None:
    model, images = make_model("image"), torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    first = draw_image_masks(model, images, tmp_path / "new" / "a.png")
    torch.rand(3)
    second = draw_image_masks(model, images, tmp_path / "b.png")
    other = draw_image_masks(model, images, tmp_path / "c.png", seeds=[5, 6])
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


def test_masked_steps_of_a_series_are_shaded(tmp_path: Path) -> None:
    values = torch.randn(2, 20, 2, generator=torch.Generator().manual_seed(0))
    areas = []
    for count in (5, 10):
        model: Any = Fixed(torch.arange(20).expand(2, -1) < count)
        areas.append(area_of(open_picture(draw_series_masks(model, values, tmp_path / "p.png")), SHADE_COLOR))
    assert areas[1] / areas[0] == pytest.approx(2, rel=0.15)


# ---- text ---------------------------------------------------------------------------------------------------------


def cells(text: str, length: int = 200) -> list[tuple[str, tuple[int, ...]]]:
    tokenizer = build_byte_tokenizer(length)
    return [(cell.text, cell.places) for cell in text_cells(tokenizer(text)["input_ids"], tokenizer)]


def test_bytes_of_a_character_share_a_cell() -> None:
    assert cells("né 東\n") == [
        ("n", (0,)),
        ("é", (1, 2)),
        (" ", (3,)),
        ("東", (4, 5, 6)),
        ("↵", (7,)),
        ("[SEP]", (8,)),
    ]
    assert cells("e\u0301!")[:2] == [("é", (0, 1, 2)), ("!", (3,))]
    assert mask_pictures.Cell("東", (0, 1, 2)).width == 2


def test_bytes_that_are_no_text_stand_alone() -> None:
    tokenizer = build_byte_tokenizer(20)
    ids = [ord("a") + 6, 0xC3 + 6, ord("b") + 6, 0xFF + 6]
    assert [(cell.text, cell.places) for cell in text_cells(ids, tokenizer)] == [
        ("a", (0,)),
        ("\ufffd", (1,)),
        ("b", (2,)),
        ("\ufffd", (3,)),
    ]


def test_other_tokenizers_and_none() -> None:
    tokenizer = build_character_tokenizer("CNO", 10)
    assert [cell.text for cell in text_cells(tokenizer("CON")["input_ids"], tokenizer)] == ["C", "O", "N"]
    assert [cell.text for cell in text_cells([7, 12], None)] == ["7 ", "12 "]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_every_token_is_in_exactly_one_cell(text: str) -> None:
    tokenizer = build_byte_tokenizer(200)
    ids = tokenizer(text)["input_ids"]
    found = [place for cell in text_cells(ids, tokenizer) for place in cell.places]
    assert found == list(range(len(ids)))
    lines = mask_pictures._lines(text_cells(ids, tokenizer))
    assert sum(len(line) for line in lines) == len(text_cells(ids, tokenizer))


def text_area(tmp_path: Path, text: str, is_masked: list[bool], **options: Any) -> int:
    tokenizer: PreTrainedTokenizerFast = build_byte_tokenizer(200)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    model: Any = Fixed([is_masked])
    picture = draw_text_masks(model, ids, tokenizer, tmp_path / "p.png", num_views=1, **options)
    return area_of(open_picture(picture), HIDDEN_PIXEL)


def test_shaded_area_follows_the_masked_bytes(tmp_path: Path) -> None:
    """Blanks, so that no letter covers its cell; the legend's patch is in every picture."""
    legend = text_area(tmp_path, " " * 12, [False] * 12)
    one, four = (text_area(tmp_path, " " * 12, [place < count for place in range(12)]) for count in (1, 4))
    assert legend < one < four
    assert (four - legend) / (one - legend) == pytest.approx(4, rel=0.1)
    # The no-break space is two bytes in one cell: one of them masked is half a cell.
    half = text_area(tmp_path, "\u00a0" + " " * 11, [place == 1 for place in range(13)])
    assert (half - legend) / (one - legend) == pytest.approx(0.5, rel=0.25)


def test_padding_is_not_drawn(tmp_path: Path) -> None:
    attention_mask = torch.tensor([[1] * 4 + [0] * 8])
    legend = text_area(tmp_path, " " * 12, [False] * 12, attention_mask=attention_mask)
    assert text_area(tmp_path, " " * 12, [place >= 4 for place in range(12)], attention_mask=attention_mask) == legend


def test_long_texts_and_missing_glyphs_are_drawn(tmp_path: Path) -> None:
    tokenizer = build_byte_tokenizer(2000)
    ids = tokenizer(["$x^2$ 東京 😀 " * 60], return_tensors="pt")["input_ids"]
    model: Any = Fixed(torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.2)
    assert draw_text_masks(model, ids, tokenizer, tmp_path / "p.png", num_views=1).is_file()


# ---- tables -------------------------------------------------------------------------------------------------------


class Alternating(Fixed):
    """Masks columns 0 and 1 together in every other draw and columns 2 and 3 in the others; column 4 always."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(1, 6))
        self.calls = 0

    def sample_mask(self, **inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        first = self.calls % 2 == 0
        mask = torch.tensor([first, first, not first, not first, True, False])
        return mask.expand(len(inputs["input_values"]), -1)


def test_columns_are_counted() -> None:
    model: Any = Alternating()
    counts = count_column_masks(model, torch.zeros(5, 6, 1), num_draws=8)
    np.testing.assert_allclose(counts.frequency, [0.5, 0.5, 0.5, 0.5, 1.0, 0.0])
    np.testing.assert_allclose(counts.together[0], [0.5, 0.5, 0.0, 0.0, 0.5, 0.0])
    correlation = counts.correlation
    np.testing.assert_allclose(correlation[0, :4], [1, 1, -1, -1], atol=1e-12)
    assert np.isnan(correlation[4]).all() and np.isnan(correlation[:, 5]).all()


def test_counts_agree_with_numpy() -> None:
    model, rows = make_model("table"), torch.randn(4, 6, 1, generator=torch.Generator().manual_seed(0))
    masks = sample_masks(model, {"input_values": rows}, range(50)).reshape(-1, 6)
    counts = count_column_masks(model, rows, num_draws=50)
    varying = masks.std(0) > 0
    expected = np.corrcoef(masks[:, varying].T.astype(float))
    np.testing.assert_allclose(counts.correlation[np.ix_(varying, varying)], expected, atol=1e-9)
    assert counts.frequency.sum() == pytest.approx(3.0)  # half of six columns in every mask


@pytest.mark.parametrize("names", [None, ["a", "b", "a rather long name", "d", "e", "f"]])
def test_table_is_drawn(tmp_path: Path, names: list[str] | None) -> None:
    rows = torch.randn(4, 6, 1, generator=torch.Generator().manual_seed(0))
    picture = open_picture(draw_column_masks(make_model("table"), rows, names, tmp_path / "p.png", num_draws=10))
    assert area_of(picture, HIDDEN_PIXEL) > 1000  # bars
    assert area_of(picture, "#e4e4e4") > 1000  # the diagonal


# ---- the example --------------------------------------------------------------------------------------------------


def write_recipe(folder: Path, name: str) -> tuple[dict[str, Any], Any]:
    """The data of a recipe and the processor of its checkpoint."""
    random = np.random.default_rng(0)
    if name == "text":
        (folder / "text.txt").write_text("a first line\nund noch eine für alle\n" * 3, encoding="utf-8")
        data = {"source": "text", "data_files": str(folder / "text.txt"), "kind": "tokens", "input_column": "text"}
        return data | {"tokenizer": "utf-8"}, build_byte_tokenizer(32)
    if name == "table":
        lines = [",".join("abcdef"), *(",".join(map(str, row)) for row in random.normal(size=(9, 6)))]
        (folder / "rows.csv").write_text("\n".join(lines))
        processor = SeriesFeatureExtractor(
            1, 6, statistics_axis="feature", feature_names=list("abcdef"), channels_last=True
        )
        return {"source": "csv", "data_files": str(folder / "rows.csv"), "kind": "tabular"}, processor
    shape = (5, 2, 20) if name == "series" else (5, 6, 8, 3)
    np.savez(folder / "data.npz", x=random.uniform(size=shape).astype(np.float32))
    data = {"source": "numpy", "data_files": str(folder / "data.npz"), "kind": name, "input_column": "x"}
    return data, SeriesFeatureExtractor(2, 20, channels_last=True) if name == "series" else ArrayImageProcessor(
        3, [6, 8]
    )


@pytest.mark.parametrize("masking", ["random", "guided"])
def test_masks_of_patches_cover_their_values(masking: str, tmp_path: Path) -> None:
    """A MetaMAE's tokens are patches of pixels and steps; its columns are tokens."""
    size = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "masking": masking}
    models = [
        MetaMAEConfig(image_size=[6, 8], patch_size=[3, 2], **size),
        MetaMAEConfig(modality="series", series_length=12, num_channels=1, patch_size=4, mask_ratio=0.6, **size),
        MetaMAEConfig(modality="series", series_length=6, num_channels=1, patch_size=1, **size),
    ]
    image, series, table = (AutoModelForPreTraining.from_config(config) for config in models)
    areas = []
    for number in (1, 2):
        path = draw_image_masks(image, torch.zeros(number, 3, 6, 8), tmp_path / "image.png", num_views=2)
        areas.append(area_of(open_picture(path), HIDDEN_PIXEL))
    assert areas[1] == pytest.approx(2 * areas[0], rel=0.1) and areas[0] > 0
    picture = open_picture(draw_series_masks(series, torch.randn(1, 1, 12), tmp_path / "series.png"))
    assert area_of(picture, SHADE_COLOR) > 300
    counts = count_column_masks(table, torch.randn(4, 1, 6), num_draws=7)
    assert counts.frequency.shape == (6,) and counts.frequency.sum() == pytest.approx(3)
    assert draw_column_masks(
        table, torch.randn(4, 1, 6), list("abcdef"), tmp_path / "table.png", num_draws=3
    ).is_file()


@pytest.mark.parametrize("name", SHAPES)
def test_example_draws_every_modality(name: str, tmp_path: Path) -> None:
    data, processor = write_recipe(tmp_path, name)
    make_model(name).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"data": data, "training": {"max_steps": 5}}))
    command = [
        str(tmp_path / "model"),
        "--recipe",
        str(tmp_path / "recipe.yaml"),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    few = ["--num_draws", "5", "--num_samples", "2", "--max_train_samples", "4"]
    path = masks.main([*command, *few])
    assert json.loads(path.with_suffix(".json").read_text())["models"] == [str(tmp_path / "model")]
    with pytest.raises(ValueError, match=r"--output_dir .* holds .*png of other models, .*--overwrite"):
        masks.main([*command, *few[:-1], "3"])
    assert path == tmp_path / "out" / ("columns.png" if name == "table" else "masks.png")
    assert area_of(open_picture(path), SHADE_COLOR if name == "series" else HIDDEN_PIXEL) > 300
