"""Layer-wise learning-rate decay: ids and rates by hand, every parameter once, and what the schedule makes of them."""

from typing import Any

import pytest
import torch
from dense_runs import MULTIMAE
from finetuning_runs import MODELS, make_finetuning
from transformers import AutoModelForSemanticSegmentation, AutoModelForSequenceClassification, DistilBertConfig

from hf_maskssl.recipes import build_config
from hf_maskssl.training.finetuning.layer_decay import layer_decay_groups, layer_ids
from hf_maskssl.training.finetuning.results import Run
from hf_maskssl.training.finetuning.scores import LabelUnit
from hf_maskssl.training.finetuning.sweep import Finetuner

BERT: dict[str, Any] = {
    "model_type": "pos_minimax_bert",
    "vocab_size": 9,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}


def segmenter() -> Any:
    semseg = {"kind": "categorical", "num_classes": 5, "embedding_size": 4}
    modalities = {**MULTIMAE["modalities"], "semseg": semseg}
    config = build_config(MULTIMAE | {"modalities": modalities, "final_norm": True, "position_embeddings": "learned"})
    config.num_labels = 3
    return AutoModelForSemanticSegmentation.from_config(config)


def test_ids_of_a_model_of_two_layers() -> None:
    ids = layer_ids(segmenter())
    expected = {
        "multimae.embeddings.global_tokens": 0,
        "multimae.embeddings.positions_rgb": 0,
        "multimae.embeddings.projections.rgb.weight": 0,
        "multimae.embeddings.projections.depth.bias": 0,
        "multimae.embeddings.class_embeddings.semseg.weight": 0,
        "multimae.layers.0.attention.qkv.weight": 1,
        "multimae.layers.0.mlp_norm.bias": 1,
        "multimae.layers.1.mlp.down.weight": 2,
        "multimae.norm.weight": 3,
        # The head has blocks called layers, too.
        "segmentation_head.layers.0.dwconv.weight": 3,
        "segmentation_head.projection.weight": 3,
    }
    assert {name: ids[name] for name in expected} == expected
    assert set(ids.values()) == {0, 1, 2, 3}


def test_groups_have_the_rates_and_decays_of_their_layers() -> None:
    model = segmenter()
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in layer_decay_groups(model, 0.5, 0.08, 0.1)
        for parameter in group["params"]
    }
    names = dict(model.named_parameters())
    expected = {
        "multimae.embeddings.global_tokens": (0.01, 0.0),
        "multimae.embeddings.positions_rgb": (0.01, 0.0),
        "multimae.embeddings.projections.rgb.weight": (0.01, 0.1),
        "multimae.embeddings.projections.rgb.bias": (0.01, 0.0),
        "multimae.embeddings.class_embeddings.semseg.weight": (0.01, 0.1),
        "multimae.layers.0.attention.qkv.weight": (0.02, 0.1),
        "multimae.layers.1.attention_norm.weight": (0.04, 0.0),
        "multimae.layers.1.attention.qkv.weight": (0.04, 0.1),
        "segmentation_head.classifier.weight": (0.08, 0.1),
        "segmentation_head.classifier.bias": (0.08, 0.0),
    }
    for name, values in expected.items():
        assert found[id(names[name])] == pytest.approx(values), name


@pytest.mark.parametrize("name", ["multimae", *MODELS])
def test_every_trained_parameter_is_in_one_group(name: str) -> None:
    if name == "multimae":
        model = segmenter()
    else:
        model = AutoModelForSequenceClassification.from_config(build_config(MODELS[name]))
    frozen = next(model.base_model.parameters())
    frozen.requires_grad_(False)
    grouped = [id(parameter) for group in layer_decay_groups(model, 0.75, 1.0, 0.1) for parameter in group["params"]]
    trained = [id(parameter) for parameter in model.parameters() if parameter is not frozen]
    assert sorted(grouped) == sorted(trained)
    # The first of SMA's two layers is its `input_layer`, which goes with the embeddings.
    powers = (3, 2, 1, 0) if name in ("multimae", "metamae") else (2, 1, 0)
    rates = {group["lr"] for group in layer_decay_groups(model, 0.75, 1.0, 0.1)}
    assert sorted(rates) == pytest.approx([0.75**power for power in powers])


def test_ids_of_bert() -> None:
    """Its layers are in `encoder.layer`; the pooler works on the last layer's output, as the head does."""
    config = build_config(BERT | {"num_hidden_layers": 2})
    ids = layer_ids(AutoModelForSequenceClassification.from_config(config))
    expected = {
        "bert.embeddings.word_embeddings.weight": 0,
        "bert.embeddings.LayerNorm.bias": 0,
        "bert.encoder.layer.0.attention.self.query.weight": 1,
        "bert.encoder.layer.1.output.LayerNorm.weight": 2,
        "bert.pooler.dense.weight": 3,
        "classifier.weight": 3,
    }
    assert {name: ids[name] for name in expected} == expected
    assert set(ids.values()) == {0, 1, 2, 3}


def test_encoder_without_layers_is_named() -> None:
    config = DistilBertConfig(dim=8, n_layers=1, n_heads=2, hidden_dim=8, vocab_size=9)
    model = AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(
        ValueError, match=r"layer_decay: expected .*'distilbert.layers.0. ...'.*DistilBertForSequence.*distilbert.emb"
    ):
        layer_ids(model)


def test_schedule_ends_at_the_lowest_rate_of_each_layer(tmp_path: Any) -> None:
    options: dict[str, Any] = {"lr_scheduler_type": "cosine", "min_learning_rate": 1e-3, "warmup_steps": 2}
    finetuner = Finetuner(make_finetuning(tmp_path, layer_decay=0.5, weight_decay=0.3, adam_beta2=0.95, **options))
    trainer: Any = finetuner.trials.trainer(
        finetuner.trials.new_model(), Run(1e-2, 0), LabelUnit(), finetuner.data.train
    )
    trainer.create_optimizer_and_scheduler(num_training_steps=10)
    optimizer = trainer.optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    highest = [group["lr"] for group in optimizer.param_groups]
    assert highest == [0.0] * len(highest)  # warm-up begins at 0
    for step in range(10):
        optimizer.step()
        trainer.lr_scheduler.step()
        if step == 1:
            highest = [group["lr"] for group in optimizer.param_groups]
    lowest = [group["lr"] for group in optimizer.param_groups]
    assert sorted(set(highest)) == pytest.approx([1e-2 * 0.5**power for power in (3, 2, 1, 0)])
    assert sorted(set(lowest)) == pytest.approx([1e-3 * 0.5**power for power in (3, 2, 1, 0)])
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3, 0.0}
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}


def test_constant_rate_is_warmed_up_too(tmp_path: Any) -> None:
    finetuner = Finetuner(make_finetuning(tmp_path, lr_scheduler_type="constant", warmup_steps=4))
    trainer: Any = finetuner.trials.trainer(
        finetuner.trials.new_model(), Run(1e-2, 0), LabelUnit(), finetuner.data.train
    )
    trainer.create_optimizer_and_scheduler(num_training_steps=10)
    rates = []
    for _ in range(6):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    assert rates == pytest.approx([0.0, 2.5e-3, 5e-3, 7.5e-3, 1e-2, 1e-2])
