"""Pre-training that begins with a BERT's weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForPreTraining, BertConfig, BertForMaskedLM, BertForPreTraining

import tiny_models
from hf_maskssl.recipes import build_config
from hf_maskssl.training.pretraining.arguments import PretrainingArguments
from hf_maskssl.training.pretraining.starting import Start, read_start

SIZES = tiny_models.SIZES["pos_minimax_bert"]


def pos_bert(**changes: Any) -> Any:
    return AutoModelForPreTraining.from_config(build_config({"model_type": "pos_minimax_bert", **SIZES, **changes}))


def start_from(model: Any, name: str) -> Any:
    return Start(PretrainingArguments(init_from=name), model.config).give(model, None)


@pytest.mark.parametrize("changes", [{}, {"task_balancing": "gradnorm"}, {"tasks": ["mlm"]}])
def test_it_becomes_a_bert_with_its_heads(tmp_path: Path, changes: dict[str, Any]) -> None:
    bert = BertForPreTraining(BertConfig(**SIZES)).eval()
    bert.save_pretrained(tmp_path)
    model = start_from(pos_bert(**changes), str(tmp_path))
    assert model.training and model.config.model_type == "pos_minimax_bert"
    ids = torch.randint(30, (2, 12))
    assert torch.equal(model.eval()(ids).prediction_logits, bert(ids).prediction_logits)
    assert torch.equal(model(ids).seq_relationship_logits, bert(ids).seq_relationship_logits)


def test_a_bert_without_sentence_weights_needs_no_next_sentence_prediction(tmp_path: Path) -> None:
    BertForMaskedLM(BertConfig(**SIZES)).save_pretrained(tmp_path)
    start_from(pos_bert(next_sentence_prediction="none"), str(tmp_path))
    with pytest.raises(ValueError, match="training.init_from.*missing weights.*next_sentence_prediction none"):
        start_from(pos_bert(), str(tmp_path))


@pytest.mark.parametrize("name", ["gone/in/space", ""])
def test_a_misspelt_name_is_told_in_a_sentence(name: str, tmp_path: Path) -> None:
    """Before the data is prepared; an empty folder is no model either."""
    for read in (read_start, lambda name: start_from(pos_bert(), name)):
        with pytest.raises(
            ValueError, match=r"^training.init_from='.*' is neither .* can be read: .*[^.]\.$"
        ) as raised:
            read(name or str(tmp_path))
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_hidden_layers": 1}, "weights too many"),
        ({"num_hidden_layers": 3}, "missing weights"),
        ({"num_attention_heads": 4}, r"other settings: \['num_attention_heads'\]"),
        ({"vocab_size": 31}, "weights of other shapes"),
    ],
)
def test_another_bert_is_refused(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    BertForPreTraining(BertConfig(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=problem):
        start_from(pos_bert(**changes), str(tmp_path))
