"""Results files and the tables written from them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_tables import fill_tables, main, update_tables

from hf_maskssl.evaluation.reports import markdown_table, significant, text_table
from hf_maskssl.files import write_json

TABLE: dict[str, Any] = {
    "columns": ["model", "accuracy"],
    "rows": [["MAE", {"mean": 91.25, "half_width": 0.5}], ["a|b", None]],
}
DRAWN = "| model | accuracy |\n| --- | ---: |\n| MAE | 91.25 ± 0.50 |\n| a\\|b | – |"
CARD = "# Card\n\n<!-- table:probe -->\nold\n<!-- /table:probe -->\n\nend\n"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    write_json(folder / "probe.json", {"title": "Probe", "table": TABLE, "tables": {"few": TABLE}})
    return folder


def test_write_json_round_trip_with_numpy_and_paths(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    write_json(path, {"a": np.float32(0.5), "b": np.arange(2), "c": [Path("x"), None, True], "d": {"é": (1, 2)}})
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "a": 0.5,
        "b": [0, 1],
        "c": ["x", None, True],
        "d": {"é": [1, 2]},
    }


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("nan"), np.array([1.0, -math.inf])])
def test_write_json_refuses_nan_says_where_and_keeps_the_old_file(tmp_path: Path, bad: object) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"ok": 1})
    with pytest.raises(ValueError, match=r"runs\[1\]\.accuracy"):
        write_json(path, {"runs": [{"accuracy": 1.0}, {"accuracy": bad}]})
    assert json.loads(path.read_text()) == {"ok": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_write_json_leaves_the_old_file_when_it_fails_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"ok": 1})

    def half_a_file(data: object, file: object, **options: object) -> None:
        file.write('{"ok": ')  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(json, "dump", half_a_file)
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"ok": 2})
    assert path.read_text() == '{\n  "ok": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_write_json_refuses_objects(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="model is a object"):
        write_json(tmp_path / "result.json", {"model": object()})


def test_markdown_table_of_every_kind_of_cell() -> None:
    assert markdown_table(TABLE["rows"], TABLE["columns"]) == DRAWN
    rows = [["x", 3, 0.126, True, {"mean": 2.0, "half_width": None}]]
    assert markdown_table(rows, list("abcde")).splitlines()[2] == "| x | 3 | 0.126 | yes | 2.00 |"


@pytest.mark.parametrize(
    ("mean", "half_width", "cell"),
    [
        (0.012345, None, "0.0123"),
        (0.012545, 0.00021, "0.0125 ± 0.0002"),
        (0.1, 0.0, "0.100 ± 0.000"),
        (-0.0512, 0.43, "-0.05 ± 0.43"),  # no more digits than the half width warrants
        (0.0, 0.0042, "0.0000 ± 0.0042"),
        (0.0, None, "0.00"),
        (0.05, None, "0.05"),
        (0.5, None, "0.50"),
        (91.254, 0.001, "91.25 ± 0.00"),
        (math.nan, None, "nan"),
    ],
)
def test_small_numbers_keep_their_digits(mean: float, half_width: float | None, cell: str) -> None:
    assert markdown_table([[{"mean": mean, "half_width": half_width}]], ["c"]).splitlines()[2] == f"| {cell} |"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(12345.6, 3, "12346"), (0.000123456, 4, "0.0001235"), (-0.5, 3, "-0.500"), (0.0, 3, "0")],
)
def test_significant_digits_need_no_exponent(value: float, digits: int, text: str) -> None:
    assert significant(value, digits) == text


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 4), st.integers(1, 4), st.text("ab|\n", max_size=4))
def test_markdown_table_has_one_line_a_row_and_one_cell_a_column(num_rows: int, num_columns: int, cell: str) -> None:
    lines = markdown_table([[cell] * num_columns] * num_rows, ["c"] * num_columns).split("\n")
    assert len(lines) == num_rows + 2
    assert {line.replace("\\|", "").count("|") for line in lines} == {num_columns + 1}


def test_markdown_table_refuses_crooked_rows_and_odd_cells() -> None:
    with pytest.raises(ValueError, match="Row 1 .* 1 cells for 2 columns"):
        markdown_table([[1, 2], [1]], ["a", "b"])
    with pytest.raises(ValueError, match="cell must be .* list"):
        markdown_table([[[1]]], ["a"])


def test_tables_are_rewritten_and_the_second_time_nothing_changes(tmp_path: Path, results: Path) -> None:
    card, plain = tmp_path / "card.md", tmp_path / "plain.md"
    card.write_text(CARD + "<!-- table:probe/few -->\n<!-- /table:probe/few -->\n", encoding="utf-8")
    plain.write_text("no table", encoding="utf-8")
    assert update_tables([card, plain], results) == [card]
    assert card.read_text(encoding="utf-8") == (
        f"# Card\n\n<!-- table:probe -->\n{DRAWN}\n<!-- /table:probe -->\n\nend\n"
        f"<!-- table:probe/few -->\n{DRAWN}\n<!-- /table:probe/few -->\n"
    )
    assert update_tables([card, plain], results) == []


def test_check_tells_and_changes_nothing(tmp_path: Path, results: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text(CARD, encoding="utf-8")
    assert update_tables([card], results, check=True) == [card]
    assert card.read_text(encoding="utf-8") == CARD
    update_tables([card], results)
    assert update_tables([card], results, check=True) == []
    write_json(results / "probe.json", {"table": {**TABLE, "rows": []}})
    assert update_tables([card], results, check=True) == [card]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n<!-- table:probe -->\n", r"Line 2: .* needs its partner <!-- /table:probe --> after"),
        ("<!-- /table:probe -->\n", r"Line 1: .* needs its partner <!-- table:probe --> before"),
        ("<!-- table:probe -->\n<!-- table:probe/few -->\n<!-- /table:probe/few -->\n", "Line 1"),
        ("<!-- table:probe -->\n<!-- /table:other -->\n", "Line 1"),
        ("<!-- table:missing -->\n<!-- /table:missing -->\n", "there is no .*missing.json"),
        ("<!-- table:probe/many -->\n<!-- /table:probe/many -->\n", 'must hold "tables": {"many"'),
    ],
)
def test_broken_markers_are_errors_that_name_line_and_partner(results: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fill_tables(text, results)


def test_no_file_is_written_when_one_is_broken_and_the_error_names_it(tmp_path: Path, results: Path) -> None:
    good, broken = tmp_path / "good.md", tmp_path / "broken.md"
    good.write_text(CARD, encoding="utf-8")
    broken.write_text("<!-- table:probe -->\n", encoding="utf-8")
    with pytest.raises(ValueError, match="broken.md: Line 1"):
        update_tables([good, broken], results)
    assert good.read_text(encoding="utf-8") == CARD


def test_marker_inside_a_line_is_text(results: Path) -> None:
    text = "write `<!-- table:probe -->` on a line\n"
    assert fill_tables(text, results) == text


def test_command_checks_and_rewrites(tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text(CARD, encoding="utf-8")
    Path("model_cards").mkdir()
    Path("model_cards/mae.md").write_text(CARD, encoding="utf-8")
    assert main(["--results", str(results), "--check"]) == 1
    assert main(["--results", str(results)]) == 0
    assert main(["--results", str(results), "--check"]) == 0
    assert DRAWN in Path("model_cards/mae.md").read_text(encoding="utf-8")


def test_text_table_fits_a_terminal_and_keeps_the_ends_of_paths() -> None:
    rows: list[list[Any]] = [["outputs/" + "x" * 90 + "/end", {"mean": 91.25, "half_width": 0.5}, 3], ["b", None, 10]]
    lines = text_table(rows, ["", "linear probe", "runs"], width=60).splitlines()
    assert max(map(len, lines)) == 60
    assert lines[1].startswith("…xx") and "/end  91.25 ± 0.50" in lines[1] and lines[1].endswith("     3")
    assert lines[2].split() == ["b", "10"]
    assert lines[0].endswith("linear probe  runs")
    with pytest.raises(ValueError, match="Row 0"):
        text_table([["a"]], ["a", "b"])


def test_columns_that_find_no_place_stand_below() -> None:
    columns = ["hidden_dropout_prob", "probe/linear_accuracy (%)", "paper: PAMAP2", "paper: WaferMap", "runs"]
    rows: list[list[Any]] = [
        [0.0, {"mean": 91.25, "half_width": 0.5}, 79.4, 95.5, 3],
        ["x" * 40, None, 89.3, 94.7, 10],
    ]
    assert text_table(rows, columns, width=70).splitlines() == [
        "hidden_dropout_prob      probe/linear_accuracy (%)  paper: PAMAP2",
        "0.00                                  91.25 ± 0.50          79.40",
        "…xxxxxxxxxxxxxxxxxxxxxx                                     89.30",
        "",
        "hidden_dropout_prob      paper: WaferMap  runs",
        "0.00                               95.50     3",
        "…xxxxxxxxxxxxxxxxxxxxxx            94.70    10",
    ]
    assert "\n\n" not in text_table(rows, columns, width=90)
