"""CSV files as people write numbers: thousands, words for what is missing; from a file alone to rows and guesses."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pytest
from pandas.compat._optional import VERSIONS

from hf_maskssl import SeriesFeatureExtractor
from hf_maskssl.data import data_arguments
from hf_maskssl.data.looking import first_look, source_values
from hf_maskssl.data.tables.csv_numbers import CsvNumbers, numbers_of_csv
from hf_maskssl.data.tables.csv_shape import shape_of_csv
from hf_maskssl.data.tables.sources import read_split
from hf_maskssl.embedding.sources import completed_values, section_of
from hf_maskssl.training.needs import describe
from hf_maskssl.training.own_data import guessed, recipe_from_data

pytestmark = pytest.mark.usefixtures("private_cache")


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("lines", "thousands", "words"),
    [
        (("x,y", "1,2", "3.5,-4"), None, ()),
        (("x,y", '"1,234.5",2', "3.5,-4"), ",", ()),
        (("x;y", "1.234,5;2", "-12.345;4"), ".", ()),
        (("x;y", "1 234,5;2", "3,5;4"), " ", ()),
        (("x,y", "?,2", "3,-", "4, ", "1,1"), None, ("?", "-", " ")),
        (("x,y", "NA,2", "3,null", "4,5"), None, ()),  # known without a field
        (("x;y", "01.02.2024;2", "02.03.2024;4"), None, ()),  # dates
        (("x;y", "1,2;2", "3,4;4"), None, ()),  # decimals
        (("x,y", '"1,2",2', '"3,4",4'), None, ()),  # neither numbers nor thousands
        (("x,y", "low,2", "-,3", "?,4"), None, ()),  # a column of words
        (("x,y", "90+,2", "1,3", "-,4", "2,5"), None, ()),  # what is no number is not understood
    ],
)
def test_how_numbers_are_written(
    lines: tuple[str, ...], thousands: str | None, words: tuple[str, ...], tmp_path: Path
) -> None:
    path = str(write(tmp_path / "a.csv", *lines))
    assert numbers_of_csv(path, shape_of_csv(path)) == CsvNumbers(thousands, words)


def test_thousands_and_words_are_read(tmp_path: Path) -> None:
    lines = ["n;x;day;word", "1;1.234,5;01.02.2024;?", "?;-;02.03.2024;b", "3;99,25;03.03.2024;c.d"]
    values = source_values(str(write(tmp_path / "a.csv", *lines)))
    assert values["thousands"] == "." and values["decimal"] == "," and values["missing_words"] == ["?", "-"]
    rows = first_look(values)
    assert rows["n"] == [1.0, None, 3.0] and rows["x"] == [1234.5, None, 99.25]
    assert rows["day"] == ["01.02.2024", "02.03.2024", "03.03.2024"] and rows["word"] == [None, "b", "c.d"]


def holed(rows: int = 200) -> list[str]:
    """Numbers with thousands, and words, of both of which a tenth is missing in several spellings."""
    random = np.random.default_rng(0)
    numbers = [f'"{value:,.1f}"' for value in random.uniform(0, 9000, rows)]
    words = list(random.choice(["basic", "gold"], rows))
    for place, (one, other) in enumerate(
        zip(("", "?", "NA", "n/a", " "), ("NA", "?", "", "None", "null"), strict=True)
    ):
        numbers[place * 7], words[place * 7 + 3] = one, other
    return ["amount,plan,left", *(f"{a},{b},{row % 2}" for row, (a, b) in enumerate(zip(numbers, words, strict=True)))]


def test_a_holed_table_becomes_a_recipe_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe names columns of words, in which NA and None would otherwise be categories that the guess did not count."""
    monkeypatch.chdir(tmp_path)
    write(Path("a.csv"), *holed())
    said: list[str] = []
    recipe = recipe_from_data("a.csv", "r", label_column="left", max_steps=20, say=said.append)
    report = describe(recipe, steps=0).report
    assert report.categories == {"plan": 2} and report.features == ["amount", "plan"]
    train, validation = report.splits["train"].missing, report.splits["validation"].missing
    assert {name: train.get(name, 0) + validation.get(name, 0) for name in ("amount", "plan")} == {
        "amount": 5,
        "plan": 5,
    }
    text = "\n".join(said)
    assert "thousands: ',' stands between them; --data.thousands" in text
    assert "missing: cells that hold '?', ' ', 'NA', 'None', 'null'; --data.missing_words" in text


def test_the_word_none_may_be_a_class(tmp_path: Path) -> None:
    lines = [f"{row},{plan},{harm}" for row, (plan, harm) in enumerate([("x", "mild"), ("None", "None")] * 4)]
    path = write(tmp_path / "a.csv", "a,plan,harm", *lines)
    section: dict[str, Any] = {"input_column": ["a", "plan"], "category_columns": ["plan"], "label_column": "harm"}
    args = data_arguments("csv", data_files=str(path), missing_words=["None"], kind="tabular", **section)
    rows = read_split(args, "train")
    assert rows[1]["plan"] is None and rows[1]["harm"] == "None"


def test_words_that_training_did_not_have_are_missing_where_features_are_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,plan", "1,x", "2,None", "3,NA", "?,x")
    processor = SeriesFeatureExtractor(
        1, 2, statistics_axis="feature", feature_names=["a", "plan"], categories=[None, ["None", "x"]]
    )
    encoder: Any = SimpleNamespace(kind="tabular", processor=processor, config=None)
    values = completed_values(source_values(str(path)), encoder)
    rows = read_split(section_of(values), "train")
    assert rows["plan"] == ["x", "None", None, "x"] and rows["a"] == [1.0, 2.0, 3.0, None]


def test_cells_that_keep_a_column_from_being_one_of_numbers_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("a.csv"), "x,z,age", *(f"{row / 2},{row * row},{row if row % 9 else '90+'}" for row in range(1, 40)))
    values = source_values("a.csv")
    said = "\n".join(guessed(first_look(values), values, None, None).remarks)
    assert (
        """words: age holds numbers but for '90+', which make it a column of words; --data.missing_words '["90+"]' reads"""
        in said
    )
    recipe = recipe_from_data(
        "a.csv", "r", max_steps=20, overrides=["--data.missing_words", '["90+"]'], say=lambda _: None
    )
    assert describe(recipe, steps=0).report.features == ["x", "z", "age"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"thousands": ",,"}, "data.thousands: expected one character, got ',,'"),
        ({"thousands": "."}, "data.thousands and data.decimal are both '.'"),
        ({"thousands": ",", "streaming": True}, "data.thousands: a stream does not know"),
        (
            {"source": "parquet", "missing_words": ["?"]},
            r"data.missing_words is \['\?'\] with data.source 'parquet'.*only for csv",
        ),
    ],
)
def test_fields_that_cannot_work(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data_arguments(**{"source": "csv", "data_files": "a", "kind": "tabular", "input_column": ["x"], **fields})


def test_addresses_are_read_with_every_version_of_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    with fsspec.open("memory://numbers/a.csv.gz", "wt", compression="gzip") as file:
        file.write("price\n" + '"1,250.5"\n?\n12\n' * 5)
    monkeypatch.setitem(VERSIONS, "fsspec", "9999")  # pandas takes newer ones alone
    found = source_values("memory://numbers/a.csv.gz")
    assert found["thousands"] == "," and found["missing_words"] == ["?"]
