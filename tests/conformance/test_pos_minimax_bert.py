"""PoS-BERT and its heads under transformers' common tests."""

import pytest
import torch
from adapters import Case, Inputs, adapters

from hf_maskssl.methods.pos_minimax_bert import METHOD
from tiny_models import SIZES

pytestmark = pytest.mark.slow
LENGTH = 11


def batch(size: int) -> Inputs:
    ids = torch.randint(5, 30, (size, LENGTH))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def masked_words(size: int) -> Inputs:
    """Every piece is masked; the tasks take turns."""
    places = torch.arange(LENGTH).expand(size, -1)
    return {"labels": 5 + places, "tasks": places % 9}


globals().update(
    adapters(
        Case(
            name="Text",
            method=METHOD,
            fields=SIZES["pos_minimax_bert"],
            inputs=batch,
            num_tokens=LENGTH,
            encoded={"": LENGTH},
            labels={
                "PoSMinimaxBertForMaskedLM": masked_words,
                "PoSMinimaxBertForPreTraining": lambda size: (
                    masked_words(size) | {"next_sentence_label": torch.tensor([0, 1] * size)[:size]}
                ),
            },
        )
    )
)
