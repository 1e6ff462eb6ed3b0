"""Rows to batches."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_maskssl.data import BatchCollator


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=5))
def test_tokens_are_padded_to_the_longest(sequences: list[list[int]]) -> None:
    collator = BatchCollator({"input_ids": "text"}, vocab_size=10, pad_token_id=0)
    rows = [{"input_ids": np.array(ids), "index": place} for place, ids in enumerate(sequences)]
    batch = collator(rows)
    lengths = [len(ids) for ids in sequences]
    assert batch["input_ids"].shape == (len(sequences), max(lengths)) and batch["input_ids"].dtype == torch.int64
    assert ("attention_mask" in batch) == (len(set(lengths)) > 1)
    for place, ids in enumerate(sequences):
        assert batch["input_ids"][place, : len(ids)].tolist() == ids
        assert not batch["input_ids"][place, len(ids) :].any()
        if "attention_mask" in batch:
            assert batch["attention_mask"][place].tolist() == [1] * len(ids) + [0] * (max(lengths) - len(ids))


def test_texts_of_images_always_have_a_mask() -> None:
    collator = BatchCollator({}, vocab_size=10, always_mask=True)
    row = {"pixel_values": np.zeros((1, 2, 2)), "input_ids": [1, 2]}
    batch = collator([row, row])
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 1]]
    assert batch["pixel_values"].dtype == torch.float32


def test_zero_is_a_token_where_no_padding_id_is_named() -> None:
    batch = BatchCollator({}, vocab_size=4)([{"input_ids": [0, 1]}, {"input_ids": [0, 0]}])
    assert "attention_mask" not in batch


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        (
            [{"input_values": [[1.0]], "index": 3}, {"input_values": [[np.nan]], "index": 8}],
            "row 8, column 's' has no value that was observed: drop such rows",
        ),
        ([{"input_values": [[np.inf]], "index": 3}], "row 3, column 's' has values that are not finite"),
        ([{"input_values": [[1.0]]}, {"input_values": [[1.0, 2.0]], "index": 5}], r"row 5.*shape \(1, 2\).*\(1, 1\)"),
        ([{"input_ids": [1, 4], "index": 2}], "row 2, column 't' holds the id 4, outside the vocabulary 0..3"),
        ([{"input_ids": [1]}, {"input_ids": [], "index": 6}], "row 6, column 't' is empty or all padding"),
        ([{"input_ids": [0, 0], "index": 7}], "row 7, column 't' is empty or all padding"),
    ],
)
def test_bad_rows_are_named(rows: list[dict[str, Any]], message: str) -> None:
    collator = BatchCollator({"input_values": "s", "input_ids": "t"}, vocab_size=4, pad_token_id=0)
    with pytest.raises(ValueError, match=message):
        collator(rows)


def test_large_finite_values_pass_although_their_sum_overflows() -> None:
    rows = [{"input_values": np.full((1, 4), 3e38, dtype=np.float32)}] * 2
    assert torch.isfinite(BatchCollator({})(rows)["input_values"]).all()
