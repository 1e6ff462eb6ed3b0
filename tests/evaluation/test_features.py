"""Frozen features: the same rows whatever the batch, the padding and the place they are kept in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hf_maskssl.data.collators import BatchCollator
from hf_maskssl.evaluation import features
from hf_maskssl.evaluation.features import Features, RowStore, extract_features
from hf_maskssl.models.configuration_metamae import MetaMAEConfig
from hf_maskssl.models.modeling_metamae import MetaMAEModel

VOCABULARY = 11


class TokenEncoder(nn.Module):
    """Stands in for an encoder: embeds ids, adds a class token, pools real tokens. Dropout shows if it is training."""

    def __init__(self, hidden_size: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, hidden_size)
        self.dropout = nn.Dropout(0.5)
        self.scale = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        real = (torch.ones_like(input_ids) if attention_mask is None else attention_mask).unsqueeze(-1)
        tokens = self.scale(self.dropout(self.embed(input_ids)))
        pooled = (tokens * real).sum(1) / real.sum(1)
        return BaseModelOutputWithPooling(torch.cat([pooled.unsqueeze(1), tokens], dim=1), pooled)


def token_rows(lengths: list[int], token_labels: bool = False, seed: int = 0) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    rows = []
    for index, length in enumerate(lengths):
        labels = generator.integers(0, 3, length) if token_labels else int(generator.integers(0, 3))
        rows.append({"input_ids": generator.integers(1, VOCABULARY, length), "labels": labels, "index": index})
    return rows


@pytest.fixture(scope="module")
def encoder() -> TokenEncoder:
    torch.manual_seed(0)
    return TokenEncoder()


@pytest.fixture(scope="module")
def collator() -> BatchCollator:
    return BatchCollator({"input_ids": "tokens"}, vocab_size=VOCABULARY)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), batch_size=st.integers(1, 13))
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_features_do_not_depend_on_batch_size_and_padding(
    encoder: TokenEncoder, collator: BatchCollator, level: Any, lengths: list[int], batch_size: int
) -> None:
    rows = token_rows(lengths, token_labels=level == "token")
    alone = extract_features(encoder, rows, collator, batch_size=1, level=level)
    batched = extract_features(encoder, rows, collator, batch_size=batch_size, level=level)
    assert len(batched) == (sum(lengths) if level == "token" else len(lengths))
    np.testing.assert_allclose(batched.values, alone.values, atol=1e-6)
    np.testing.assert_array_equal(batched.labels, np.hstack([row["labels"] for row in rows]))
    assert batched.values.dtype == np.float32


def test_metamae_features_do_not_depend_on_batch_size_and_padding(collator: BatchCollator) -> None:
    torch.manual_seed(0)
    config = MetaMAEConfig(
        modality="tokens",
        vocab_size=VOCABULARY,
        max_position_embeddings=16,
        pad_token_id=0,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    model = MetaMAEModel(config).train()
    rows = token_rows([3, 16, 1, 7, 7, 12], token_labels=True)
    for level in ("sequence", "token"):
        some_rows = rows if level == "token" else [{**row, "labels": 1} for row in rows]
        alone = extract_features(model, some_rows, collator, batch_size=1, level=level)
        batched = extract_features(model, some_rows, collator, batch_size=4, level=level)
        np.testing.assert_allclose(batched.values, alone.values, atol=1e-5)
        # All tokens are seen: nothing is masked in a forward pass of the base model.
        assert len(alone) == (46 if level == "token" else 6)


def test_token_level_drops_the_class_token_and_ignored_labels(encoder: TokenEncoder, collator: BatchCollator) -> None:
    rows = [{"input_ids": np.array([4, 5, 6]), "labels": np.array([2, -100, 0]), "index": 0}]
    features = extract_features(encoder, rows, collator, level="token")
    with torch.no_grad():
        expected = encoder.scale(encoder.embed(torch.tensor([4, 6])))
    np.testing.assert_allclose(features.values, expected.numpy(), atol=1e-6)
    assert features.required_labels().tolist() == [2, 0]


def test_data_loader_gives_the_same_as_rows(encoder: TokenEncoder, collator: BatchCollator) -> None:
    rows = token_rows([3, 5, 2, 4])
    loader = DataLoader(rows, batch_size=3, collate_fn=collator)  # type: ignore[arg-type, var-annotated]
    np.testing.assert_allclose(
        extract_features(encoder, loader).values, extract_features(encoder, rows, collator).values, atol=1e-6
    )


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_workers_and_batches_in_flight_change_nothing(
    encoder: TokenEncoder, collator: BatchCollator, level: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = token_rows([3, 5, 2, 4, 9, 1, 7], token_labels=level == "token")
    expected = extract_features(encoder, rows, collator, batch_size=2, level=level)
    arrived = features._arrived
    monkeypatch.setattr(features, "_arrived", lambda blocks, in_flight: arrived(blocks, 2))
    for most in (None, 1, 3, 5, 100):
        found = extract_features(
            encoder, rows, collator, batch_size=2, level=level, num_workers=2 * (most is None), max_rows=most
        )
        np.testing.assert_array_equal(found.values, expected.values[:most])
        np.testing.assert_array_equal(found.required_labels(), expected.required_labels()[:most])


def test_a_device_may_be_so_many_batches_ahead() -> None:
    begun: list[int] = []

    def blocks() -> Iterator[features._Block]:
        for number in range(6):
            begun.append(number)
            yield features._Block(torch.full((1, 2), float(number)), None)

    seen = [(int(rows[0, 0]), len(begun)) for rows, _ in features._arrived(blocks(), 2)]
    assert seen == [(0, 3), (1, 4), (2, 5), (3, 6), (4, 6), (5, 6)]


def test_bfloat16_features_are_float32_and_near(encoder: TokenEncoder, collator: BatchCollator) -> None:
    rows = token_rows([3, 5, 2])
    expected = extract_features(encoder, rows, collator).values
    found = extract_features(encoder, rows, collator, precision="bf16").values
    assert found.dtype == np.float32 and not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=0.05)
    with pytest.raises(ValueError, match=r"precision: expected one of \('no', 'bf16'\), got 'fp8'"):
        extract_features(encoder, rows, collator, precision="fp8")  # type: ignore[arg-type]


def test_rows_without_labels_have_features_but_no_labels(encoder: TokenEncoder, collator: BatchCollator) -> None:
    rows = [{"input_ids": row["input_ids"]} for row in token_rows([3, 5])]
    features = extract_features(encoder, rows, collator)
    assert features.values.shape == (2, 6) and features.labels is None
    with pytest.raises(ValueError, match="data.label_column"):
        features.required_labels()


def test_each_module_is_back_in_its_mode_even_after_an_error(encoder: TokenEncoder, collator: BatchCollator) -> None:
    encoder.train()
    encoder.dropout.eval()
    first = extract_features(encoder, token_rows([4, 4]), collator)
    assert (encoder.training, encoder.scale.training, encoder.dropout.training) == (True, True, False)
    with pytest.raises(ValueError, match="labels"):
        extract_features(encoder, token_rows([4]), collator, level="token")
    assert (encoder.training, encoder.dropout.training) == (True, False)
    encoder.dropout.train()
    # Dropout would make the second pass differ.
    np.testing.assert_array_equal(extract_features(encoder, token_rows([4, 4]), collator).values, first.values)
    encoder.eval()


def test_random_numbers_go_on_as_if_nothing_had_happened(encoder: TokenEncoder, collator: BatchCollator) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    extract_features(encoder, token_rows([4, 4]), collator)
    assert torch.equal(torch.rand(2), expected)


def test_max_rows_stops_early(encoder: TokenEncoder, collator: BatchCollator) -> None:
    rows = token_rows([4, 4, 4], token_labels=True)
    whole = extract_features(encoder, rows, collator, level="token")
    some = extract_features(encoder, rows, collator, level="token", batch_size=1, max_rows=6)
    np.testing.assert_allclose(some.values, whole.values[:6], atol=1e-6)
    np.testing.assert_array_equal(some.labels, whole.required_labels()[:6])


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_features_on_disk_are_those_in_memory(
    encoder: TokenEncoder, collator: BatchCollator, tmp_path: Path, level: Any
) -> None:
    rows = token_rows([3, 5, 2, 4, 9], token_labels=level == "token")
    expected = extract_features(encoder, rows, collator, batch_size=2, level=level)
    output = tmp_path / "new" / "train.npy"
    stored = extract_features(encoder, rows, collator, batch_size=2, level=level, output=output)
    assert isinstance(stored.values, np.memmap) and isinstance(stored.labels, np.memmap)
    assert sorted(path.name for path in output.parent.iterdir()) == ["train.labels.npy", "train.npy"]
    np.testing.assert_array_equal(np.load(output), expected.values)
    np.testing.assert_array_equal(np.load(output.with_suffix(".labels.npy")), expected.labels)
    np.testing.assert_array_equal(stored.values, expected.values)
    with pytest.raises(ValueError, match="read-only"):
        stored.values[0] = 0


def test_features_above_the_limit_move_to_disk(encoder: TokenEncoder, collator: BatchCollator) -> None:
    rows = token_rows([3] * 10)
    in_memory = extract_features(encoder, rows, collator, batch_size=2, memory_limit=10 * 6 * 4)
    on_disk = extract_features(encoder, rows, collator, batch_size=2, memory_limit=10 * 6 * 4 - 1)
    assert not isinstance(in_memory.values, np.memmap)
    assert isinstance(on_disk.values, np.memmap)
    np.testing.assert_array_equal(on_disk.values, in_memory.values)


def test_interrupted_extraction_leaves_no_file(encoder: TokenEncoder, collator: BatchCollator, tmp_path: Path) -> None:
    rows = [*token_rows([3, 3]), {"input_ids": np.array([VOCABULARY]), "labels": 0, "index": 2}]
    with pytest.raises(ValueError):
        extract_features(encoder, rows, collator, batch_size=2, output=tmp_path / "train.npy")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=25, deadline=None)
@given(blocks=st.lists(st.integers(0, 5), min_size=1, max_size=6), width=st.integers(1, 4))
def test_row_store_gives_back_what_was_appended(
    blocks: list[int], width: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    generator = np.random.default_rng(0)
    parts = [generator.normal(size=(rows, width)).astype(np.float32) for rows in blocks]
    for limit in (0, 40, 10**6):
        with RowStore(None, limit) as store:
            for part in parts:
                store.append(part)
            if len(store):
                np.testing.assert_array_equal(store.finish(), np.concatenate(parts))
    if sum(blocks):
        path = tmp_path_factory.mktemp("store") / "rows.npy"
        with RowStore(path, 0) as store:
            for part in parts:
                store.append(part)
            store.finish()
        np.testing.assert_array_equal(np.load(path), np.concatenate(parts))


def test_rows_of_another_width_are_refused() -> None:
    with RowStore(None, 100) as store, pytest.raises(ValueError, match="rows: expected shape"):
        store.append(np.zeros((2, 3), np.float32))
        store.append(np.zeros((2, 4), np.float32))


def test_bad_input_is_an_error_that_says_what_to_do(encoder: TokenEncoder, collator: BatchCollator) -> None:
    with pytest.raises(ValueError, match="data set is empty"):
        extract_features(encoder, [], collator)
    with pytest.raises(ValueError, match="collator"):
        extract_features(encoder, token_rows([2]))
    with pytest.raises(ValueError, match="check data.task"):
        extract_features(encoder, token_rows([2], token_labels=True), collator)
    broken = TokenEncoder()
    nn.init.constant_(broken.scale.bias, torch.nan)
    with pytest.raises(ValueError, match="NaN or infinite features for batch 0"):
        extract_features(broken, token_rows([2]), collator)


def test_features_refuse_labels_of_another_length() -> None:
    with pytest.raises(ValueError, match="3 rows, got shape"):
        Features(np.zeros((3, 2), np.float32), np.zeros(2))
    with pytest.raises(ValueError, match="matrix"):
        Features(np.zeros(3, np.float32), None)
