"""Missing values that a pre-training model fills in."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForPreTraining

import tiny_models
from hf_maskssl import SeriesFeatureExtractor, impute
from hf_maskssl.models.layers import unpatchify
from hf_maskssl.models.standardization import standardize, unstandardize

FEATURES = list("abcdef")
NAN = float("nan")


def model_of(method: str, length: int, channels: int = 1, **fields: Any) -> Any:
    torch.manual_seed(0)
    config = tiny_models.config(method, modality="series", series_length=length, num_channels=channels, **fields)
    return AutoModelForPreTraining.from_config(config).eval()


def table_processor(method: str) -> SeriesFeatureExtractor:
    moments = {"mean": [100.0 + place for place in range(6)], "std": [1.0 + place for place in range(6)]}
    return SeriesFeatureExtractor(
        *(1, 6),
        **moments,
        standardize="dataset",
        statistics_axis="feature",
        feature_names=FEATURES,
        channels_last=method == "sma",
    )


@pytest.fixture
def table() -> pd.DataFrame:
    rows = pd.DataFrame(np.random.default_rng(0).normal(100.0, 3.0, (30, 6)), columns=FEATURES)
    rows.insert(2, "name", [f"row {row}" for row in range(30)])
    rows.iloc[3, 0], rows.iloc[4, 3:6] = NAN, NAN
    return rows


@pytest.mark.parametrize("method", ["metamae", "sma"])
def test_what_is_missing_is_what_the_model_predicts_of_masked_features(method: str, table: pd.DataFrame) -> None:
    fields = {"patch_size": 1} if method == "metamae" else {}
    model, processor = model_of(method, 6, **fields), table_processor(method)
    found = impute(model, table, processor, batch_size=7)
    assert list(found.data.columns) == list(table.columns) and not found.data.isna().any(axis=None)
    is_missing = table[FEATURES].isna().to_numpy()
    np.testing.assert_array_equal(found.was_missing[:, 0], is_missing)
    kept = table[FEATURES].to_numpy()[~is_missing]
    np.testing.assert_array_equal(found.data[FEATURES].to_numpy()[~is_missing], kept)
    # By hand: of row 4 the last two features are asked for; what stands there must not matter.
    inputs = torch.tensor(processor(table[FEATURES].fillna(7.0).to_numpy()[4:5])["input_values"][0])[None]
    is_masked = torch.tensor(is_missing[4:5])
    extra = {"nearby_noise": torch.ones(1, 6)} if method == "metamae" else {"predict_all": True}
    outputs = model(input_values=inputs, is_masked=is_masked, **extra)
    values = outputs.patch_predictions if method == "metamae" else outputs.predictions
    expected = values[0, :, 0].detach().numpy() * np.array(processor.std) + np.array(processor.mean)
    np.testing.assert_allclose(found.data.iloc[4][["c", "d", "e"]].astype(float), expected[2:5], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["Int64", "double[pyarrow]", "object"])
def test_holes_of_columns_of_any_type_are_filled(dtype: str, table: pd.DataFrame) -> None:
    model, processor = model_of("metamae", 6, patch_size=1), table_processor("metamae")
    table[FEATURES] = table[FEATURES].round()
    typed = table.assign(c=table["c"].astype(dtype), d=table["d"].astype(dtype))
    found = impute(model, typed, processor).data
    plain = impute(model, table, processor).data
    assert (found["c"].dtype == object) == (dtype == "object")
    np.testing.assert_array_equal(found[FEATURES].to_numpy(dtype=float), plain[FEATURES].to_numpy())


def test_a_model_that_learnt_the_data_is_better_than_their_means(table: pd.DataFrame, tmp_path: Path) -> None:
    """Every feature is the same number: an error of a fraction of the mean's, and the estimate is the truth's."""
    generator = np.random.default_rng(0)
    whole = pd.DataFrame(np.repeat(generator.normal(50.0, 4.0, (400, 1)), 6, axis=1), columns=FEATURES)
    holed = whole.mask(generator.random(whole.shape) < 0.2)
    holed.loc[holed.isna().all(axis=1), "a"] = 50.0
    processor = SeriesFeatureExtractor(
        *(1, 6),
        mean=holed.mean().tolist(),
        std=holed.std().tolist(),
        standardize="dataset",
        statistics_axis="feature",
        feature_names=FEATURES,
        channels_last=True,
    )
    model = model_of("sma", 6, masking="random", num_hidden_layers=1).train()
    batch = processor(holed.to_numpy()[:200], return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    found = impute(tmp_path, holed, hidden_share=0.3)
    assert [error.name for error in found.errors] == FEATURES
    is_missing = holed.isna().to_numpy()
    truth = np.sqrt(((found.data - whole).to_numpy()[is_missing] ** 2).mean())
    assert all(error.rmse < 0.7 * error.rmse_of_mean and error.values > 30 for error in found.errors)
    estimate = np.sqrt(np.mean([error.rmse**2 for error in found.errors]))
    assert 0.6 * truth < estimate < 1.6 * truth
    assert impute(tmp_path, holed, hidden_share=0.3).errors == found.errors
    assert impute(tmp_path, holed, hidden_share=0.3, seed=1).errors != found.errors
    assert impute(tmp_path, holed, hidden_share=0.0).errors == []


@pytest.mark.parametrize("standardised", ["none", "sample", "dataset"])
@pytest.mark.parametrize("method", ["metamae", "sma"])
def test_series_are_filled_in_their_own_units(method: str, standardised: str) -> None:
    fields = {"patch_size": 2} if method == "metamae" else {}
    model = model_of(method, 8, 2, **fields)
    moments = {"mean": [20.0, -10.0], "std": [2.0, 3.0]} if standardised == "dataset" else {}
    processor = SeriesFeatureExtractor(
        2, 8, scale=2.0, standardize=standardised, channels_last=method == "sma", invalid_value=-999.0, **moments
    )
    generator = np.random.default_rng(0)
    series = np.stack([generator.normal(10.0, 1.0, (5, 8)), generator.normal(-5.0, 1.5, (5, 8))], axis=1)
    holed = series.copy()
    holed[0, 0, 3], holed[1, :, 4:], holed[2, 1] = NAN, -999.0, NAN  # of the third no token is complete
    found = impute(model, holed, processor, hidden_share=0.5)
    is_missing = np.isnan(holed) | (holed == -999.0)
    assert found.data.shape == series.shape and np.isfinite(found.data).all()
    np.testing.assert_array_equal(found.was_missing, is_missing)
    np.testing.assert_allclose(found.data[~is_missing], series[~is_missing])
    assert [error.name for error in found.errors] == ["0", "1"]
    if standardised == "dataset":  # an untrained model says about the mean
        assert abs(found.data[1, 0, 4:].mean() - 10.0) < 3.0 and abs(found.data[1, 1, 4:].mean() + 5.0) < 4.0
    rows = SeriesFeatureExtractor(1, 8)
    flat = impute(model_of("metamae", 8, patch_size=1), np.where(is_missing, NAN, holed)[:2, 0], rows)
    assert flat.data.shape == (2, 8) and flat.was_missing.shape == (2, 1, 8)


def test_a_patch_with_holes_is_read_when_others_are_predicted_and_never_for_itself() -> None:
    model = model_of("metamae", 12, 2, patch_size=3)
    processor = SeriesFeatureExtractor(2, 12, standardize="none")
    series = np.random.default_rng(0).normal(size=(1, 2, 12))
    holes = np.zeros(series.shape, dtype=bool)
    holes[0, 0, [1, 4]] = holes[0, 1, 8] = True  # in three of four patches, which all have observed values

    def filled(changed: tuple[int, int, int] | None = None) -> np.ndarray:
        data = series.copy()
        if changed is not None:
            data[changed] += 3.0
        found: np.ndarray = impute(model, np.where(holes, NAN, data), processor, hidden_share=0.0).data
        return found

    plain = filled()
    own, other = filled((0, 1, 1)), filled((0, 1, 4))  # a value of the first patch, and one of the second
    assert own[0, 0, 1] == pytest.approx(plain[0, 0, 1], abs=1e-6)
    assert abs(own[0, 0, 4] - plain[0, 0, 4]) > 1e-5
    assert other[0, 0, 4] == pytest.approx(plain[0, 0, 4], abs=1e-6)
    assert abs(other[0, 0, 1] - plain[0, 0, 1]) > 1e-5
    # By hand: the first patch masked, of the others what was observed.
    values = torch.tensor(np.where(holes, NAN, series), dtype=torch.float32)
    is_masked = torch.tensor([[True, False, False, False]])
    observed = ~values.isnan()
    observed[..., :3] = True  # what is masked is asked for
    noise = torch.ones(1, 4)
    found = model.eval()(
        input_values=values.nan_to_num(), observed_mask=observed, is_masked=is_masked, nearby_noise=noise
    )
    expected = unpatchify(found.patch_predictions.detach(), model.config.patch_shape, (4,), 2)
    assert plain[0, 0, 1] == pytest.approx(float(expected[0, 0, 1]), rel=1e-5)


@pytest.mark.parametrize("mode", ["dataset", "sample", "none"])
@pytest.mark.parametrize("axis", [0, 1])
def test_standardising_can_be_undone(mode: str, axis: int) -> None:
    values = np.random.default_rng(0).normal(50.0, 7.0, (3, 4))
    values[1, 2] = NAN
    count = values.shape[axis]
    settings: Any = (mode, [1.0 + place for place in range(count)], [2.0 + place for place in range(count)], axis)
    found = unstandardize(standardize(values, *settings), *settings, sample=values)
    np.testing.assert_allclose(found, values)
    with pytest.raises(ValueError, match="give the sample"):
        unstandardize(values, "sample", None, None)


def test_what_cannot_be_imputed_is_refused(table: pd.DataFrame) -> None:
    model, processor = model_of("metamae", 6, patch_size=1), table_processor("metamae")
    refused: list[tuple[Any, Any, Any, dict[str, Any], str]] = [
        (model, table.drop(columns="c"), processor, {}, r"columns \['a', .* of which \['c'\] are not there"),
        (model, table.iloc[:0], processor, {}, "data: expected at least one row, got none"),
        (model, table, processor, {"hidden_share": 1.0}, "hidden_share: expected a share"),
        (model, table, None, {}, "expected the SeriesFeatureExtractor .* got NoneType"),
        (model.base_model, table, processor, {}, "a MetaMAEModel cannot be asked .* give a pre-training model"),
        (model, [[NAN] * 6], processor, {}, "data: all 1 rows have nothing that was observed"),
    ]
    for given, data, with_processor, options, message in refused:
        with pytest.raises(ValueError, match=message):
            impute(given, data, with_processor, **options)


def test_rows_of_which_nothing_was_observed_stay_as_they_are(
    table: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    model, processor = model_of("metamae", 6, patch_size=1), table_processor("metamae")
    whole = impute(model, table, processor)
    table.loc[30] = [NAN, NAN, "nothing", NAN, NAN, NAN, NAN]
    found = impute(model, table, processor)
    assert "1 of 31 rows have nothing that was observed and stay as they are" in caplog.text
    pd.testing.assert_frame_equal(found.data.iloc[:30], whole.data)
    assert found.data.iloc[30][FEATURES].isna().all()


@pytest.mark.parametrize("method", ["metamae", "sma"])
def test_padding_is_not_filled_in(method: str) -> None:
    """A short series gets what it gets where a model reads no more steps, and nobody predicts what is behind its end."""
    fields = {"patch_size": 2} if method == "metamae" else {}
    long, short = model_of(method, 12, 2, **fields), model_of(method, 7 + (method == "metamae"), 2, **fields)
    own = short.state_dict()
    for name, value in own.items():
        own[name] = long.state_dict()[name][tuple(slice(0, size) for size in value.shape)]
    short.load_state_dict(own)
    sample = np.random.default_rng(0).normal(size=(2, short.config.series_length - (method == "metamae")))
    sample[0, 2] = NAN

    def filled(model: Any, samples: Any) -> Any:
        return impute(
            model, samples, SeriesFeatureExtractor(2, model.config.series_length, channels_last=method == "sma")
        )

    whole = np.random.default_rng(1).normal(size=(2, 12))
    found, alone = filled(long, [sample, whole]), filled(short, [sample])
    assert [one.shape for one in found.data] == [sample.shape, whole.shape]
    assert found.was_missing.sum() == 1 and np.isfinite(found.data[0]).all()
    np.testing.assert_allclose(found.data[0], np.asarray(alone.data)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.data[1], whole)
