"""Pictures: what they show, that they disturb nothing, and that they are the same every time."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image
from transformers import AutoModelForPreTraining, PreTrainedModel

import tiny_models
from hf_maskssl.data.text.tokenizers import build_byte_tokenizer, build_character_tokenizer
from hf_maskssl.models.configuration_metamae import MetaMAEConfig
from hf_maskssl.models.configuration_pos_minimax_bert import PoSMinimaxBertConfig
from hf_maskssl.models.configuration_sma import SMAConfig
from hf_maskssl.models.feature_extraction_series import SeriesFeatureExtractor
from hf_maskssl.models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from hf_maskssl.models.image_processing_array import ArrayImageProcessor
from hf_maskssl.models.layers import patchify
from hf_maskssl.models.modeling_pos_minimax_bert import PoSMinimaxBertForPreTraining
from hf_maskssl.pictures import curves
from hf_maskssl.pictures import reconstruction as pictures
from hf_maskssl.pictures.curves import draw_curves
from hf_maskssl.pictures.reconstruction import draw_reconstruction, fill_masked_patches, reconstruct

SMALL: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SMALL |= {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
SMALL |= {"decoder_intermediate_size": 16, "hidden_dropout_prob": 0.1}
TOKENS: dict[str, Any] = {"vocab_size": 7, "max_position_embeddings": 12}
SHAPES: dict[str, dict[str, Any]] = {
    "grey": {"modality": "image", "image_size": [8, 12], "patch_size": [4, 2], "num_channels": 1},
    "two_channels": {"modality": "image", "image_size": [8, 8], "patch_size": [4, 4], "num_channels": 2},
    "rgb": {"modality": "image", "image_size": [8, 8], "patch_size": [4, 4], "num_channels": 3},
    "thirteen_channels": {"modality": "image", "image_size": [8, 8], "patch_size": [4, 4], "num_channels": 13},
    "series": {"modality": "series", "series_length": 20, "patch_size": 5, "num_channels": 6},
    "tabular": {"modality": "series", "series_length": 9, "patch_size": 1, "num_channels": 1},
    "tokens": {"modality": "tokens", **TOKENS},
    "vision_language": {"modality": "vision_language", "image_size": [8, 8], "patch_size": [4, 4], **TOKENS},
    "sma_rgb": {"modality": "image", "image_size": [8, 8], "num_channels": 3},
    "sma_series": {"modality": "series", "series_length": 20, "num_channels": 6},
    "sma_tabular": {"modality": "series", "series_length": 9, "num_channels": 1},
    "sma_tokens": {"modality": "tokens", **TOKENS},
}
SMALL_SMA: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "mask_ratio": 0.4}
SMALL_SMA |= {"num_masked_per_query": 1, "hidden_dropout_prob": 0.1}
LATENTS: dict[str, Any] = {"encoder_type": "cross_attention", "num_latents": 4}


def make_model(name: str, **fields: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    if name.startswith("sma_"):
        return AutoModelForPreTraining.from_config(SMAConfig(**SMALL_SMA, **SHAPES[name], **fields))
    return AutoModelForPreTraining.from_config(MetaMAEConfig(**SMALL, **SHAPES[name], **fields))


def make_batch(name: str, samples: int = 3) -> dict[str, torch.Tensor]:
    shape = SHAPES[name]
    generator = torch.Generator().manual_seed(1)
    batch = {}
    if "image_size" in shape:
        size = (samples, shape.get("num_channels", 3), *shape["image_size"])
        batch["pixel_values"] = torch.randn(size, generator=generator)
    if "series_length" in shape:
        size = (samples, shape["num_channels"], shape["series_length"])
        values = torch.randn(size, generator=generator)
        batch["input_values"] = values.transpose(1, 2).contiguous() if name.startswith("sma_") else values
    if "vocab_size" in shape:
        batch["input_ids"] = torch.randint(3, 7, (samples, 12), generator=generator)
        batch["attention_mask"] = (torch.arange(12) < torch.tensor([[12], [7], [9]])[:samples]).long()
    return batch | {"labels": torch.zeros(samples, dtype=torch.int64), "index": torch.arange(samples)}


def open_picture(path: Path | None) -> np.ndarray:
    assert path is not None
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def share_of(picture: np.ndarray, color: str | tuple[float, float, float]) -> float:
    """Share of pixels of that very colour."""
    wanted = [round(255 * part) for part in to_rgb(color)]
    return float((np.abs(picture.astype(int) - wanted).max(-1) <= 1).mean())


@pytest.mark.parametrize("name", SHAPES)
def test_every_modality_is_drawn_with_its_masked_places_marked(name: str, tmp_path: Path) -> None:
    """The same weights give the same file, and the run is left undisturbed."""
    model, batch = make_model(name).train(), make_batch(name)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first = draw_reconstruction(model, batch, tmp_path / "new" / "first.png")
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.rand(5)  # another global state must not matter
    second = draw_reconstruction(model, batch, tmp_path / "second.png")
    assert first == tmp_path / "new" / "first.png" and second is not None
    assert first.read_bytes() == second.read_bytes()

    picture = open_picture(first)
    has_pixels, has_tokens = "image_size" in SHAPES[name], "vocab_size" in SHAPES[name]
    if has_pixels:
        assert share_of(picture, pictures.HIDDEN_PIXEL) > 0.02
    if not has_pixels or has_tokens:
        assert share_of(picture, pictures.SHADE_COLOR) > 0.001
    if has_tokens:
        assert share_of(picture, pictures.RIGHT_COLOR) + share_of(picture, pictures.WRONG_COLOR) > 0.001
    elif not has_pixels:
        assert share_of(picture, pictures.PREDICTION_COLOR) > 0.0005


def test_draws_decide_what_is_masked() -> None:
    model, batch = make_model("rgb"), make_batch("rgb")
    noise = torch.tensor([[0.1, 0.2, 0.8, 0.9]]).expand(3, -1)
    result = reconstruct(model, batch, noise=noise)
    # 2 x 2 patches of 4 x 4 pixels: the upper two have the smaller draws and stay visible.
    assert not result.is_hidden[:, :4].any() and result.is_hidden[:, 4:].all()


def test_predictions_stand_at_masked_places_only() -> None:
    model, batch = make_model("series").eval(), make_batch("series")
    noise = torch.rand(3, 4, generator=torch.Generator().manual_seed(3))
    result = reconstruct(model, batch, noise=noise)
    assert result.values is not None and result.filled is not None
    with torch.no_grad():
        expected = model(input_values=batch["input_values"], noise=noise, nearby_noise=torch.ones(3, 4))
    hidden = np.broadcast_to(result.is_hidden[:, None], result.values.shape)
    np.testing.assert_array_equal(result.filled[~hidden], result.values[~hidden])
    assert (result.filled[hidden] != result.values[hidden]).all()
    steps = expected.mask.repeat_interleave(5, dim=1).bool().numpy()
    np.testing.assert_array_equal(result.is_hidden, steps)


@pytest.mark.parametrize("fields", [{}, LATENTS])
@pytest.mark.parametrize("name", ["sma_rgb", "sma_series", "sma_tabular"])
def test_positions_of_sma_are_filled_with_its_predictions(name: str, fields: dict[str, Any]) -> None:
    """Also with standardised targets: the picture is in the input's units."""
    channels = SHAPES[name]["num_channels"]
    mean, std = [1.0 + c for c in range(channels)], [2.0 + c for c in range(channels)]
    model = make_model(name, target_mean=mean, target_std=std, **fields).eval()
    batch = {key: value for key, value in make_batch(name).items() if key.endswith("values")}
    result = reconstruct(model, batch)
    assert result.values is not None and result.filled is not None
    torch.manual_seed(0)
    with torch.no_grad():
        expected = model(**batch, predict_all=True)
    signal = batch["pixel_values"] if "pixel_values" in batch else batch["input_values"].transpose(1, 2)
    np.testing.assert_array_equal(result.values, signal.numpy())
    # One token per pixel or step, row by row.
    predictions = (expected.predictions * torch.tensor(std) + torch.tensor(mean)).transpose(1, 2).view(signal.shape)
    is_masked = expected.mask.bool().view(3, *signal.shape[2:])
    np.testing.assert_array_equal(result.is_hidden, is_masked.numpy())
    wanted = torch.where(is_masked[:, None], predictions, signal)
    np.testing.assert_allclose(result.filled, wanted.numpy(), atol=1e-5)


def test_tokens_of_sma_stand_at_their_places() -> None:
    model, batch = make_model("sma_tokens").eval(), make_batch("sma_tokens")
    result = reconstruct(model, batch)
    torch.manual_seed(0)
    with torch.no_grad():
        expected = model(batch["input_ids"], attention_mask=batch["attention_mask"], predict_all=True)
    assert result.predicted_ids is not None
    np.testing.assert_array_equal(result.predicted_ids, expected.logits.argmax(-1).numpy())
    np.testing.assert_array_equal(result.is_hidden_token, expected.mask.bool().numpy())
    assert not (result.is_hidden_token & ~result.is_real_token).any()


def test_univariate_series_are_curves_and_rows_are_columns() -> None:
    model = make_model("sma_tabular")
    assert pictures.is_table(model, None)
    assert pictures.is_table(model, SeriesFeatureExtractor(1, 9, statistics_axis="feature", channels_last=True))
    assert not pictures.is_table(model, SeriesFeatureExtractor(1, 9, channels_last=True))
    assert not pictures.is_table(make_model("sma_series"), None) and not pictures.is_table(make_model("series"), None)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 4), st.lists(st.integers(1, 3), min_size=4, max_size=4), st.integers(0, 2**16)
)
def test_filling_patches_agrees_with_a_slow_loop(samples: int, channels: int, sizes: list[int], seed: int) -> None:
    rows, cols, height, width = sizes
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(samples, channels, rows * height, cols * width, generator=generator)
    predictions = torch.randn(samples, rows * cols, height * width * channels, generator=generator)
    is_masked = torch.rand(samples, rows * cols, generator=generator) < 0.5
    filled = fill_masked_patches(values, predictions, is_masked, (height, width))
    patches = patchify(values, (height, width))
    for sample in range(samples):
        for patch in range(rows * cols):
            wanted = predictions if is_masked[sample, patch] else patches
            row, col = divmod(patch, cols)
            block = filled[sample, :, row * height : (row + 1) * height, col * width : (col + 1) * width]
            torch.testing.assert_close(block.permute(1, 2, 0).flatten(), wanted[sample, patch])


def test_standardisation_is_undone_in_the_datas_own_units() -> None:
    raw = np.array([[[10.0, 20.0, 30.0, 40.0, 50.0] * 4] * 6] * 3) + np.arange(6)[None, :, None] * 100
    processor = SeriesFeatureExtractor(
        6, 20, scale=0.5, standardize="dataset", mean=[15.0 + 50 * c for c in range(6)], std=[3.0] * 6
    )
    batch = {"input_values": torch.tensor(np.stack([processor.prepare_sample(sample) for sample in raw]))}
    values = reconstruct(make_model("series"), batch, processor).values
    assert values is not None
    np.testing.assert_allclose(values, raw, rtol=1e-5)


@pytest.mark.parametrize("method", ["metamae", "sma"])
def test_words_stand_beside_the_markers_of_categories(method: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    fields = tiny_models.MODALITIES[method]["mixed"] | {"mask_ratio": 0.5, "num_masked_per_query": 1}
    if method == "metamae":
        del fields["num_masked_per_query"]
    model = AutoModelForPreTraining.from_config(tiny_models.config(method, **fields))
    processor = SeriesFeatureExtractor(
        *(1, 6),
        statistics_axis="feature",
        feature_names=["size", "plan", "income", "sold", "legs", "b"],
        categories=[None, ["basic", "gold", "silver"], None, [False, True], [2, 4, 6, 8], None],
        channels_last=method == "sma",
    )
    rows = [[0.5, "gold", -1.0, True, 4, 0.1], [None, "basic", 2.0, False, None, 0.3]]
    batch = dict(processor(rows, return_tensors="pt"))
    picture = reconstruct(model, batch, processor)
    assert picture.values is not None
    figure = pictures._draw_columns(picture, processor)
    for row, axes in zip(rows, figure.axes, strict=True):
        texts = [text.get_text() for text in axes.texts]
        assert [word for word in map(str, (row[1], row[3], row[4])) if word != "None" and word not in texts] == []
        assert set(texts) <= {"basic", "gold", "silver", "False", "True", "2", "4", "6", "8"}
        assert all(abs(text.xy[1]) <= 1.0 for text in axes.texts)
    assert draw_reconstruction(model, batch, tmp_path / "words.png", processor) == tmp_path / "words.png"


def test_features_of_a_row_have_their_own_mean() -> None:
    raw = np.arange(27.0).reshape(3, 9)
    processor = SeriesFeatureExtractor(
        1, 9, standardize="dataset", mean=raw.mean(0), std=raw.std(0), statistics_axis="feature"
    )
    batch = {"input_values": torch.tensor(np.stack([processor.prepare_sample(row) for row in raw]))}
    values = reconstruct(make_model("tabular"), batch, processor).values
    assert values is not None
    np.testing.assert_allclose(values[:, 0], raw, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("processor", [None, ArrayImageProcessor(standardize="sample")])
def test_unknown_standardisation_is_left_alone(processor: Any) -> None:
    batch = make_batch("rgb")
    values = reconstruct(make_model("rgb"), batch, processor).values
    assert values is not None
    np.testing.assert_array_equal(values, batch["pixel_values"].numpy())


def test_image_and_text_processor_are_found_in_a_pair() -> None:
    images = ArrayImageProcessor(standardize="dataset", mean=[1.0, 2.0, 3.0], std=[2.0] * 3)
    tokenizer = build_character_tokenizer("ACGT", 12)
    batch = make_batch("vision_language")
    for pair in (SimpleNamespace(image_processor=images, tokenizer=tokenizer), {"image_processor": images}):
        values = reconstruct(make_model("vision_language"), batch, pair).values
        assert values is not None
        np.testing.assert_allclose(values[:, 1], batch["pixel_values"].numpy()[:, 1] * 2 + 2, rtol=1e-5)


def test_spectrograms_are_heat_maps(tmp_path: Path) -> None:
    processor = SpectrogramFeatureExtractor(num_mel_bins=8, num_frames=12)
    model, batch = make_model("grey"), make_batch("grey")
    heat = open_picture(draw_reconstruction(model, batch, tmp_path / "heat.png", processor))
    grey = open_picture(draw_reconstruction(model, batch, tmp_path / "grey.png"))

    def colorful(picture: np.ndarray) -> float:
        return float((np.ptp(picture.astype(int), axis=-1) > 60).mean())

    assert colorful(heat) > 0.1 > 0.01 > colorful(grey)


def test_padding_is_neither_drawn_as_masked_nor_as_real() -> None:
    result = reconstruct(make_model("tokens"), make_batch("tokens"))
    assert result.is_real_token.sum(1).tolist() == [12, 7, 9]
    assert not (result.is_hidden_token & ~result.is_real_token).any()
    lines, _ = pictures._lay_out(result, None)
    assert [len(line.places) for line in lines] == [12, 7, 9]


def test_series_with_padded_patches_end_where_the_real_ones_end() -> None:
    batch = make_batch("series") | {"attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])}
    result = reconstruct(make_model("series"), batch)
    assert result.is_real.sum(1).tolist() == [20, 10, 15]


def test_tokens_are_written_as_the_tokenizer_writes_them() -> None:
    result = reconstruct(make_model("tokens"), make_batch("tokens"))
    assert result.ids is not None
    _, words = pictures._lay_out(result, build_character_tokenizer("ACGT", 12))
    assert {words[number] for number in np.unique(result.ids[result.is_real_token])} <= set("ACGT")
    _, bare = pictures._lay_out(result, None)
    assert bare[int(result.ids[0, 0])] == str(result.ids[0, 0])


def test_an_id_beyond_the_tokenizer_is_its_number() -> None:
    tokenizer = build_character_tokenizer("ACGT", 12)
    assert pictures._words(np.array([len(tokenizer) + 3]), tokenizer) == {len(tokenizer) + 3: str(len(tokenizer) + 3)}


def test_bytes_are_written_as_text() -> None:
    tokenizer = build_byte_tokenizer(30)
    ids = np.array([tokenizer("a b\né")["input_ids"]])
    flags = np.ones(ids.shape, dtype=bool)
    result = pictures.Reconstruction(ids=ids, predicted_ids=ids, is_hidden_token=flags, is_real_token=flags)
    _, words = pictures._lay_out(result, tokenizer)
    assert [words[token] for token in ids[0]] == ["a", "␣", "b", "↵", "\ufffd", "\ufffd", "[SEP]"]


def test_long_texts_are_wrapped_and_cut() -> None:
    length = pictures.MAX_TOKENS_SHOWN + 30
    ids = np.full((1, length), 3)
    flags = np.ones((1, length), dtype=bool)
    result = pictures.Reconstruction(ids=ids, predicted_ids=ids, is_hidden_token=flags, is_real_token=flags)
    lines, _ = pictures._lay_out(result, None)
    assert sum(len(line.places) for line in lines) == pictures.MAX_TOKENS_SHOWN
    assert len(lines) > 1
    assert all(line.edges[-1] + line.widths[-1] <= pictures.TOKEN_LINE_WIDTH for line in lines)


def test_only_the_first_samples_are_drawn() -> None:
    values = reconstruct(make_model("rgb"), make_batch("rgb"), max_samples=2).values
    assert values is not None and len(values) == 2


def test_no_path_writes_nothing(tmp_path: Path) -> None:
    assert draw_reconstruction(make_model("rgb"), make_batch("rgb"), None) is None
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_predictions_is_refused(tmp_path: Path) -> None:
    encoder: Any = make_model("rgb").base_model
    with pytest.raises(ValueError, match="MetaMAEModel gives no `mask`.*draw a pre-training model"):
        draw_reconstruction(encoder, make_batch("rgb"), tmp_path / "picture.png")


@pytest.mark.parametrize("samples, limit", [(0, 8), (3, 0)])
def test_an_empty_batch_is_refused(samples: int, limit: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to draw: max_samples is"):
        draw_reconstruction(make_model("rgb"), make_batch("rgb", samples), tmp_path / "p.png", max_samples=limit)


HISTORY: list[dict[str, Any]] = [
    {"step": 10, "train/loss": 2.0, "train/support": 1.0},
    {"step": 20, "train/loss": 1.0, "validation/loss": 1.5, "probe/linear_accuracy": 0.5, "probe/knn_accuracy": 0.4},
    {"step": 30, "train/loss": float("nan"), "probe/rankme": 7.0, "note": "words are left out", "flag": True},
]


def test_curves_of_one_quantity_share_a_panel() -> None:
    names = ["train/loss", "train/support", "validation/loss", "probe/linear_accuracy", "probe/knn_accuracy"]
    assert curves._group_names([*names, "probe/rankme", "epoch"]) == {
        "loss": ["train/loss", "validation/loss"],
        "support": ["train/support"],
        "probe accuracy": ["probe/linear_accuracy", "probe/knn_accuracy"],
        "probe rankme": ["probe/rankme"],
        "epoch": ["epoch"],
    }
    weights = ["train/weight/rgb", "train/weight/depth", "validation/weight/rgb"]
    assert curves._group_names([*weights, "train/rgb"]) == {"task weights": weights, "rgb": ["train/rgb"]}
    assert curves._labels(["train/loss", "validation/loss"]) == ["train", "validation"]
    assert curves._labels(["probe/linear", "probe/knn"]) == ["linear", "knn"]
    assert curves._labels(["a/x", "a/y", "b/x"]) == ["a/x", "a/y", "b/x"]


def test_a_split_has_one_color_in_all_panels() -> None:
    train, validation = ((curves.CURVE_COLORS[number], "-") for number in (0, 1))
    assert curves._curve_styles(["validation/loss", "train/loss"]) == [validation, train]
    assert curves._curve_styles(["validation/rgb"]) == [validation]
    assert curves._curve_styles(["train/weight/rgb", "train/weight/depth", "validation/weight/rgb"]) == [
        train,
        validation,
        (curves.CURVE_COLORS[0], "--"),
    ]
    assert curves._curve_styles(["probe/a", "probe/b"]) == [train, validation]


def test_curves_are_drawn_the_same_every_time(tmp_path: Path) -> None:
    first = draw_curves(HISTORY, tmp_path / "new" / "first.png")
    second = draw_curves(HISTORY, tmp_path / "second.png")
    assert first.read_bytes() == second.read_bytes()
    picture = open_picture(first)
    assert share_of(picture, curves.CURVE_COLORS[0]) > 0.0001
    assert share_of(picture, curves.CURVE_COLORS[1]) > 0.0001


def test_chosen_groups_are_the_only_panels(tmp_path: Path) -> None:
    whole = open_picture(draw_curves(HISTORY, tmp_path / "whole.png"))
    part = open_picture(draw_curves(HISTORY, tmp_path / "part.png", {"loss": ["train/loss", "absent"], "none": []}))
    assert part.shape[1] < whole.shape[1]


@pytest.mark.parametrize(
    "history, groups, message",
    [
        ([], None, "at least one row"),
        ([{"loss": 1.0}], None, "`step` in every row"),
        ([{"step": 1, "note": "x"}], None, "no number to draw"),
        ([{"step": 1, "loss": 1.0}], {"probe": ["accuracy"]}, r"no number to draw.*accuracy.*\['loss'\]"),
    ],
)
def test_a_history_without_curves_is_refused(history: Any, groups: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        draw_curves(history, tmp_path / "curves.png", groups)
    assert list(tmp_path.iterdir()) == []


def test_vector_files_are_written_too(tmp_path: Path) -> None:
    assert draw_curves(HISTORY, tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")
    assert b"<svg" in draw_curves(HISTORY, tmp_path / "curves.svg").read_bytes()


def test_curves_of_many_tasks_share_panels() -> None:
    tasks = [f"task{number}" for number in range(5)]
    names = [
        f"{split}/{part}{task}"
        for split in ("train", "validation")
        for part in ("", "weight/", "count/")
        for task in tasks
    ]
    groups = curves._group_names([*names, "train/next_sentence", "train/weight/next_sentence", "train/loss"])
    assert {title: len(found) for title, found in groups.items()} == {
        "task losses": 10,
        "task weights": 10,
        "next_sentence": 1,
        "weight of next_sentence": 1,
        "loss": 1,
    }


def test_words_that_came_masked_are_drawn_from_their_labels() -> None:
    config = PoSMinimaxBertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, tasks=["noun"]
    )
    model = PoSMinimaxBertForPreTraining(config)
    truth = torch.arange(5, 17).reshape(2, 6)
    is_masked = torch.zeros(2, 6, dtype=torch.bool).index_fill(1, torch.tensor([1, 4]), True)
    attention_mask = torch.ones(2, 6, dtype=torch.int64).index_fill(1, torch.tensor([5]), 0)
    batch = {"input_ids": truth.masked_fill(is_masked, 4), "attention_mask": attention_mask, "tasks": truth * 0}
    picture = pictures.reconstruct(model, batch | {"labels": truth.masked_fill(~is_masked, -100)})
    assert (picture.ids == truth.numpy()).all() and (picture.is_hidden_token == is_masked.numpy()).all()
    assert (picture.is_real_token == attention_mask.numpy().astype(bool)).all()
    logits = model.eval()(input_ids=batch["input_ids"], attention_mask=attention_mask).prediction_logits
    assert (picture.predicted_ids == logits.argmax(-1).numpy()).all()
    with pytest.raises(ValueError, match="labels"):
        pictures.reconstruct(model, batch)


def test_nothing_is_drawn_where_nothing_was_observed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for method, fields in (("metamae", {"patch_size": 2}), ("sma", {})):
        config = tiny_models.config(method, modality="series", series_length=8, num_channels=2, **fields)
        model = AutoModelForPreTraining.from_config(config)
        processor = SeriesFeatureExtractor(2, 8, channels_last=method == "sma")
        series = np.random.default_rng(0).normal(size=(3, 2, 8))
        series[0, :, 2:4], series[1, 0, 5] = np.nan, np.nan
        batch = processor(series, return_tensors="pt")
        picture = reconstruct(model, batch, processor)
        np.testing.assert_allclose(picture.values, series, rtol=1e-6)
        np.testing.assert_array_equal(np.isnan(picture.filled), np.isnan(series))
        assert not picture.is_hidden[0, 2:4].any()
        assert draw_reconstruction(model, batch, tmp_path / "a.png", processor).exists()
