"""Tables of numbers and categories: what the training rows say of their columns, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from data_configs import series_config
from datasets import Dataset, IterableDataset

from hf_maskssl.data import prepare_data
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.kinds import find_kind
from hf_maskssl.data.tables.table_columns import count_categories
from hf_maskssl.evaluation.baselines import read_raw_inputs

NAN = float("nan")


def config(counts: list[int] | None, length: int | None = None) -> Any:
    found = series_config(1, len(counts or []) if length is None else length)
    found.category_counts = counts
    return found


def table(rows: int = 40) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": random.normal(3.0, 2.0, rows),
            "colour": random.choice(["red", "green", "blue"], rows),
            "sold": random.choice([True, False], rows),
            "legs": random.choice([2, 4], rows),
            "price": np.exp(random.normal(0.0, 3.0, rows)),
            "day": [f"2026-{1 + row % 12:02}-{1 + row % 28:02}" for row in range(rows)],
            "label": random.choice(["a", "b"], rows),
        }
    )


def section(path: Path, frame: pd.DataFrame | None = None, **fields: Any) -> Any:
    (table() if frame is None else frame).to_csv(path / "table.csv", index=False)
    values = {"source": "csv", "data_files": str(path / "table.csv"), "kind": "tabular", "label_column": "label"}
    return data_arguments(**(values | fields))


def test_categories_dates_and_heavy_tails_in_the_order_of_the_table(tmp_path: Path) -> None:
    args = section(
        tmp_path, category_columns=["colour", "sold", "legs"], date_columns=["day"], quantile_columns=["price"]
    )
    prepared = prepare_data(args, config([0, 3, 2, 2, 0, 0, 0, 0, 0]))
    processor: Any = prepared.processor
    assert processor.feature_names == [
        *("size", "colour", "sold", "legs", "price"),
        *("day.year", "day.month", "day.day", "day.weekday"),
    ]
    assert processor.categories[1:4] == [["blue", "green", "red"], [False, True], [2, 4]]
    assert [one is not None for one in processor.quantiles] == [name == "price" for name in processor.feature_names]
    rows, raw = prepared.train.arrays()["input_values"][:, 0], table()
    assert rows[:, 1].tolist() == [["blue", "green", "red"].index(colour) for colour in raw["colour"]]
    assert rows[:, 2].tolist() == raw["sold"].tolist()
    np.testing.assert_allclose(rows[:, 0], (raw["size"] - raw["size"].mean()) / raw["size"].std(ddof=0), rtol=1e-5)
    np.testing.assert_allclose(rows[:, [0, 4, 6]].std(axis=0), 1.0, rtol=1e-5)
    assert abs(rows[:, 4]).max() < 4.0  # of prices over five orders of magnitude
    assert prepared.report.categories == {"colour": 3, "sold": 2, "legs": 2}
    assert "  categories: colour 3, sold 2, legs 2" in prepared.report.lines()


def test_where_the_model_reads_categories_words_and_booleans_are_categories(tmp_path: Path) -> None:
    frame = table().drop(columns="day")
    args = section(tmp_path, frame)
    processor: Any = prepare_data(args, config([0, 3, 2, 0, 0])).processor
    assert processor.categories == [None, ["blue", "green", "red"], [False, True], None, None]
    # A model of numbers alone reads what it has always read.
    processor = prepare_data(args, config(None, 4)).processor
    assert processor.feature_names == ["size", "sold", "legs", "price"] and processor.categories is None


def test_a_table_of_numbers_is_prepared_as_before(tmp_path: Path) -> None:
    """Dict, list and file give the very numbers, whether the processor reads cells or not."""
    frame = table()[["size", "legs", "price", "label"]]
    prepared = prepare_data(section(tmp_path, frame), config(None, 3))
    values = frame[["size", "legs", "price"]].to_numpy()
    expected = ((values - values.mean(0)) / values.std(0)).astype(np.float32)
    np.testing.assert_allclose(prepared.train.arrays()["input_values"][:, 0], expected, rtol=1e-5, atol=1e-6)
    processor: Any = prepared.processor
    for given in (frame, frame.to_dict("records"), frame.to_dict("list"), values):
        found = processor(given, return_tensors="np")["input_values"]
        np.testing.assert_array_equal(found, prepared.train.arrays()["input_values"])


def test_a_category_that_training_did_not_have_is_missing_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = table().drop(columns="day")
    (tmp_path / "train").mkdir()
    frame.to_csv(tmp_path / "train" / "train.csv", index=False)
    other = frame.copy()
    other.loc[:4, "colour"], other.loc[7, "colour"] = "mauve", None
    other.to_csv(tmp_path / "train" / "test.csv", index=False)
    files = {name: str(tmp_path / "train" / f"{name}.csv") for name in ("train", "test")}
    args = data_arguments("csv", data_files=files, kind="tabular", test_split="test", label_column="label")
    prepared = prepare_data(args, config([0, 3, 2, 0, 0]))
    assert prepared.test is not None
    is_missing = np.isnan(prepared.test.arrays()["input_values"][:, 0, 1])
    assert np.flatnonzero(is_missing).tolist() == [0, 1, 2, 3, 4, 7]
    assert prepared.report.splits["test"].unseen == {"colour": 5} and not prepared.report.splits["train"].unseen
    assert "test split: 5 of 40 rows have in column 'colour' a category that training did not have" in caplog.text
    assert "  categories that training lacks: colour 5 (12 %)" in prepared.report.lines()
    again = prepare_data(args, config([0, 3, 2, 0, 0]), prepared.processor)
    assert again.report.splits["test"].unseen == {"colour": 5}


@pytest.mark.parametrize(
    ("fields", "counts", "message"),
    [
        (
            {},
            None,
            r"model.series_length is 6, but there are 4 feature columns.*'colour' .*data.category_columns reads",
        ),
        (
            {"category_columns": "auto"},
            None,
            r"category_counts is None, but column 'colour' holds 3 .* to \[0, 3, 2, 0, 0, ",
        ),
        (
            {"category_columns": ["colour"]},
            [0, 2, 0, 0, 0],
            "but column 'colour' holds 3 categories in the training split",
        ),
        (
            {"category_columns": ["colour"]},
            [2, 3, 0, 0, 0],
            "but column 'size' holds numbers: set model.category_counts to",
        ),
        (
            {"category_columns": ["size"]},
            [3, 0, 0, 0],
            r"'size' holds .*, a number with a fraction, which is no category",
        ),
        (
            {"category_columns": ["color"]},
            [0, 3, 0, 0, 0],
            "category_columns: .* has no column 'color'.*mean 'colour'",
        ),
        (
            {"category_columns": "some"},
            [0, 3],
            "data.category_columns: expected a list of columns or 'auto', got 'some'",
        ),
        ({"category_columns": ["label"]}, [0, 3], "data.label_column: 'label' is also an input column"),
        ({"max_categories": 2}, [0, 3, 2, 0, 0, 40], r"'colour' has 3 categories .* more than data.max_categories 2"),
        ({"date_columns": ["colour"]}, None, "data.date_columns: column 'colour', row 0: expected a date such as"),
        ({"quantile_columns": ["colour"]}, None, "data.quantile_columns: 'colour' is no feature, which are .'size'"),
        (
            {"category_columns": ["day"], "date_columns": ["day"]},
            [0, 3],
            "data.category_columns: 'day' is named as another kind of column, too",
        ),
        (
            {"input_column": ["size", "legs"], "category_columns": ["colour"]},
            [0, 3],
            "data.category_columns: 'colour' is not among data.input_column",
        ),
        ({"input_column": "size", "category_columns": ["colour"]}, [0], "data.input_column is the one column 'size'"),
    ],
)
def test_recipes_that_do_not_fit_say_what_to_set(
    fields: dict[str, Any], counts: list[int] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare_data(section(tmp_path, **fields), config(counts, len(counts or [0] * 6)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["red"] * 40, "column 'colour' has the one category 'red' in the training split, which says nothing"),
        ([None] * 39 + ["red"], "column 'colour' has the one category 'red'"),
        (
            [f"name {row}" for row in range(2000)],
            "has 2,000 categories in the training split, more than .* 1,000: leave",
        ),
    ],
)
def test_columns_without_sense_are_named(values: list[str], message: str, tmp_path: Path) -> None:
    frame = table(len(values)).assign(colour=values).drop(columns="day")
    with pytest.raises(ValueError, match=f"data.category_columns: .*{message}"):
        prepare_data(section(tmp_path, frame), config([0, 3, 2, 0, 0]))


def test_mixed_types_in_a_cell_are_named(tmp_path: Path) -> None:
    frame = table().drop(columns="day").astype({"size": object})
    frame.loc[3, "size"] = "large"
    args = section(tmp_path, frame, category_columns=["colour"], input_column=["size", "colour"])
    with pytest.raises(ValueError, match="train split, row 3, .* column 'size': expected a number, got 'large'"):
        prepare_data(args, config([0, 3]))
    lists = Dataset.from_dict({"words": [["a"], ["b"]]})
    with pytest.raises(ValueError, match="column 'words' holds .*list.* expected words, whole numbers or booleans"):
        count_categories(lists, "words")


def test_a_checkpoint_of_other_columns_names_them(tmp_path: Path) -> None:
    frame = table().drop(columns="day")
    model = config([0, 3, 2, 0, 0])
    processor = prepare_data(section(tmp_path, frame), model).processor
    other = section(tmp_path, frame.rename(columns={"colour": "color"}))
    with pytest.raises(ValueError, match=r"trained on the columns .* of which \['colour'\] are not there; .*'color'"):
        prepare_data(other, model, processor)


def test_raw_inputs_of_a_plain_model_have_a_column_for_each_category(tmp_path: Path) -> None:
    frame = table().drop(columns="day")
    frame.loc[3, "colour"] = None
    prepared = prepare_data(section(tmp_path, frame), config([0, 3, 2, 0, 0]))
    assert not isinstance(prepared.train, IterableDataset)
    found = read_raw_inputs(prepared.train, prepared, "classification")
    values = prepared.train.arrays()["input_values"][:, 0]
    assert found.values is not None and found.values.shape == (40, 1 + 3 + 2 + 2)
    words = frame["colour"].fillna("none").to_numpy()
    np.testing.assert_array_equal(found.values[:, 1:4], words[:, None] == np.array(["blue", "green", "red"]))
    np.testing.assert_array_equal(found.values[:, [0, 6, 7]], values[:, [0, 3, 4]])


def test_streams_have_the_categories_of_their_first_rows(tmp_path: Path) -> None:
    frame = table().drop(columns="day")
    args = section(tmp_path, frame, streaming=True, category_columns=["colour", "sold"], input_column=list(frame)[:5])
    prepared = prepare_data(args, config([0, 3, 2, 0, 0]))
    rows = [row["input_values"][0] for row in prepared.train]
    whole = prepare_data(section(tmp_path, frame), config([0, 3, 2, 0, 0])).train.arrays()["input_values"][:, 0]
    np.testing.assert_allclose(np.stack(rows), whole, rtol=1e-6)


def test_what_a_table_without_a_recipe_would_be() -> None:
    frame = table().assign(name=[f"name {row}" for row in range(40)])
    frame["day"] = frame["day"].str[:8] + "01"  # few dates, of many rows each, are no categories
    rows = Dataset.from_pandas(frame)
    guess = find_kind("tabular").guess(rows, "label")
    assert guess is not None and guess.model["category_counts"] == [0, 3, 2, 0, 0]
    assert guess.data == {
        "input_column": ["size", "colour", "sold", "legs", "price"],
        "category_columns": ["colour", "sold"],
    }
    assert guess.reason == "3 columns of numbers and 2 of categories"
    assert guess.remarks == [
        "left out: the columns day, name; --data.input_column names those to read",
        "categories: colour (3), sold (2); --data.category_columns",
    ]
