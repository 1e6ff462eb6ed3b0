"""Cells of a table as numbers: categories, dates and heavy tails, in one call, and back."""

import datetime
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import QuantileTransformer
from transformers import AutoFeatureExtractor

from hf_maskssl import SeriesFeatureExtractor
from hf_maskssl.models.table_values import category_numbers, normal_scores, undo_normal_scores

NAMES = ["weight", "colour", "sold", "legs", "born.year", "born.month"]
CATEGORIES = [None, ["blue", "red"], [False, True], [2, 4, 8], None, None]
NAN = float("nan")


def extractor(**changes: Any) -> SeriesFeatureExtractor:
    fields: dict[str, Any] = {
        "num_channels": 1,
        "series_length": 6,
        "scale": 0.5,
        "standardize": "dataset",
        "mean": [3.0] * 6,
        "std": [2.0] * 6,
        "statistics_axis": "feature",
        "feature_names": NAMES,
        "invalid_value": -999,
        "categories": CATEGORIES,
        "date_parts": {"born": ["year", "month"]},
    }
    return SeriesFeatureExtractor(**(fields | changes))


ROWS = [
    {"weight": 10.0, "colour": "red", "sold": True, "legs": 4, "born": "2020-05-17"},
    {"weight": None, "colour": "green", "sold": None, "legs": 8.0, "born": datetime.date(1999, 12, 31)},
    {"weight": -999, "colour": " ", "sold": False, "legs": -999, "born": None},
]
# (10 * 0.5 - 3) / 2; class numbers as they are; (2020 * 0.5 - 3) / 2; (5 * 0.5 - 3) / 2
EXPECTED = [
    [1.0, 1.0, 1.0, 1.0, 503.5, -0.25],
    [NAN, NAN, NAN, 2.0, 498.25, 1.5],
    [NAN, NAN, 0.0, NAN, NAN, NAN],
]


def forms() -> dict[str, Any]:
    frame = pd.DataFrame(ROWS)
    typed = frame.assign(
        colour=pd.Categorical(frame["colour"]), legs=frame["legs"].astype("Int64"), born=pd.to_datetime(frame["born"])
    )
    return {
        "rows": ROWS,
        "lists": [list(row.values()) for row in ROWS],
        "columns": {name: [row[name] for row in ROWS] for name in ROWS[0]},
        "frame": frame,
        "typed": typed,
        "array": frame.to_numpy(dtype=object),
        "row": ROWS[0],
        "list": list(ROWS[0].values()),
    }


@pytest.mark.parametrize("form", list(forms()))
def test_one_call_prepares_a_table_in_any_form(form: str, tmp_path: Path) -> None:
    data = forms()[form]
    extractor().save_pretrained(tmp_path)
    opened = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert {**opened.to_dict(), "auto_map": None} == {**extractor().to_dict(), "auto_map": None}
    expected = np.array(EXPECTED if form not in ("row", "list") else EXPECTED[:1], dtype=np.float32)[:, None]
    found = opened(data, return_tensors="np")
    np.testing.assert_allclose(found["input_values"], np.nan_to_num(expected), rtol=1e-6)
    if np.isnan(expected).any():
        np.testing.assert_array_equal(found["observed_mask"], ~np.isnan(expected))


def test_values_come_back_in_the_datas_own_words() -> None:
    table = extractor()
    values = table.raw_values(np.array([[1.0, 1.0, 0.0, 2.0, 503.5, -0.25]]), ROWS[0])
    np.testing.assert_allclose(values, [[10.0, 1.0, 0.0, 2.0, 2020.0, 5.0]])
    found = [table.category_of(place, values[0, place]) for place in (1, 2, 3)]
    assert found == ["red", False, 8] and [type(one) for one in found] == [str, bool, int]
    assert table.category_of(1, NAN) is None
    assert [table.unseen(row) for row in ROWS] == [[], ["colour"], []]
    assert table.column_names == list(ROWS[0])
    assert np.isfinite(table.prepare_sample(table.typical_row())).all()


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1).filter(str.strip)


@settings(max_examples=40, deadline=None)
@given(words=st.lists(WORDS, min_size=2, max_size=6, unique=True), other=WORDS, seed=st.integers(0, 99))
def test_a_category_is_found_by_its_text_and_another_is_missing(words: list[str], other: str, seed: int) -> None:
    table = SeriesFeatureExtractor(
        *(1, 2), statistics_axis="feature", feature_names=["x", "word"], categories=[None, words]
    )
    for number, word in enumerate(words):
        assert table.prepare_sample([0.5, word]).tolist() == [[0.5, number]]
        assert table.category_of(1, float(number)) == word
    whole, missing = (table([[0.5, value], [1.0, words[0]]], return_tensors="np") for value in (other, None))
    if other in words:
        assert "observed_mask" not in whole
        return
    for name in missing:  # a category that training did not have is what a missing one is
        np.testing.assert_array_equal(whole[name], missing[name])
    assert table.unseen([0.5, other]) == ["word"] and table.unseen([0.5, None]) == []


def test_whole_numbers_and_booleans_are_found_in_every_form_that_files_give_them() -> None:
    numbers = category_numbers([0, 1, 10])
    assert [numbers.get(text) for text in ("0", "1", "10", "2", "True")] == [0, 1, 2, None, None]
    booleans = category_numbers([False, True])
    assert {booleans[text] for text in ("True", "true", "1")} == {1}
    assert {booleans[text] for text in ("False", "false", "0")} == {0}
    with pytest.raises(ValueError, match="categories: expected different ones"):
        category_numbers([1, "1"])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), rows=st.integers(3, 60), quantiles=st.integers(2, 20), ties=st.booleans())
def test_heavy_tails_are_scikit_learns(seed: int, rows: int, quantiles: int, ties: bool) -> None:
    generator = np.random.default_rng(seed)
    values = np.exp(generator.normal(0.0, 3.0, (rows, 1)))
    values = values.round() if ties else values
    theirs = QuantileTransformer(n_quantiles=min(rows, quantiles), output_distribution="normal").fit(values)
    landmarks = theirs.quantiles_[:, 0].tolist()
    asked = np.concatenate([values, values * 1.1, [[0.0], [1e9], [NAN]]])
    scores = normal_scores(asked[:, 0], landmarks)
    np.testing.assert_allclose(scores, theirs.transform(asked)[:, 0], rtol=1e-7, atol=1e-9)
    back = undo_normal_scores(scores, landmarks)
    np.testing.assert_allclose(back, theirs.inverse_transform(scores[:, None])[:, 0], rtol=1e-6, atol=1e-9)


def test_heavy_tails_are_transformed_before_they_are_standardised() -> None:
    landmarks = [0.0, 1.0, 10.0, 1000.0, 100000.0]
    table = SeriesFeatureExtractor(
        *(1, 2),
        scale=2.0,
        standardize="dataset",
        mean=[0.5, 0.0],
        std=[2.0, 1.0],
        statistics_axis="feature",
        feature_names=["income", "x"],
        quantiles=[landmarks, None],
    )
    found = table.prepare_sample([5.0, 3.0])
    np.testing.assert_allclose(found, [[(normal_scores(np.array([10.0]), landmarks)[0] - 0.5) / 2.0, 6.0]])
    np.testing.assert_allclose(table.raw_values(found, [5.0, 3.0]), [[5.0, 3.0]], rtol=1e-5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([np.ones(2), "red", True, 4, "2020-05-17"], r"column 'weight': expected a number, got '\[1. 1.\]' .ndarray"),
        (["heavy", "red", True, 4, "2020-05-17"], "column 'weight': expected a number, got 'heavy' .str"),
        ([1.0, ["red"], True, 4, "2020-05-17"], "column 'colour': expected a word, a boolean or a whole number, got"),
        ([1.0, "red", True, 4, "yesterday"], "column 'born': expected a date such as 2026-11-27 .* got 'yesterday'"),
        ([1.0, "red", True], r"expected a cell for each of the columns \['weight', .* got 3"),
        (
            {"weight": 1.0},
            r"expected a row with the columns .* of which \['colour', 'sold', 'legs', 'born'\] are not in",
        ),
        ([math.inf, "red", True, 4, None], "weight is inf: make it NaN"),
    ],
)
def test_cells_that_are_no_such_values_are_refused(row: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extractor().prepare_sample(row)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_names": None}, "categories, quantiles and date_parts are of a table: they need feature_names"),
        ({"standardize": "sample", "mean": None, "std": None}, "standardize 'sample' takes the mean of a row"),
        ({"categories": [["a", "b"]]}, "categories: expected an entry for each of 6 features, got 1"),
        ({"date_parts": {"born": ["century"]}}, "date_parts: expected for 'born' some of .'year'"),
        ({"categories": [None, ["a", "a"], *[None] * 4]}, r"categories: expected different ones, got \['a', 'a'\]"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extractor(**changes)


def test_tables_that_lack_columns_are_refused() -> None:
    with pytest.raises(ValueError, match=r"trained on the columns \['weight', .* of which \['born'\] are not in"):
        extractor()(pd.DataFrame(ROWS).drop(columns="born"))
    with pytest.raises(ValueError, match="expected columns of one length"):
        extractor()(forms()["columns"] | {"legs": [4]})
    with pytest.raises(ValueError, match="the model's columns have no names"):
        SeriesFeatureExtractor(1, 2)(pd.DataFrame({"a": [1.0], "b": [2.0]}))
