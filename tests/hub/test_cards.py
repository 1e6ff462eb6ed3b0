"""Cards: what they say comes from the run, nothing in them is empty, and their Python runs."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from card_runs import IMAGE, RUNS, finetune_digits, finished_state
from huggingface_hub import ModelCard
from transformers import (
    AutoConfig,
    AutoModelForDepthEstimation,
    AutoModelForImageClassification,
    AutoModelForImageToImage,
    AutoModelForSemanticSegmentation,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    ByT5Tokenizer,
)

import hf_maskssl
from hf_maskssl import MetaMAEConfig, SMAConfig
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.kinds.tokens import example_texts
from hf_maskssl.hub import cards
from hf_maskssl.hub.cards import PLACEHOLDER, complete_card, is_hub_name, write_converted_card, write_model_card
from hf_maskssl.hub.conversion.official_files import Converted
from hf_maskssl.hub.snippets import WITH_PACKAGE, WITHOUT_PACKAGE, loading_snippets, widget_examples
from hf_maskssl.methods import METHODS, find_method
from hf_maskssl.methods.metamae import DABS, METAMAE, PLAIN_MAE
from hf_maskssl.methods.multimae import MM_MAE, MULTIMAE
from hf_maskssl.methods.pos_minimax_bert import PLAIN_BERT, POS_BERT
from hf_maskssl.methods.sma import SMA
from hf_maskssl.pictures.curves import draw_curves
from hf_maskssl.recipes import build_config
from hf_maskssl.training.finetuning.arguments import load_finetuning_recipe
from hf_maskssl.training.pretraining.arguments import load_pretraining_recipe
from hf_maskssl.training.pretraining.state import RunState

# Drawing takes a second: one test looks at the real picture.
pytestmark = pytest.mark.usefixtures("blank_curves")


def write(make_run: Any, name: str, state: RunState | None = None, **changes: Any) -> tuple[str, Path]:
    recipe, finished, folder = make_run(name, **changes)
    write_model_card(folder, recipe, finished if state is None else state)
    return (folder / "README.md").read_text(encoding="utf-8"), folder


def section(card: str, title: str) -> str:
    return re.split(r"^## ", card.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def snippets(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)


def recipes_of(card: str) -> list[str]:
    """The recipe that differs from the defaults, and the whole one."""
    return [part.split("```")[0] for part in section(card, "Recipe").split("```yaml\n")[1:]]


def run_snippet(code: str, folder: Path, result: str = "features") -> Any:
    variables: dict[str, Any] = {}
    exec(complete_card(code, str(folder)), variables)
    return variables[result]


@pytest.mark.parametrize("name", RUNS)
def test_snippets_run_and_keep_their_promise(make_run: Any, name: str) -> None:
    card, folder = write(make_run, name)
    codes, fills_masks = snippets(card), name in ("pos_bert", "pos_bert_tagged")
    assert len(codes) == 2 + fills_masks and "import hf_maskssl" in codes[0] and "trust_remote_code=True" in codes[1]
    assert "hf_maskssl" not in codes[1]
    for code in codes[:2]:
        assert PLACEHOLDER in code
        features = run_snippet(code, folder)
        assert str(tuple(features.shape)) in code and features.isfinite().all()


@pytest.mark.parametrize(
    ("name", "auto_classes"),
    [
        ("image", {"AutoImageProcessor"}),
        ("series", {"AutoFeatureExtractor"}),
        ("tabular", {"AutoFeatureExtractor"}),
        ("spectrogram", {"AutoFeatureExtractor"}),
        ("tokens", {"AutoTokenizer"}),
        ("ids", set()),
        ("pairs", {"AutoImageProcessor", "AutoTokenizer"}),
        ("sma_text", {"AutoTokenizer"}),
        ("sma_tabular", {"AutoFeatureExtractor"}),
        ("sma_image", {"AutoImageProcessor"}),
        ("multimae", {"AutoImageProcessor"}),
        ("multimae_tensors", set()),
        ("multimae_rgb", {"AutoImageProcessor"}),
        ("pos_bert", {"AutoTokenizer"}),
        ("bert", set()),
    ],
)
def test_snippets_take_the_processor_of_the_modality(make_run: Any, name: str, auto_classes: set[str]) -> None:
    card, _ = write(make_run, name)
    for code in snippets(card)[:2]:
        assert set(re.findall(r"Auto\w+", code)) == auto_classes | {"AutoModel"}


def test_header_is_what_the_hub_reads(make_run: Any) -> None:
    card, folder = write(make_run, "spectrogram")
    header = ModelCard.load(folder / "README.md").data
    assert header.library_name == "transformers" and header.pipeline_tag == "feature-extraction"
    assert header.tags == [
        "self-supervised",
        "masked-autoencoder",
        "feature-extraction",
        "metamae",
        "image",
        "spectrogram",
    ]
    assert header.datasets == ["org/sounds"] or header.datasets == "org/sounds"
    assert header.license is None, "a licence is its owner's to choose"


@pytest.mark.parametrize("name", ["image", "tabular"])
def test_header_names_no_data_set_that_is_not_on_the_hub(make_run: Any, name: str) -> None:
    _, folder = write(make_run, name)
    assert ModelCard.load(folder / "README.md").data.datasets is None


def test_hub_names_are_told_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "set").mkdir(parents=True)
    assert is_hub_name("imdb") and is_hub_name("org/some-set.v2")
    for source in ("digits", "parquet", "mine/set", "./mine/other", "/data/set", "${HOME}/set", "~/set", "a/b/c"):
        assert not is_hub_name(source), source


@pytest.mark.parametrize("name", RUNS)
def test_recipe_of_the_card_is_the_runs_recipe(make_run: Any, tmp_path: Path, name: str) -> None:
    recipe, state, folder = make_run(name, output_dir="/home/me", push_to_hub=True, hub_model_id="org/me", resume=True)
    write_model_card(folder, recipe, state)
    differing, whole = recipes_of((folder / "README.md").read_text())
    assert len(differing.splitlines()) < len(whole.splitlines()) / 2
    # Whoever runs it again must neither continue nor publish this run, nor learn where it lay.
    as_default = {"output_dir": "outputs/run", "push_to_hub": False, "hub_model_id": None, "resume": False}
    for text in (differing, whole):
        (tmp_path / "recipe.yaml").write_text(text)
        again = load_pretraining_recipe(tmp_path / "recipe.yaml")
        assert (again.data, again.probe) == (recipe.data, recipe.probe)
        assert build_config(again.model).to_dict() == build_config(recipe.model).to_dict()
        assert again.training == dataclasses.replace(recipe.training, **as_default)
    assert again.model == recipe.model


def test_recipe_shows_no_field_that_is_as_by_default(make_run: Any) -> None:
    defaults = {"num_hidden_layers": MetaMAEConfig(**IMAGE).num_hidden_layers, "contrastive_weight": 0.5}
    card, _ = write(make_run, "image", model=defaults, learning_rate=5e-4)
    shown = yaml.safe_load(recipes_of(card)[0])
    assert shown["training"] == {"max_steps": 30, "batch_size": 32, "learning_rate": 5e-4, "seed": 7}
    assert "num_hidden_layers" not in shown["model"] and shown["model"]["contrastive_weight"] == 0.5
    assert shown["data"]["source"] == "digits" and "train_split" not in shown["data"]
    assert section(card, "Recipe").index("```yaml") < section(card, "Recipe").index("<details>")


def test_scores_of_the_online_probe_are_in_the_header(make_run: Any) -> None:
    """Those of the last step: the best ones were chosen by these very scores."""
    _, folder = write(make_run, "tabular")
    data = ModelCard.load(folder / "README.md").data
    linear, knn = data.eval_results
    assert data.model_name == PLACEHOLDER and linear.metric_type == "accuracy"
    assert (linear.metric_value, knn.metric_value) == (0.625, 0.375)
    assert (
        "linear probe on frozen features, at most 500 rows, 1 run" in linear.metric_name and "kNN" in knn.metric_name
    )
    assert (linear.dataset_type, linear.dataset_name) == ("csv", "local tabular data")
    assert linear.dataset_split == "10% of train (validation)" and linear.task_type == "tabular-classification"
    state = finished_state()
    state.step = 40  # the probe measured another model than this one
    _, folder = write(make_run, "tabular", state)
    assert ModelCard.load(folder / "README.md").data.eval_results is None


def test_rows_cost_and_energy_are_told(make_run: Any) -> None:
    state = finished_state()
    state.row_counts, state.rows_left_out, state.energy_kwh = {"train": 1437, "test": 360}, {"train": 2}, 0.01234
    card, _ = write(make_run, "image", state)
    assert "| rows | 1,437 train, 360 test |" in section(card, "Data")
    assert "| rows left out | 2 train |" in section(card, "Data")
    assert "| energy | 0.0123 kWh, all of the machine" in section(card, "Training")
    assert "energy" not in section(write(make_run, "image")[0], "Training")


@pytest.mark.parametrize(
    ("name", "widget"),
    [
        ("pos_bert", [{"text": "two [MASK] of text"}]),
        ("sma_text", [{"text": "two samples of text"}]),
        ("tokens", [{"text": "ACGT"}]),
        ("image", None),
        ("ids", None),
        ("pairs", None),
    ],
)
def test_widgets_have_an_example_where_the_hub_has_one(make_run: Any, name: str, widget: Any) -> None:
    _, folder = write(make_run, name)
    assert ModelCard.load(folder / "README.md").data.get("widget") == widget


def test_texts_of_molecules_are_molecules() -> None:
    data = data_arguments(kind="tokens", input_column="SMILES", tokenizer="utf-8")
    texts = example_texts(ByT5Tokenizer(), SMAConfig(), data)
    assert texts == ["CC(=O)Oc1ccccc1C(=O)O", "CCO"]


def test_widget_of_a_table_is_its_average_row(make_run: Any) -> None:
    recipe, _, folder = make_run("tabular")
    extractor = hf_maskssl.SeriesFeatureExtractor(
        1,
        2,
        standardize="dataset",
        mean=[0.12345678, 3.0],
        std=[1.0, 1.0],
        statistics_axis="feature",
        feature_names=["a", "b"],
    )
    extractor.save_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    assert widget_examples(folder, config, recipe.data, "classification") == [
        {"structuredData": {"a": [0.1235], "b": [3.0]}}
    ]
    assert widget_examples(folder, config, recipe.data) == []


@pytest.mark.parametrize("name", ["sma_text", "tokens", "pos_bert", "pairs", "spectrogram"])
def test_snippets_take_inputs_of_unequal_length(make_run: Any, name: str) -> None:
    """Real ones are, and a snippet that takes only equal ones fails on the first use."""
    card, folder = write(make_run, name)
    names = {"spectrogram": "waveforms"}
    first, second = run_snippet(snippets(card)[0], folder, names.get(name, "texts"))
    assert len(first) > len(second)


def test_curves_are_drawn_beside_the_card(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "draw_curves", draw_curves)
    card, folder = write(make_run, "image")
    assert "(curves.png)" in section(card, "Training")
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_training_section_counts_right(make_run: Any) -> None:
    card, _ = write(make_run, "image", gradient_accumulation_steps=3)
    text = section(card, "Training")
    assert "| optimiser steps | 30 |" in text
    assert "| samples per step | 192 (batch 32 x processes 2 x accumulation 3) |" in text
    assert "| seed | 7 |" in text and "12 s" in text
    assert f"hf_maskssl {hf_maskssl.__version__}" in text and "torch 2" in text and "transformers 5" in text
    assert "| loss | 0.03333 | 0.06667 |" in text


def test_probe_table_has_first_best_and_last(make_run: Any) -> None:
    card, _ = write(make_run, "image")
    text = section(card, "Online probe")
    rows = [line for line in text.splitlines() if re.match(r"\| (first|best|last)", line)]
    assert rows == [
        "| first | 10 | 50.00 | 25.00 | 4.50 |",
        "| best | 20 | 75.00 | 50.00 | 4.50 |",
        "| last | 30 | 62.50 | 37.50 | 4.50 |",
    ]
    assert "linear accuracy (%)" in text and "kNN accuracy (%)" in text
    assert (
        "the test split `test`" in text
        and "Number of seeds: 1" in text
        and "best in linear accuracy" in text
        and "at most 500 rows" in text
    )


def test_probe_says_whether_its_first_row_is_of_an_untrained_encoder(make_run: Any) -> None:
    card, _ = write(make_run, "image")
    assert "the first is a trained encoder already, not an untrained one." in card
    state = finished_state()
    scores = {"probe/linear_accuracy": 0.25, "probe/knn_accuracy": 0.125, "probe/rankme": 2.0}
    state.history.insert(0, {"step": 0, **scores})
    card, _ = write(make_run, "image", state)
    assert "| first | 0 | 25.00 | 12.50 | 2.00 |" in card
    assert "the first is the untrained encoder." in card


def test_probe_table_joins_rows_that_are_the_same(make_run: Any) -> None:
    state = finished_state()
    del state.history[1:]
    card, _ = write(make_run, "image", state)
    assert "| first, best, last | 10 | 50.00 |" in card


@pytest.mark.parametrize(
    ("name", "split"), [("series", "the validation split `dev`"), ("tabular", "10% of the split `train`")]
)
def test_probe_names_its_split(make_run: Any, name: str, split: str) -> None:
    assert split in section(write(make_run, name)[0], "Online probe")


def test_a_run_without_probe_says_so(make_run: Any) -> None:
    state = finished_state()
    state.history = [{"step": 10, "train/loss": 1.0}]
    card, folder = write(make_run, "image", state)
    assert "## Online probe" not in card
    assert "not measured: no probe ran" in section(card, "Limitations")
    assert not (folder / "curves.png").exists() and "curves.png" not in card


def test_an_interrupted_run_says_so(make_run: Any) -> None:
    card, _ = write(make_run, "image", max_steps=1000)
    assert "30 of 1,000 planned" in section(card, "Training")
    assert "step 30 of 1,000" in section(card, "Limitations")


@pytest.mark.parametrize("state", [finished_state(), RunState()], ids=["finished", "at_the_start"])
@pytest.mark.parametrize("name", RUNS)
def test_no_section_is_empty(make_run: Any, name: str, state: RunState) -> None:
    card, _ = write(make_run, name, state)
    body = card.split("\n---\n", maxsplit=1)[1]
    assert all(part.strip().count("\n") > 0 for part in re.split(r"^## ", body, flags=re.MULTILINE)[1:])
    assert "None" not in body and "nan" not in body.lower().split()


def test_plain_mae_is_not_called_metamae(make_run: Any) -> None:
    card, _ = write(make_run, "image", model={"num_adaptation_steps": 0, "contrastive_weight": 0.0})
    assert "# MAE pre-trained on scikit-learn's handwritten digits" in card
    assert "arxiv.org/abs/2111.06377" in card
    card, _ = write(make_run, "series")
    assert "# MetaMAE pre-trained on org/sensors" in card and "arxiv.org/abs/2310.16318" in card


@pytest.mark.parametrize("model_type", ["metamae", "pos_minimax_bert"])
def test_a_card_says_that_masks_are_guided(model_type: str) -> None:
    method = METHODS[model_type]
    plain, guided = (method.describe(method.config_class(masking=masking)) for masking in ("random", "guided"))
    assert guided.name == f"{plain.name} with guided masking" and "as in [SMA]" in guided.summary
    assert "xie2024sma" in guided.bibtex and "xie2024sma" not in plain.bibtex


def test_every_method_is_described() -> None:
    signal = {"modality": "image", "image_size": [8, 8], "num_channels": 1}
    fields = {
        "metamae": signal | {"patch_size": [2, 2]},
        "sma": signal,
        "multimae": {"image_size": 32, "patch_size": 8, "num_visible_tokens": 8},
    }
    found = {
        name: method.describe(method.config_class(**fields.get(name, {}))).name for name, method in METHODS.items()
    }
    assert found.keys() == {"metamae", "sma", "multimae", "pos_minimax_bert", "unified"}
    assert all(found.values()) and len(set(found.values())) == len(found)


def test_unknown_method_is_refused(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, state, folder = make_run("image")
    monkeypatch.delitem(METHODS, "metamae")
    with pytest.raises(ValueError, match="model_type 'metamae': expected one of"):
        write_model_card(folder, recipe, state)


def test_baselines_of_sma_are_not_called_sma(make_run: Any) -> None:
    card, _ = write(make_run, "sma_text")
    assert "# SMA pre-trained on org/texts" in card and "arxiv.org/abs/2402.14789" in card
    assert "2107.14795" not in card, "an encoder without latents is no Perceiver IO"
    card, _ = write(make_run, "sma_words")
    assert "# MAE with word masking pre-trained on local tokens data" in card
    assert "a baseline of SMA" in card and "xie2024sma" in card and "arxiv.org/abs/2107.14795" in card


def test_variants_of_multimae_are_told_apart(make_run: Any) -> None:
    card, folder = write(make_run, "multimae")
    assert "# MM-MAE pre-trained on procedural scenes" in card and "wang2023taskrobust" in card
    assert "random crops of 20% to 100%" in section(card, "Data") and "named as the modalities" in section(
        card, "Data"
    )
    assert ModelCard.load(folder / "README.md").data.tags[-2:] == ["multimae", "multimodal"]
    card, _ = write(make_run, "multimae_tensors")
    assert "# MultiMAE pre-trained on org/rooms" in card and "wang2023taskrobust" not in card
    assert "| input column | photo (rgb), z (depth) |" in section(card, "Data")
    card, _ = write(make_run, "multimae_tensors", model={"task_balancing": "gradnorm"})
    assert "# MultiMAE with GradNorm pre-trained" in card and "chen2018gradnorm" in card
    card, _ = write(make_run, "multimae_rgb")
    assert "# MAE pre-trained on local multimodal data" in card and "of one modality, rgb" in card


@pytest.mark.parametrize(
    ("fields", "name", "words", "papers"),
    [
        ({}, "PoS-BERT", "the task that it does worst weighs most", {"wang2023taskrobust", "devlin2019bert"}),
        ({"task_balancing": "none"}, "PoS-BERT without balancing", "all tasks weigh the same", None),
        ({"task_balancing": "gradnorm"}, "PoS-BERT with GradNorm", "balanced by GradNorm", None),
        ({"tasks": ["noun", "verb"]}, "PoS-BERT", "every part of speech (noun, verb) is a task", None),
        ({"next_sentence_prediction": "inside"}, "PoS-BERT", "and next sentence prediction another", None),
        ({"tasks": ["mlm"]}, "BERT", "of whole words and next sentence prediction", {"devlin2019bert"}),
        ({"tasks": ["mlm"], "next_sentence_prediction": "none"}, "BERT", "of whole words", {"devlin2019bert"}),
        (
            {"tasks": ["mlm"], "next_sentence_prediction": "inside"},
            "BERT with minimax",
            "the task that it does worst",
            {"wang2023taskrobust", "devlin2019bert"},
        ),
    ],
)
def test_variants_of_pos_bert_are_told_apart(
    fields: dict[str, Any], name: str, words: str, papers: set[str] | None
) -> None:
    config = hf_maskssl.PoSMinimaxBertConfig(**fields)
    method = find_method(config).describe(config)
    assert method.name == name and words in method.summary
    found = set(re.findall(r"@\w+\{(\w+),", method.bibtex))
    assert found == papers if papers else {"wang2023taskrobust", "devlin2019bert"} <= found
    assert ("chen2018gradnorm" in found) == (fields.get("task_balancing") == "gradnorm")


def test_card_of_pos_bert(make_run: Any) -> None:
    state = finished_state()
    state.history[-1] |= {"train/verb": 3.5, "train/weight/verb": 0.25, "train/count/verb": 1234.5}
    state.history[-1] |= {"train/noun": 2.5, "train/weight/noun": 0.5, "train/count/noun": 0.375}
    state.history[-1] |= {
        "train/next_sentence": 0.7,
        "train/weight/next_sentence": 1.0,
        "train/count/next_sentence": 64,
    }
    state.history[-1] |= {"validation/verb": 4.5, "validation/weight/verb": 0.5, "validation/count/verb": 99}
    card, folder = write(make_run, "pos_bert", state)
    assert "# PoS-BERT pre-trained on the help topics of Python" in card
    header = ModelCard.load(folder / "README.md").data
    assert header.pipeline_tag == "fill-mask" and "masked-language-modeling" in header.tags and header.datasets is None
    text = section(card, "Data")
    assert "| parts of speech | tagged by NLTK's averaged perceptron, which is for English |" in text
    assert "15% of the pieces, whole words, as the tasks occur; 10 maskings, which epochs take in turn" in text
    assert "| tokenizer | WordPiece of 12 pieces, trained on the training split |" in text
    text = section(card, "Training")
    assert "| last value of | training | validation | weight | masked pieces in a step |" in text
    assert "| verb | 3.5 | 4.5 | 0.25 | 1,234 |" in text and "weight/verb" not in text
    assert "| noun | 2.5 | – | 0.5 | 0.4 |" in text and "| next_sentence | 0.7 | – | 1 | 64 pairs |" in text
    assert "`AutoModelForQuestionAnswering`, `AutoModelForMultipleChoice` put a new head on the encoder" in card
    assert "`AutoModelForMaskedLM` what fills masks;" in card
    candidates = run_snippet(snippets(card)[2], folder, "candidates")
    assert {len(one["sequence"].split()) for one in candidates} <= {3, 4} and len(candidates) == 5


def test_untrained_pooler_of_bert_is_not_used(make_run: Any) -> None:
    """Without next sentence prediction nothing trains it."""
    for name in ("pos_bert_tagged", "bert"):
        card, _ = write(make_run, name)
        assert ".pooler_output" not in card and "the pooler was not trained" in card
    text = section(write(make_run, "pos_bert_tagged")[0], "Data")
    assert "| parts of speech | column `tags` |" in text and "| document column | file |" in text
    assert (
        "from all tasks of a sequence equally; anew in every epoch" in text and "| pieces in a sequence | 12 |" in text
    )
    assert "| tokenizer | vocab.txt |" in card
    text = section(write(make_run, "bert")[0], "Data")
    assert "parts of speech" not in text and "of the pieces, whole words; 10 maskings" in text


def test_first_weights_are_told(make_run: Any) -> None:
    card, folder = write(make_run, "pos_bert", init_from="google-bert/bert-base-uncased")
    assert "| initial weights | those of `google-bert/bert-base-uncased` |" in section(card, "Training")
    assert ModelCard.load(folder / "README.md").data.base_model == "google-bert/bert-base-uncased"
    card, folder = write(make_run, "multimae", init_from=str(folder / "vit"))
    assert "| initial weights | those of `vit` |" in card
    assert ModelCard.load(folder / "README.md").data.base_model is None


def test_finetuned_bert_is_given_pairs_as_in_training(make_run: Any) -> None:
    _, _, folder = make_run("pos_bert")
    config = AutoConfig.from_pretrained(folder, num_labels=3)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    for columns, call in (
        (["a", "b"], "tokenizer(texts, seconds, padding=True, "),
        ("a", "tokenizer(texts, padding=True, "),
    ):
        data = data_arguments(source="org/pairs", kind="tokens", input_column=columns, tokenizer="org/bert")
        for _, code in loading_snippets(folder, config, PLACEHOLDER, data, "classification"):
            assert call in code and "add_special_tokens" not in code
            tokens = run_snippet(code, folder, "tokens")
            assert tokens["input_ids"][0, 0] == 2 and tokens["token_type_ids"].any() == isinstance(columns, list)
            assert run_snippet(code, folder, "classes").shape == (2,)


def test_bibtex_is_balanced() -> None:
    for method in [METAMAE, PLAIN_MAE, *DABS.values(), SMA, MULTIMAE, MM_MAE, PLAIN_BERT, POS_BERT]:
        assert method.bibtex.count("{") == method.bibtex.count("}")
        assert "\\\\" not in method.bibtex


def test_data_of_texts_and_molecules_is_described(make_run: Any) -> None:
    text = section(write(make_run, "sma_text")[0], "Data")
    assert "| tokenizer | one token per byte (UTF-8) |" in text and "| texts | end to end" in text
    card, _ = write(make_run, "sma_molecules")
    assert "| training split | 80% of train, cut by scaffold |" in section(card, "Data")
    assert "10% of the split `train`, set aside" in section(card, "Online probe")


def test_byte_tokenizer_is_used_as_in_pretraining(make_run: Any) -> None:
    """The separator that ends a text was there in pre-training, a tokenizer's class token was not."""
    assert "add_special_tokens" not in write(make_run, "sma_text")[0]
    assert "add_special_tokens=False" in write(make_run, "sma_molecules")[0]


def test_missing_values_of_the_data_are_told(make_run: Any, tmp_path: Path) -> None:
    splits = {
        "train": {"missing_share": 0.143},
        "validation": {"missing_share": None},
        "test": {"missing_share": 1e-5},
    }
    (tmp_path / "data_report.json").write_text(json.dumps({"splits": splits}))
    told = "| missing values | 14.3 % of train, less than 0.1 % of test; they are neither read nor predicted |"
    assert told in section(write(make_run, "tabular", output_dir=str(tmp_path))[0], "Data")
    assert "missing values" not in write(make_run, "tabular")[0]


def test_converted_card_says_what_was_assumed(make_run: Any) -> None:
    _, _, folder = make_run("ids")
    model = hf_maskssl.MetaMAEForPretraining.from_pretrained(folder)
    converted = Converted(model, {"mask_ratio": 0.35}, notes=["One thing differs."])
    write_converted_card(folder, "ckpt-100k.pth", converted)
    card = (folder / "README.md").read_text()
    assert "ckpt-100k.pth" in card and "| `mask_ratio` | 0.35 |" in card
    assert "- One thing differs." in section(card, "Limitations") and "no processor" in section(card, "Limitations")
    assert "## Training" not in card and "## Recipe" not in card
    for code in snippets(card):
        assert run_snippet(code, folder).shape == (2, 16)
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "transformers"
    write_converted_card(folder, "ckpt-100k.pth", Converted(model, {}))
    assert "| `mask_ratio`" not in (folder / "README.md").read_text()


def test_snippet_titles_say_what_each_needs(make_run: Any) -> None:
    card, _ = write(make_run, "image")
    assert card.index(WITH_PACKAGE) < card.index(WITHOUT_PACKAGE)


def test_card_of_a_finetuned_model(tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, _, checkpoint = make_run("image")
    folder = finetune_digits(tmp_path, checkpoint=str(checkpoint))
    card = (folder / "README.md").read_text()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert "# MetaMAE fine-tuned on scikit-learn's handwritten digits" in card and "from `image`" in card
    score = 100 * results["scores"]["test"]["accuracy"]["mean"]
    assert f"{score:.2f} ±" in section(card, "Scores") and "Means over 2 seed(s)" in section(card, "Scores")
    assert f"that of seed {results['model']['seed']}." in section(card, "Scores")
    assert "| label column | label |" in section(card, "Data") and "20 test" in section(card, "Data")
    assert str(tmp_path) not in card and "None" not in card.split("## Recipe")[0]
    header = ModelCard.load(folder / "README.md").data
    assert header.pipeline_tag == "image-classification" and header.base_model is None
    found = []
    for text in recipes_of(card):
        (tmp_path / "recipe.yaml").write_text(text)
        found.append(load_finetuning_recipe(tmp_path / "recipe.yaml"))
    again, whole = found
    assert (again.data, again.finetuning) == (whole.data, whole.finetuning)
    assert build_config(again.model).to_dict() == build_config(whole.model).to_dict()
    assert (again.finetuning.checkpoint, again.finetuning.seeds, again.data.max_train_samples) == ("image", [3, 4], 32)
    assert "| runs | 2, each a seed" in section(card, "Training") and "| device | CPU |" in section(card, "Training")
    result = next(one for one in header.eval_results if one.metric_type == "accuracy")
    assert result.metric_value == pytest.approx(score / 100, abs=1e-4) and result.dataset_split == "test"
    assert result.task_type == "image-classification" and result.dataset_type == "digits"
    assert "mean of 2 seeds, ±" in result.metric_name and "95 % t interval" in result.metric_name
    for code in snippets(card):
        assert run_snippet(code, folder, "classes").shape == (2,)


@pytest.mark.parametrize(
    ("name", "task", "auto_class", "shape"),
    [
        ("sma_words", "regression", AutoModelForSequenceClassification, (2,)),
        ("sma_tabular", "classification", AutoModelForSequenceClassification, (2,)),
        ("tokens", "token_classification", AutoModelForTokenClassification, (2, 4)),
        ("multimae_rgb", "classification", AutoModelForImageClassification, (2,)),
        ("multimae", "semantic_segmentation", AutoModelForSemanticSegmentation, (2, 8, 8)),
        ("multimae", "depth_estimation", AutoModelForDepthEstimation, (2, 16, 16)),
        ("multimae", "dense_regression", AutoModelForImageToImage, (2, 3, 16, 16)),
    ],
)
def test_snippets_of_finetuned_models_run(
    make_run: Any, name: str, task: str, auto_class: Any, shape: tuple[int, ...]
) -> None:
    recipe, _, folder = make_run(name)
    small = {"segmentation_hidden_size": 64, "segmentation_patch_size": 4, "depth_hidden_size": 8}
    small["depth_reassemble_sizes"] = [4, 4, 8, 8]
    config = AutoConfig.from_pretrained(folder, num_labels=1 if task == "regression" else 3, **small)
    auto_class.from_config(config).save_pretrained(folder)
    for _, code in loading_snippets(folder, config, PLACEHOLDER, recipe.data, task):
        names = {"regression": "values", "dense_regression": "values", "depth_estimation": "depth"}
        result = run_snippet(code, folder, names.get(task, "classes"))
        assert result.shape == shape and auto_class.__name__ in code


@pytest.mark.parametrize(("name", "line"), [("multimae", "PIL images"), ("multimae_tensors", "prepared as in")])
def test_finetuned_multimaes_are_given_what_they_learnt_to_read(make_run: Any, name: str, line: str) -> None:
    """Pre-training's other modalities were never used, and one of them may be the label."""
    recipe, _, folder = make_run(name)
    small = {"segmentation_hidden_size": 64, "segmentation_patch_size": 4, "head_modalities": ["rgb", "depth"]}
    config = AutoConfig.from_pretrained(folder, num_labels=3, **small)
    AutoModelForSemanticSegmentation.from_config(config).save_pretrained(folder)
    for _, code in loading_snippets(folder, config, PLACEHOLDER, recipe.data, "semantic_segmentation"):
        assert line in code and '"depth":' in code and '"semseg":' not in code and "left out" not in code
        assert run_snippet(code, folder, "classes").shape == (2, 8, 8)
    for task, can_be_left_out in (("classification", True), (None, True), ("semantic_segmentation", False)):
        code = loading_snippets(folder, config, PLACEHOLDER, recipe.data, task)[0][1]
        assert ("left out" in code) == can_be_left_out and ('"semseg":' in code) == (task is None)


def test_data_of_a_finetuned_card_names_the_inputs(make_run: Any) -> None:
    recipe, _, _ = make_run("multimae_tensors")
    for inputs, expected in ((["rgb"], "photo (rgb)"), (["depth", "semseg"], "z (depth), semseg")):
        table = cards._data_table(cards._data_read(recipe.data, {"inputs": inputs}), Path("absent"), {"train": 3})
        assert f"| input column | {expected} |" in table
    assert cards._data_read(recipe.data, {"inputs": None}) == recipe.data
