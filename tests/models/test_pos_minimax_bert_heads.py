"""PoS-BERT's task heads: transformers' own, around one encoder."""

from typing import Any

import pytest
import torch
from pos_minimax_bert_cases import small_config
from transformers import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    PreTrainedModel,
)
from transformers.models.bert.modeling_bert import BertAttention, BertEncoder, BertSelfAttention

import hf_maskssl
from hf_maskssl.models.modeling_pos_minimax_bert import (
    PoSMinimaxBertAttention,
    PoSMinimaxBertEncoder,
    PoSMinimaxBertSelfAttention,
)

HEADS = {
    "PoSMinimaxBertForSequenceClassification": BertForSequenceClassification,
    "PoSMinimaxBertForTokenClassification": BertForTokenClassification,
    "PoSMinimaxBertForQuestionAnswering": BertForQuestionAnswering,
    "PoSMinimaxBertForMultipleChoice": BertForMultipleChoice,
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_builds_one_encoder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    for kind in (BertModel, BertEncoder):

        def counted(
            self: Any, *args: Any, original: Any = kind.__init__, own: str = kind.__name__, **kwargs: Any
        ) -> None:
            built.append(own)
            original(self, *args, **kwargs)

        monkeypatch.setattr(kind, "__init__", counted)
    model = getattr(hf_maskssl, name)(small_config("minimax"))
    assert built == ["BertModel", "BertEncoder"]
    assert type(model.bert) is hf_maskssl.PoSMinimaxBertModel
    own = {type(module) for module in model.bert.modules()}
    assert {PoSMinimaxBertEncoder, PoSMinimaxBertAttention, PoSMinimaxBertSelfAttention} <= own
    assert not {BertEncoder, BertAttention, BertSelfAttention, torch.nn.Dropout} & own


@pytest.mark.parametrize(("name", "theirs"), HEADS.items())
def test_a_head_begins_with_the_weights_that_transformers_draws(name: str, theirs: type[PreTrainedModel]) -> None:
    config = small_config("minimax", num_labels=3)
    torch.manual_seed(0)
    expected = theirs(config).state_dict()
    torch.manual_seed(0)
    found = getattr(hf_maskssl, name)(config).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
