"""Pre-training that goes on from a checkpoint of this package, on the same data or on others."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from dense_runs import MULTIMAE, SCENES
from runs import SMA_MODEL, TABLE_MODEL, assert_same_weights, make_recipe, train, weights
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification, set_seed

import tiny_models
from hf_maskssl import SeriesFeatureExtractor
from hf_maskssl.data.kept_statistics import columns_in_order
from hf_maskssl.data.text.tokenizers import build_character_tokenizer
from hf_maskssl.hub.cards import write_model_card
from hf_maskssl.recipes import build_config
from hf_maskssl.training.pretraining.arguments import PretrainingArguments
from hf_maskssl.training.pretraining.start_report import StartReport
from hf_maskssl.training.pretraining.starting import Start
from tiny_models import DEPTH, MODALITIES, RGB, SEMSEG

EVERY: dict[str, dict[str, Any]] = {
    "metamae": MODALITIES["metamae"]["series"],
    "sma": MODALITIES["sma"]["series"],
    "multimae": {"modalities": {"rgb": RGB, "depth": DEPTH}},
    "pos_minimax_bert": {},
}


def fresh(model_type: str, seed: int = 0, **fields: Any) -> Any:
    set_seed(seed)
    return AutoModelForPreTraining.from_config(build_config(tiny_models.section(model_type, **fields)))


def saved(folder: Path, model_type: str, **fields: Any) -> Any:
    """A checkpoint of random weights."""
    model = fresh(model_type, **fields)
    model.save_pretrained(folder)
    return model


def begin(folder: Path, model: Any, processor: Any = None, **args: Any) -> StartReport:
    """Give a model what fits of a checkpoint."""
    start = Start(PretrainingArguments(init_from=str(folder), **args), model.config)
    assert start.give(model, processor) is model
    assert start.report is not None
    return start.report


def names(found: list[Any]) -> set[str]:
    return {weight.name for weight in found}


@pytest.mark.parametrize("model_type", EVERY)
def test_same_configuration_is_taken_whole(model_type: str, tmp_path: Path) -> None:
    former = saved(tmp_path, model_type, **EVERY[model_type]).state_dict()
    model = fresh(model_type, seed=1, **EVERY[model_type])
    report = begin(tmp_path, model)
    assert names(report.new) == {name for name in former if name.startswith("balancer.")}
    assert names(report.taken) | names(report.new) == set(former) and not report.left
    now = model.state_dict()
    assert_same_weights(
        {name: now[name] for name in names(report.taken)}, {name: former[name] for name in names(report.taken)}
    )
    assert StartReport.from_json(report.to_json()) == report


def test_learned_positions_of_a_series_are_interpolated(tmp_path: Path) -> None:
    fields = MODALITIES["sma"]["series"]
    former = saved(tmp_path, "sma", **fields).sma.embeddings.position_embeddings.weight
    model = fresh("sma", seed=1, **fields | {"series_length": 14})
    report = begin(tmp_path, model)
    expected = F.interpolate(former.T[None], size=14, mode="linear", align_corners=False)[0].T
    torch.testing.assert_close(model.sma.embeddings.position_embeddings.weight, expected)
    (weight,) = report.interpolated
    assert (weight.shape, weight.former) == ([14, 16], [10, 16]) and not report.new
    dropped = fresh("sma", seed=1, **fields | {"series_length": 14})
    before = dropped.sma.embeddings.position_embeddings.weight.clone()
    assert names(begin(tmp_path, dropped, init_positions="drop").new) == {weight.name}
    assert torch.equal(dropped.sma.embeddings.position_embeddings.weight, before)


def test_learned_positions_of_a_multimae_are_interpolated_for_its_other_images(tmp_path: Path) -> None:
    fields = EVERY["multimae"] | {"position_embeddings": "learned"}
    former = saved(tmp_path, "multimae", **fields).multimae
    model = fresh("multimae", seed=1, **fields | {"image_size": [24, 40]})
    report = begin(tmp_path, model)
    embedded = model.multimae.embeddings
    assert names(report.interpolated) == {f"multimae.embeddings.positions_{name}" for name in ("rgb", "depth")}
    rows, columns = former.config.modality_table()["rgb"].grid(former.config.native_size)
    grid = former.embeddings.positions_rgb.T.reshape(1, -1, rows, columns)
    expected = F.interpolate(grid, size=(3, 5), mode="bicubic", align_corners=False).flatten(2)[0].T
    torch.testing.assert_close(embedded.positions_rgb, expected)
    with pytest.raises(
        ValueError, match="model.position_embeddings is 'sincos', the checkpoint's 'learned'; set it alike"
    ):
        begin(tmp_path, fresh("multimae", **EVERY["multimae"]))


def test_learned_positions_of_an_image_are_interpolated_with_the_decoders(tmp_path: Path) -> None:
    fields = MODALITIES["sma"]["image"] | {"decoder_shared_positions": False}
    former = saved(tmp_path, "sma", **fields)
    model = fresh("sma", seed=1, **fields | {"image_size": [5, 9]})
    assert len(begin(tmp_path, model).interpolated) == 2
    for own, table in (
        (model.sma.embeddings.position_embeddings, former.sma.embeddings.position_embeddings),
        (model.decoder.positions, former.decoder.positions),
    ):
        grid = table.weight.reshape(4, 6, 16).permute(2, 0, 1)[None]
        expected = F.interpolate(grid, size=(5, 9), mode="bicubic", align_corners=False)
        torch.testing.assert_close(own.weight, expected[0].permute(1, 2, 0).reshape(45, 16))


@pytest.mark.parametrize(
    ("model_type", "changes", "new"),
    [
        ("metamae", {"num_channels": 2}, {"patch_projection", "patch_head"}),
        # Patches of 3 x 2 numbers instead of 2 x 3 have the same shape and another meaning.
        ("metamae", {"num_channels": 2, "patch_size": 3}, {"patch_projection", "patch_head"}),
        ("sma", {"num_channels": 2}, {"value_projection", "output"}),
    ],
)
def test_other_channels_are_read_by_new_projections(
    model_type: str, changes: dict[str, Any], new: set[str], tmp_path: Path
) -> None:
    former = saved(tmp_path, model_type, **EVERY[model_type]).state_dict()
    model = fresh(model_type, seed=1, **EVERY[model_type] | changes)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = begin(tmp_path, model)
    assert {name.split(".")[-2] for name in names(report.new)} == new
    for name, value in model.state_dict().items():
        assert torch.equal(value, (before if name in names(report.new) else former)[name])


def test_objectives_of_dabs_share_the_encoder_and_not_what_they_predict(tmp_path: Path) -> None:
    """The class token's learned position is no patch's: on another grid all are new."""
    image = MODALITIES["metamae"]["image"] | {"position_embeddings": "learned"}
    saved(tmp_path / "capri", "metamae", **image, objective="capri")
    report = begin(tmp_path / "capri", fresh("metamae", seed=1, **image, objective="mae"))
    assert names(report.new) == {"dabs.predictor.weight", "dabs.predictor.bias"}
    report = begin(tmp_path / "capri", fresh("metamae", seed=1, **image | {"image_size": [6, 9]}, objective="capri"))
    assert names(report.new) == {"metamae.embeddings.learned_positions"}


def test_computed_positions_need_nothing(tmp_path: Path) -> None:
    saved(tmp_path, "metamae", **MODALITIES["metamae"]["image"])
    model = fresh("metamae", seed=1, **MODALITIES["metamae"]["image"] | {"image_size": [6, 9]})
    assert not begin(tmp_path, model).new and model.metamae.embeddings.positions.shape == (9, 16)


def test_words_keep_their_rows(tmp_path: Path) -> None:
    """Also those of an output layer; a text is not stretched: its first places stay what they are."""
    fields = MODALITIES["sma"]["tokens"] | {"decoder_shared_positions": True}
    tokenizers = [build_character_tokenizer(alphabet, 20) for alphabet in ("ACGT", "TXGCA")]
    vocabularies = [tokenizer.get_vocab() for tokenizer in tokenizers]
    former = saved(tmp_path, "sma", **fields | {"vocab_size": len(vocabularies[0])})
    tokenizers[0].save_pretrained(tmp_path)
    model = fresh("sma", seed=1, **fields | {"vocab_size": len(vocabularies[1]), "max_position_embeddings": 20})
    before = model.sma.embeddings.token_embeddings.weight.clone()
    report = begin(tmp_path, model, tokenizers[1])
    for word, row in vocabularies[1].items():
        expected = before[row] if word == "X" else former.sma.embeddings.token_embeddings.weight[vocabularies[0][word]]
        assert torch.equal(model.sma.embeddings.token_embeddings.weight[row], expected)
    row, other = (vocabulary["G"] for vocabulary in vocabularies[::-1])
    assert torch.equal(model.decoder.output.weight[row], former.decoder.output.weight[other])
    positions = (one.sma.embeddings.position_embeddings.weight for one in (model, former))
    assert torch.equal(next(positions)[:12], next(positions))
    assert not report.new and len(report.matched) == 4


@pytest.mark.parametrize("model_type", ["metamae", "sma"])
def test_categories_keep_their_rows_by_column_and_word(model_type: str, tmp_path: Path) -> None:
    """A word of one column is none of another; a new word and the room for words that the data lack stay new."""
    shape = {name: value for name, value in MODALITIES[model_type]["mixed"].items() if name != "category_counts"}
    tables = [
        (["x", "y", "n", "m"], [["a", "b", "c"], ["b", "q"], None, None], [3, 2, 0, 0]),
        (["y", "n", "x", "m"], [["q", "z", "b"], None, ["c", "a"], None], [3, 0, 3, 0]),
    ]
    processors = [
        SeriesFeatureExtractor(*(1, 4), statistics_axis="feature", feature_names=names, categories=categories)
        for names, categories, _ in tables
    ]
    fields = [shape | {"series_length": 4, "category_counts": counts} for _, _, counts in tables]
    former = saved(tmp_path, model_type, **fields[0])
    processors[0].save_pretrained(tmp_path)
    model = fresh(model_type, seed=1, **fields[1])
    parts = [
        lambda one: one.base_model.embeddings.category_embeddings.weight,
        lambda one: one.decoder.category_head.weight,
        lambda one: one.decoder.category_head.bias,
    ]
    new = [part(model).clone() for part in parts]
    report = begin(tmp_path, model, processors[1])
    for part, before in zip(parts, new, strict=True):
        theirs = part(former)
        # Rows: y q, y z, y b; x c, x a, and one that is no word.
        expected = torch.stack([theirs[4], before[1], theirs[3], theirs[2], theirs[0], before[5]])
        assert torch.equal(part(model), expected)
    assert {weight.note for weight in report.matched if "category" in weight.name} == {"4 of 6 rows"}


def test_longer_bert_with_more_words(tmp_path: Path) -> None:
    former = saved(tmp_path, "pos_minimax_bert")
    model = fresh("pos_minimax_bert", seed=1, vocab_size=34, max_position_embeddings=16)
    begin(tmp_path, model)
    for table in ("position_embeddings", "word_embeddings"):
        own, other = (getattr(one.bert.embeddings, table).weight for one in (model, former))
        assert len(own) == len(other) + 4 and torch.equal(own[:-4], other)
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert torch.equal(model.cls.predictions.bias[:30], former.cls.predictions.bias)
    shorter = fresh("pos_minimax_bert", seed=1, max_position_embeddings=8)
    begin(tmp_path, shorter)
    own, other = (one.bert.embeddings.position_embeddings.weight for one in (shorter, former))
    assert torch.equal(own, other[:8])


def test_new_modality_and_another_decoder(tmp_path: Path) -> None:
    former = saved(tmp_path, "multimae", modalities={"rgb": RGB, "depth": DEPTH}).state_dict()
    added: dict[str, Any] = {"modalities": {"rgb": RGB, "semseg": SEMSEG, "depth": DEPTH}}
    model = fresh("multimae", seed=1, **added)
    report = begin(tmp_path, model, init_freeze=True)
    assert names(report.taken) == set(former) and all("semseg" in name for name in names(report.new))
    assert "decoders.rgb.modality_embeddings.semseg" in names(report.new)
    assert_same_weights({name: model.state_dict()[name] for name in former}, former)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == names(report.new) and set(report.frozen) == set(former)
    model = fresh("multimae", seed=1, decoder_num_hidden_layers=2, **added)
    report = begin(tmp_path, model)
    assert {name for name in names(report.new) if name.startswith("decoders.")} == names(report.new) - {
        name for name in names(report.new) if "semseg" in name and name.startswith("multimae.")
    }
    assert not any(name.startswith("decoders.") for name in names(report.taken))


def test_an_encoder_alone_and_a_fine_tuned_one_will_do(tmp_path: Path) -> None:
    fields = EVERY["sma"]
    encoder = AutoModel.from_config(build_config(tiny_models.section("sma", **fields)))
    encoder.save_pretrained(tmp_path / "encoder")
    model = fresh("sma", seed=1, **fields)
    report = begin(tmp_path / "encoder", model)
    assert names(report.taken) == {f"sma.{name}" for name in encoder.state_dict()}
    assert {name.split(".")[0] for name in names(report.new)} == {"decoder"}
    config = AutoConfig.from_pretrained(tmp_path / "encoder", num_labels=3)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "head")
    report = begin(tmp_path / "head", fresh("sma", seed=1, **fields))
    assert any(name.startswith("classifier") for name in names(report.left))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hidden_size": 32}, r"model.hidden_size is 32, the checkpoint's 16; set it alike"),
        (
            {"num_hidden_layers": 3, "num_attention_heads": 4},
            "model.num_hidden_layers is 3.*num_attention_heads is 4.*set them",
        ),
    ],
)
def test_another_encoder_is_refused(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    saved(tmp_path, "metamae", **EVERY["metamae"])
    with pytest.raises(ValueError, match=rf"^training.init_from='.*': the encoders differ: {problem}"):
        begin(tmp_path, fresh("metamae", **EVERY["metamae"] | changes))


def test_what_cannot_start_a_run_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "sma", "sma", **EVERY["sma"])
    with pytest.raises(ValueError, match="is a checkpoint of 'sma', but model.model_type is 'metamae'"):
        begin(tmp_path / "sma", fresh("metamae", **EVERY["metamae"]))
    saved(tmp_path / "run" / "checkpoint-00000003", "sma", **EVERY["sma"])
    with pytest.raises(ValueError, match=r"did you mean '.*checkpoint-00000003'\?"):
        begin(tmp_path / "run", fresh("sma", **EVERY["sma"]))
    with pytest.raises(ValueError, match="training.init_freeze: every weight was taken from"):
        begin(tmp_path / "sma", fresh("sma", **EVERY["sma"]), init_freeze=True)
    with pytest.raises(ValueError, match="training.init_freeze keeps the weights of training.init_from"):
        PretrainingArguments(init_freeze=True)
    saved(tmp_path / "rgb", "multimae", modalities={"rgb": RGB})
    with pytest.raises(ValueError, match="task_balancing 'gradnorm' looks at gradients"):
        model = fresh("multimae", modalities={"rgb": RGB, "depth": DEPTH}, task_balancing="gradnorm")
        begin(tmp_path / "rgb", model, init_freeze=True)


def write_table(path: Path, columns: str, seed: int, mean: float) -> dict[str, Any]:
    """A table of 42 rows of numbers about a mean, and the data section that reads it."""
    values = np.random.default_rng(seed).normal(loc=mean, size=(42, len(columns)))
    pd.DataFrame(values, columns=list(columns)).to_csv(path, index=False)
    return {"source": "csv", "data_files": str(path), "kind": "tabular", "scale": 1.0}


SMA_TABLE = tiny_models.section("sma", modality="series", series_length=4, num_channels=1, mask_ratio=0.5)


def test_columns_are_found_by_their_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In another order, with one gone and two new; of a model with computed positions they keep their places."""
    first, second = (
        write_table(tmp_path / name, *rest) for name, *rest in (("1.csv", "abcd", 0, 5), ("2.csv", "dxbya", 1, 9))
    )
    for name, model in (("sma", SMA_TABLE), ("metamae", tiny_models.section("metamae") | TABLE_MODEL)):
        begun = {"model": model | {"series_length": 4, "num_channels": 1}, "max_steps": 1}
        former, _ = train(make_recipe(tmp_path / name, data=first, **begun))
        more: dict[str, Any] = {"model": model | {"series_length": 5, "num_channels": 1}, "max_steps": 1}
        more |= {"data": second, "init_from": str(tmp_path / name), "learning_rate": 1e-12}
        trainer, state = train(make_recipe(tmp_path / f"{name}-more", **more))
        processor: Any = trainer.prepared.processor
        assert processor.feature_names == ["a", "b", "x", "d", "y"]  # x has the place of c
        known = dict(zip("abcd", former.prepared.processor.mean, strict=True))  # type: ignore[union-attr]
        for column, mean in zip(processor.feature_names, processor.mean, strict=True):
            assert mean == known[column] if column in known else mean == pytest.approx(9, abs=1)
        report = StartReport.from_json(state.start or {})
        assert report.columns == {"kept": ["a", "b", "d"], "moved": [], "new": ["x", "y"], "left": ["c"]}
        assert report.statistics == {"kept": ["a", "b", "d"], "measured": ["x", "y"]}
    positions = (weights(tmp_path / one)["sma.embeddings.position_embeddings.weight"] for one in ("sma-more", "sma"))
    torch.testing.assert_close(next(positions)[[0, 1, 3]], next(positions)[[0, 1, 3]])
    # The recipe's own order holds where it has one; then a model without learned positions is told where columns went.
    second["input_column"] = list("dabxy")
    recipe = make_recipe(tmp_path / "named", **more | {"data": second, "init_statistics": "measure"})
    with caplog.at_level("WARNING"):
        trainer, state = train(recipe)
    assert StartReport.from_json(state.start or {}).columns["moved"] == ["d", "a", "b"]
    assert "stand in other places" in caplog.text
    assert np.mean(trainer.prepared.processor.mean) == pytest.approx(9, abs=0.5)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("columns", "former", "expected"),
    [
        ("abc", "abc", "abc"),
        ("cba", "abc", "abc"),
        ("dca", "abc", "adc"),
        ("ca", "abc", "ac"),
        ("abxyz", "ab", "abxyz"),
    ],
)
def test_columns_in_order(columns: str, former: str, expected: str) -> None:
    assert "".join(columns_in_order(columns, former)) == expected


RUN: dict[str, Any] = {"model": SMA_MODEL | {"initializer_range": 0.02}, "max_steps": 4, "save_steps": 2}


def test_resumed_run_does_not_start_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it need the model that it began with; what was frozen stays so, and the statistics are its own."""
    train(make_recipe(tmp_path / "first", **RUN | {"max_steps": 2}))
    larger = RUN | {"model": RUN["model"] | {"decoder_mask_token": True}, "init_from": str(tmp_path / "first")}
    larger["init_freeze"] = True
    _, whole = train(make_recipe(tmp_path / "whole", **larger))
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoint-00000004")
    shutil.rmtree(tmp_path / "first")
    trainer, state = train(make_recipe(tmp_path / "again", **larger | {"resume": True}))
    assert_same_weights(weights(tmp_path / "again"), weights(tmp_path / "whole"))
    assert state.start == whole.start and state.start is not None
    assert state.start["statistics"] == {"kept": ["channel 0"], "measured": []}
    assert not trainer.bare_model.base_model.layers[0].mlp.up.weight.requires_grad


def test_card_and_log_list_what_was_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_recipe(tmp_path / "first", **RUN | {"max_steps": 1}))
    more = {"model": RUN["model"] | {"decoder_mask_token": True}, "max_steps": 1, "init_from": str(tmp_path / "first")}
    recipe = make_recipe(tmp_path / "run", **RUN | more)
    with caplog.at_level("INFO"):
        _, state = train(recipe)
    assert "begun from:" in caplog.text and "taken: " in caplog.text
    write_model_card(tmp_path / "run", recipe, state)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "## Initial weights" in card and "The run began from `first` (`sma`)" in card
    assert "| `decoder.mask_token` | new |" in card and "| statistics, kept | `channel 0` |" in card
    assert json.loads((tmp_path / "run" / "start_report.json").read_text()) == state.start


def test_adding_a_modality_trains_it_alone(tmp_path: Path) -> None:
    few = SCENES | {"scale": 1.0}
    rgb = {"model": MULTIMAE | {"modalities": {"rgb": RGB}}, "data": few | {"input_column": {"rgb": "rgb"}}}
    train(make_recipe(tmp_path / "rgb", **rgb, max_steps=1))
    both: dict[str, Any] = {"model": MULTIMAE, "data": few, "init_from": str(tmp_path / "rgb"), "init_freeze": True}
    trainer, state = train(make_recipe(tmp_path / "both", **both, max_steps=2))
    former, now = weights(tmp_path / "rgb"), weights(tmp_path / "both")
    assert_same_weights({name: now[name] for name in former}, former)
    assert trainer.parameters[1] < trainer.parameters[0]
    fresh_start = fresh_weights(both["model"])
    changed = [name for name in now if name not in former and not torch.equal(now[name], fresh_start[name])]
    assert any(name.startswith("decoders.depth.") for name in changed)
    assert any(name.startswith("multimae.embeddings.projections.depth") for name in changed)
    assert state.start is not None and state.start["statistics"] == {"kept": ["rgb"], "measured": []}


def fresh_weights(model: dict[str, Any]) -> dict[str, torch.Tensor]:
    set_seed(0)
    return AutoModelForPreTraining.from_config(build_config(model)).state_dict()
