"""PoS-BERT as a transformers model: what every method's models do, BERT's checkpoints and pipelines, and every refusal."""

from pathlib import Path
from typing import Any

import accelerate
import pos_minimax_bert_cases
import pytest
import torch
import transformers
from contract_behaviours import Head
from model_behaviours import Looks, ModelBehaviours, look_at_nothing, opened, same_fields, step
from pos_minimax_bert_cases import (
    BALANCERS,
    CASES,
    SMALL,
    as_bert,
    for_masked_lm,
    make_batch,
    masked_lm,
    small_config,
    small_model,
    with_positions,
    without_labels,
)
from tokenizers import BertWordPieceTokenizer
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    BertTokenizerFast,
    masking_utils,
    pipeline,
)

import hf_maskssl
from hf_maskssl import (
    PoSMinimaxBertConfig,
    PoSMinimaxBertForMaskedLM,
    PoSMinimaxBertForMultipleChoice,
    PoSMinimaxBertForPreTraining,
    PoSMinimaxBertForQuestionAnswering,
    PoSMinimaxBertForSequenceClassification,
    PoSMinimaxBertForTokenClassification,
    PoSMinimaxBertModel,
)
from hf_maskssl.models import distributed, layers, layers_pos_minimax_bert
from hf_maskssl.models.configuration_pos_minimax_bert import PARTS_OF_SPEECH

HEADS = ["SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice"]


def open_as(kind: Any, folder: Path, **fields: Any) -> tuple[Any, dict[str, set[str]]]:
    model, info = kind.from_pretrained(folder, output_loading_info=True, **fields)
    assert not info["mismatched_keys"] and not info["error_msgs"]
    return model.eval(), {kind: set(info[f"{kind}_keys"]) for kind in ("missing", "unexpected")}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"tasks": ["noun", "gerund"]}, r"`tasks` must be different names out of \['verb', .*\['noun', 'gerund'\]"),
    ({"tasks": ["noun", "noun"]}, r"`tasks` must be different names .* got \['noun', 'noun'\]"),
    ({"tasks": []}, r"`tasks` must be .* at least one, or \['mlm'\] alone, got \[\]"),
    ({"tasks": ["mlm", "noun"]}, r"\['mlm'\] alone, got \['mlm', 'noun'\]"),
    ({"tasks": "noun"}, "tasks"),
    ({"task_balancing": "maxmin"}, "task_balancing"),
    ({"task_balancing_options": {"temprature": 1.0}}, r"'minimax' has no option \['temprature'\]"),
    ({"task_balancing": "none", "task_balancing_options": {"alpha": 1.0}}, "'none' has no option"),
    ({"next_sentence_prediction": "after"}, "next_sentence_prediction"),
    ({"type_vocab_size": 1}, "`next_sentence_prediction` needs `type_vocab_size` of at least 2.*got 1"),
    ({"hidden_size": 15}, "`hidden_size` must be a positive multiple of `num_attention_heads`, got 15 and 2"),
    ({"num_hidden_layers": 0}, "`num_hidden_layers` must be at least 1, got 0"),
    ({"vocab_size": 0}, "`vocab_size` must be at least 1, got 0"),
    ({"is_decoder": True}, "`is_decoder` and `add_cross_attention` must be False.*got True and False"),
    ({"hidden_dropout_prob": 1.0}, "`hidden_dropout_prob` is a probability, expected 0 to below 1, got 1.0"),
    ({"pad_token_id": 30}, r"`pad_token_id` must be None or lie in \[0, vocab_size=30\), got 30"),
]
BATCH = make_batch("minimax")
SHORT, FLOAT = BATCH["labels"][:, :5], BATCH["labels"].float()


def changed(name: str, place: Any, value: int) -> dict[str, torch.Tensor]:
    spoilt = BATCH[name].clone()
    spoilt[place] = value
    return {name: spoilt}


MASKED = tuple(int(index) for index in (BATCH["labels"] != -100).nonzero()[3])
LONG = torch.ones(4, 13, dtype=torch.int64)
BAD_INPUTS: list[tuple[dict[str, Any], str]] = [
    ({"input_ids": BATCH["input_ids"].float()}, "`input_ids` must be integers of the shape"),
    ({"input_ids": BATCH["input_ids"][0]}, r"got torch.int64 of \(11,\)"),
    ({"input_ids": LONG}, "1 to max_position_embeddings=12 tokens, got 13: truncate"),
    (changed("input_ids", (0, 1), 30), r"`input_ids` must lie in \[0, vocab_size=30\), got 0 to 30"),
    (changed("input_ids", (0, 1), -1), r"\[0, vocab_size=30\), got -1 to"),
    ({"input_ids": None}, "give `input_ids` or `inputs_embeds`, one of the two, got neither"),
    ({"inputs_embeds": torch.rand(4, 11, 16)}, "one of the two, got both"),
    ({"attention_mask": BATCH["attention_mask"][:, :5]}, r"one entry per token, \(4, 11\), got \(4, 5\)"),
    (changed("attention_mask", 1, 0), r"marks nothing as real in rows \[1\] of the batch: drop empty samples"),
    ({"token_type_ids": SHORT}, r"`token_type_ids` must have one entry per token, \(4, 11\), got \(4, 5\)"),
    (changed("token_type_ids", (2, 0), 2), r"`token_type_ids` must lie in \[0, type_vocab_size=2\), got 0 to 2"),
]
BAD_SENTENCE_LABELS: list[tuple[dict[str, Any], str]] = [
    ({"labels": None}, "`next_sentence_label` needs `labels` beside it"),
    ({"next_sentence_label": torch.zeros(3, dtype=torch.int64)}, r"one for each of the 4 sequences, got .* \(3,\)"),
    ({"next_sentence_label": torch.zeros(4, 1, dtype=torch.int64)}, r"each of the 4 sequences, got .* \(4, 1\)"),
    ({"next_sentence_label": torch.zeros(4)}, "`next_sentence_label` must be int64.*got torch.float32"),
    (changed("next_sentence_label", 1, 2), "`next_sentence_label` must be 0, 1 or -100, got 2"),
]
BAD_LABELS: list[tuple[dict[str, Any], str]] = [
    ({"labels": SHORT}, r"`labels` must be int64 of the inputs' shape \(4, 11\), got torch.int64 of \(4, 5\)"),
    ({"labels": FLOAT}, r"`labels` must be int64 .* got torch.float32 of \(4, 11\)"),
    (changed("labels", MASKED, 30), r"`labels` must be -100 or ids in \[0, vocab_size=30\), got 30"),
    (changed("labels", MASKED, -1), "`labels` must be -100 or ids in .* got -1"),
    ({"tasks": None}, r"`tasks` must come with `labels`.*\['noun', .*kind 'masked_text'.*tasks=\['mlm'\]"),
    ({"tasks": BATCH["tasks"][:3]}, r"`tasks` must be int64 of the shape of `labels`, \(4, 11\), got .* \(3, 11\)"),
    ({"tasks": BATCH["tasks"].int()}, r"`tasks` must be int64 .* got torch.int32"),
    (changed("tasks", MASKED, -100), "`tasks` must be 0 to 3 wherever there is a label, got -100 in row {}, piece {}"),
    (changed("tasks", MASKED, 4), "0 to 3 wherever there is a label, got 4 in row {}, piece {} of the batch: set its"),
]


class TestPoSMinimaxBert(ModelBehaviours):
    kit = pos_minimax_bert_cases
    encoder_class = PoSMinimaxBertModel
    cases = list(CASES)
    shapes = ["minimax", "gradnorm", "plain"]
    anew = ("gradnorm", {})
    random = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
    # One look finds the masked pieces, before the encoder runs; GradNorm sorts them by task, which are four.
    looks = {case: {"nonzero": 5 if case.startswith("gradnorm") else 1} for case in CASES}
    impossible = [(SMALL | fields, message) for fields, message in REFUSED]
    bad_inputs = [("minimax", without_labels(BATCH) | change, message) for change, message in BAD_INPUTS]
    bad_draws = [("minimax", *each) for each in BAD_SENTENCE_LABELS]

    @classmethod
    def _models(cls, case: str) -> tuple[Any, ...]:
        return (*super()._models(case), masked_lm(case))

    def for_encoder(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return without_labels(batch)

    def is_token(self, encoder: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["attention_mask"].bool()

    def heads(self) -> list[Head]:
        batch = without_labels(make_batch("minimax"))
        is_scored = batch["attention_mask"] == 1
        values = torch.rand(is_scored.shape, generator=torch.Generator().manual_seed(3))
        choices = {name: torch.stack([value, value.flip(0)], dim=1) for name, value in batch.items()}
        ends = {"start_positions": torch.tensor([1, 2, 0, 3]), "end_positions": torch.tensor([2, 2, 4, 3])}
        token, sequence = PoSMinimaxBertForTokenClassification, PoSMinimaxBertForSequenceClassification
        return [
            Head(sequence, "minimax", {"num_labels": 3}, torch.tensor([0, 1, 2, 1])),
            Head(sequence, "minimax", {"num_labels": 1}, torch.tensor([0.5, 1.5, -1.0, 2.0])),
            Head(sequence, "minimax", {"num_labels": 3}, torch.eye(3)[[0, 1, 1, 2]]),
            Head(token, "minimax", {"num_labels": 3}, torch.where(is_scored, (9 * values).long() % 3, -100)),
            Head(token, "minimax", {"num_labels": 1}, torch.where(is_scored, values, -100.0)),
            Head(PoSMinimaxBertForMultipleChoice, "minimax", {}, torch.tensor([0, 1, 1, 0]), choices),
            Head(PoSMinimaxBertForQuestionAnswering, "minimax", {}, None, batch | ends),
        ]

    def pooled(self, encoder: Any, states: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
        return encoder.pooler.dense(states[:, 0]).tanh()


# Checkpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_is_one_of_bert(case: str, tmp_path: Path) -> None:
    """transformers' own models open it, with nothing of BERT's missing and the same outputs."""
    model = small_model(case).eval()
    model.save_pretrained(tmp_path)
    inputs = without_labels(make_batch(case))
    state = set(model.balancer.state_dict(prefix="balancer."))
    assert bool(state) == (not case.startswith(("none", "minimax", "plain", "guided")))
    expected = model(**inputs)
    whole, keys = open_as(BertForPreTraining, tmp_path)
    assert keys == {"missing": set(), "unexpected": state}
    found = whole(**inputs)
    assert torch.equal(found.prediction_logits, expected.prediction_logits)
    assert torch.equal(found.seq_relationship_logits, expected.seq_relationship_logits)
    masked, keys = open_as(BertForMaskedLM, tmp_path)
    assert not keys["missing"] and torch.equal(masked(**inputs).logits, expected.prediction_logits)
    encoder, keys = open_as(BertModel, tmp_path)
    assert not keys["missing"] and all(key.startswith(("cls.", "balancer.")) for key in keys["unexpected"])
    assert torch.equal(encoder(**inputs).pooler_output, model.bert(**inputs).pooler_output)


@pytest.mark.parametrize("head", HEADS)
def test_heads_are_berts_and_only_they_are_new(head: str, tmp_path: Path) -> None:
    """Ours through the Auto classes, and transformers' own: the encoder's weights, and one output layer."""
    model = small_model("uncertainty").eval()
    model.save_pretrained(tmp_path / "pretrained")
    ours, keys = open_as(getattr(transformers, f"AutoModelFor{head}"), tmp_path / "pretrained")
    assert type(ours) is getattr(hf_maskssl, f"PoSMinimaxBertFor{head}") and not keys["unexpected"]
    layer = "qa_outputs" if head == "QuestionAnswering" else "classifier"
    assert keys["missing"] == {f"{layer}.weight", f"{layer}.bias"}
    plain, keys = open_as(getattr(transformers, f"BertFor{head}"), tmp_path / "pretrained")
    assert keys["missing"] == {f"{layer}.weight", f"{layer}.bias"}
    for each in (ours, plain):
        for name, parameter in model.bert.named_parameters():
            if not name.startswith("pooler") or each.bert.pooler is not None:
                assert torch.equal(each.bert.get_parameter(name), parameter), name
    ours.save_pretrained(tmp_path / "tuned")
    plain, keys = open_as(getattr(transformers, f"BertFor{head}"), tmp_path / "tuned")
    assert keys == {"missing": set(), "unexpected": set()}
    inputs = without_labels(make_batch("none"))
    if head == "MultipleChoice":
        inputs = {name: value.unflatten(0, (2, 2)) for name, value in inputs.items()}
    found, expected = (each(**inputs, output_hidden_states=True) for each in (ours, plain))
    assert found.keys() == expected.keys() and len(found.hidden_states) == 3
    for name in set(found) - {"hidden_states"}:
        assert torch.equal(found[name], expected[name]), name


def test_labels_of_the_heads_give_berts_losses() -> None:
    inputs = without_labels(make_batch("none"))
    choices = {name: value.unflatten(0, (2, 2)) for name, value in inputs.items()}
    per_token = torch.where(inputs["attention_mask"] == 1, inputs["token_type_ids"], -100)
    spans = {"start_positions": torch.tensor([1, 2, 3, 1]), "end_positions": torch.tensor([3, 3, 4, 1])}
    given: dict[str, dict[str, torch.Tensor]] = {
        "SequenceClassification": {**inputs, "labels": torch.tensor([0, 1, 1, 0])},
        "TokenClassification": {**inputs, "labels": per_token},
        "QuestionAnswering": inputs | spans,
        "MultipleChoice": {**choices, "labels": torch.tensor([0, 1])},
    }
    for head, batch in given.items():
        torch.manual_seed(0)
        ours = getattr(hf_maskssl, f"PoSMinimaxBertFor{head}")(small_config("none")).eval()
        plain = as_bert(ours, getattr(transformers, f"BertFor{head}"))
        torch.testing.assert_close(ours(**batch).loss, plain(**batch).loss, msg=head)


@pytest.mark.parametrize("case", [*BALANCERS, "minimax-alone", "plain"])
def test_masked_language_modelling_opens_and_is_opened(case: str, tmp_path: Path) -> None:
    """By pre-training, to which it lacks the next sentence alone."""
    small_model(case).save_pretrained(tmp_path)
    opened(AutoModelForMaskedLM, tmp_path, PoSMinimaxBertForMaskedLM).save_pretrained(tmp_path / "masked")
    _, keys = open_as(AutoModelForPreTraining, tmp_path / "masked")
    assert {name.split(".")[-2] for name in keys["missing"]} == {"dense", "seq_relationship"}
    assert all(name.startswith(("bert.pooler", "cls.seq")) for name in keys["missing"])


def test_it_can_begin_with_bert(tmp_path: Path) -> None:
    """A checkpoint of transformers' BERT; only what the balancer remembers is new, and has its first value."""
    torch.manual_seed(0)
    fields = {name: value for name, value in SMALL.items() if name != "tasks"}
    bert = BertForPreTraining(BertConfig(**fields)).eval()
    bert.save_pretrained(tmp_path)
    changes = CASES["gradnorm"] | {"tasks": SMALL["tasks"]}
    model, keys = open_as(PoSMinimaxBertForPreTraining, tmp_path, **changes)
    assert keys == {"missing": {"balancer.rule.task_weights", "balancer.rule.initial_losses"}, "unexpected": set()}
    assert torch.equal(model.balancer.rule.task_weights, torch.ones(4)) and model.config.tasks == SMALL["tasks"]
    inputs = without_labels(make_batch("none"))
    assert torch.equal(model(**inputs).prediction_logits, bert(**inputs).prediction_logits)


def test_fill_mask_pipeline(tmp_path: Path) -> None:
    """From a pre-training checkpoint, with a WordPiece tokenizer of its own."""
    sentences = ["the cat sat on the mat", "the dog sat on the cat", "a dog and a cat sat"] * 3
    trained = BertWordPieceTokenizer()
    trained.train_from_iterator(sentences, vocab_size=60, min_frequency=1)
    tokenizer = BertTokenizerFast(tokenizer_object=trained._tokenizer)
    torch.manual_seed(0)
    config = small_config("minimax", vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    model = PoSMinimaxBertForPreTraining(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    fill = pipeline("fill-mask", model=str(tmp_path), tokenizer=str(tmp_path), top_k=3)
    assert type(fill.model) is PoSMinimaxBertForMaskedLM
    answers = fill("The dog [MASK] on the mat")
    encoded = tokenizer("The dog [MASK] on the mat", return_tensors="pt")
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])[1:4] == ["the", "dog", "[MASK]"]
    with torch.no_grad():
        scores, tokens = model(**encoded).prediction_logits[0, 3].softmax(-1).topk(3)
    assert [answer["token"] for answer in answers] == tokens.tolist()
    assert [answer["score"] for answer in answers] == pytest.approx(scores.tolist(), rel=1e-5)
    assert answers[0]["sequence"].startswith("the dog ")


def test_the_head_is_tied_and_stays_so(tmp_path: Path) -> None:
    for kind in (PoSMinimaxBertForPreTraining, PoSMinimaxBertForMaskedLM):
        model = small_model("minimax", kind=kind)

        def is_tied(model: Any) -> bool:
            head = model.cls.predictions
            return head.decoder.weight is model.get_input_embeddings().weight and head.decoder.bias is head.bias

        assert is_tied(model)
        before = model.get_input_embeddings().weight.detach().clone()
        model.resize_token_embeddings(37)
        assert is_tied(model) and model.config.vocab_size == 37 and model.cls.predictions.bias.shape == (37,)
        assert torch.equal(model.get_input_embeddings().weight[:30], before)
        batch = for_masked_lm(make_batch("minimax"))
        batch["input_ids"][0, 1] = batch["labels"][0, 2] = 36  # new ones may be read and written
        batch["tasks"][0, 2] = 0
        assert torch.isfinite(model(**batch).loss)
        model.save_pretrained(tmp_path / kind.__name__)
        again, keys = open_as(kind, tmp_path / kind.__name__)
        assert is_tied(again) and not keys["missing"]
        torch.testing.assert_close(again(**batch).loss, model.eval()(**batch).loss)


def test_initial_values_are_berts() -> None:
    config = small_config("uncertainty", initializer_range=0.02, hidden_size=64)
    model = PoSMinimaxBertForPreTraining(config)
    drawn = [model.bert.embeddings.word_embeddings.weight[1:], model.bert.encoder.layer[1].output.dense.weight]
    for weight in drawn:
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    for constant in (model.cls.predictions.bias, model.bert.pooler.dense.bias, model.balancer.rule.log_variances):
        assert not constant.any()


# Kernels, precisions, compilation ----------------------------------------------------------------------------------


def test_cross_entropies_of_a_bfloat16_model_have_more_bits_than_its_logits() -> None:
    model, batch = small_model("plain").to(torch.bfloat16).train(), make_batch("plain")
    logits: list[torch.Tensor] = []
    model.cls.predictions.register_forward_hook(lambda module, given, output: logits.append(output))
    outputs = model(**batch)
    labels = batch["labels"][batch["labels"] != -100]
    expected = torch.nn.functional.cross_entropy(logits[0].detach().float(), labels)
    torch.testing.assert_close(outputs.loss_parts["mlm"], expected, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        found = small_model("plain").eval()(**without_labels(batch))
    assert found.prediction_logits.dtype == torch.bfloat16


def test_masked_language_modelling_does_what_pretraining_does() -> None:
    """Offloaded, without labels, and in tuples."""
    batch = for_masked_lm(make_batch("minimax"))
    expected = masked_lm("minimax")(**batch)
    offloaded = accelerate.cpu_offload(masked_lm("minimax"), torch.device("cpu"))
    torch.testing.assert_close(offloaded(**batch).loss, expected.loss)
    for build, name in ((small_model, "prediction_logits"), (masked_lm, "logits")):
        for given, first in ((batch, "loss"), (without_labels(batch), name)):
            expected = build("minimax")(**given)
            assert list(expected)[0] == first
            for found in (build("minimax")(**given, return_dict=False), build("minimax", return_dict=False)(**given)):
                assert len(found) == len(expected) and torch.equal(found[0], expected[first])
    model = small_model("minimax", return_dict=False)
    assert torch.equal(model.measure_tasks(**batch).counts, small_model("minimax").measure_tasks(**batch).counts)


@pytest.mark.parametrize("case", ["none", "minimax-inside", "uncertainty", "dwa"])
def test_a_first_pass_that_only_counts_looks_once(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    look_at_nothing(monkeypatch)
    with Looks() as looks:
        small_model(case).train().measure_tasks(**make_batch(case))
    assert looks.found == {"nonzero": 1}


@pytest.mark.parametrize(
    ("case", "expected"), [("none", 0), ("minimax-inside", 0), ("minimax-alone", 0), ("gradnorm", 4)]
)
@pytest.mark.parametrize("kind", [PoSMinimaxBertForPreTraining, PoSMinimaxBertForMaskedLM])
def test_who_is_told_what_is_masked_need_not_look(
    kind: Any, case: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(case) if kind is PoSMinimaxBertForPreTraining else for_masked_lm(make_batch(case))
    wanted = step(small_model(case, kind=kind).double().train(), batch)
    counted = small_model(case, kind=kind).double().train().measure_tasks(**batch)
    look_at_nothing(monkeypatch)
    model = small_model(case, kind=kind).double().train()
    told = with_positions(batch)
    with Looks() as looks:
        found = step(model, told)
    assert sum(looks.found.values()) == expected, looks.found
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)
    measured = small_model(case, kind=kind).double().train().measure_tasks(**told)
    assert torch.equal(measured.counts, counted.counts) and (measured.sums is None) == (counted.sums is None)
    if counted.sums is not None:
        torch.testing.assert_close(measured.sums, counted.sums)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("case", ["minimax", "gradnorm-inside", "plain"])
def test_the_last_layer_at_masked_places_is_the_whole_one_there(case: str, implementation: str) -> None:
    """Asking for hidden states computes all of it."""
    for kind in (PoSMinimaxBertForPreTraining, PoSMinimaxBertForMaskedLM):
        batch = with_positions(make_batch(case))
        batch = batch if kind is PoSMinimaxBertForPreTraining else for_masked_lm(batch)
        found: list[list[torch.Tensor]] = []
        rows: list[int] = []
        for wanted in ({}, {"output_hidden_states": True}):
            model = small_model(case, kind=kind).double().train()
            model.set_attn_implementation(implementation)
            model.bert.encoder.layer[1].register_forward_hook(lambda *given, rows=rows: rows.append(given[2].shape[1]))
            outputs = model(**batch, **wanted)
            assert (outputs.hidden_states is None) == (not wanted)
            outputs.loss.backward()
            found.append([outputs.loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
        most = int((batch["labels"] != -100).sum(1).max())
        assert rows == [most + (kind is PoSMinimaxBertForPreTraining), 11]
        torch.testing.assert_close(*found, rtol=1e-8, atol=1e-9)


def test_places_of_the_last_layer_are_those_of_the_whole() -> None:
    """Also under masks that differ between queries, and for kernels whose masks cannot be cut."""
    encoder = small_model("minimax").bert.double().eval()
    batch = without_labels(make_batch("minimax"))
    ids = torch.tensor([[0, 3, 10, 0], [0, 1, 2, 3], [5, 5, 0, 1], [0, 4, 2, 1]])
    own = torch.rand(4, 1, 11, 11, generator=torch.Generator().manual_seed(0)) < 0.8
    own[..., 0] = True
    for mask in (batch["attention_mask"], None, own):
        expected = encoder(**batch | {"attention_mask": mask})
        found = encoder(**batch | {"attention_mask": mask}, query_ids=ids)
        torch.testing.assert_close(
            found.last_hidden_state, expected.last_hidden_state.take_along_dim(ids[..., None], 1)
        )
    hidden = torch.randn(4, 11, 16, dtype=torch.float64)
    whole = encoder.encoder(hidden).last_hidden_state
    for layer in encoder.encoder.layer:  # as if the kernel read a mask of its own kind
        layer.attention.self.forward = lambda hidden, attention_mask=None, *, own=layer.attention.self, **kw: type(
            own
        ).forward(own, hidden, None, **kw)
    found = encoder.encoder(hidden, batch["attention_mask"], query_ids=ids).last_hidden_state
    torch.testing.assert_close(found, whole.take_along_dim(ids[..., None], 1))


def test_dropout_in_training_is_the_fast_one_and_its_mean_is_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("minimax", attention_probs_dropout_prob=0.2, hidden_dropout_prob=0.1).train()
    assert {type(m).__module__ for m in model.bert.modules() if isinstance(m, torch.nn.Dropout)} == {
        "hf_maskssl.models.dropout"
    }
    calls: list[float] = []
    attend = layers_pos_minimax_bert.attend_with_dropout
    monkeypatch.setattr(
        layers_pos_minimax_bert, "attend_with_dropout", lambda *given: calls.append(given[-1]) or attend(*given)
    )
    batch = make_batch("minimax")
    model(**batch)
    assert calls == [0.2, 0.2]
    model.eval()(**batch)
    model.set_attn_implementation("eager")
    model.train()(**batch)
    assert len(calls) == 2
    attention = small_model("minimax", attention_probs_dropout_prob=0.2).bert.encoder.layer[0].attention.self.train()
    hidden = torch.randn(1, 6, 16)
    expected = attention.eval()(hidden)[0]
    drawn = torch.stack(
        [attention.train()(hidden)[0] for _ in range(1)] + [attention(hidden.expand(4000, -1, -1))[0].mean(0)[None]]
    )
    torch.testing.assert_close(drawn[1], expected, rtol=0, atol=0.06)
    assert not torch.allclose(drawn[0], expected)


def test_whether_anything_is_padded_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """BERT's own mask asks it in every forward pass, which a GPU would have to be waited for."""
    looked: list[int] = []
    original = masking_utils._ignore_bidirectional_mask_sdpa
    monkeypatch.setattr(
        masking_utils,
        "_ignore_bidirectional_mask_sdpa",
        lambda *args, **kwargs: looked.append(1) or original(*args, **kwargs),
    )
    batch = make_batch("minimax")
    expected = small_model("minimax")(**batch).loss
    assert looked  # on the CPU it costs nothing
    looked.clear()
    monkeypatch.setattr(layers, "values_are_readable", lambda tensor: False)
    torch.testing.assert_close(small_model("minimax")(**batch).loss, expected)
    assert not looked
    nothing_padded = {**batch, "attention_mask": torch.ones_like(batch["attention_mask"])}
    found = small_model("minimax")(**nothing_padded).loss
    del nothing_padded["attention_mask"]
    torch.testing.assert_close(found, small_model("minimax")(**nothing_padded).loss)


@pytest.mark.slow
def test_the_look_is_the_only_break_of_the_graph() -> None:
    """Shapes depend on how many pieces are masked. Where dynamo may follow that, inputs to loss are one graph."""
    torch._dynamo.reset()
    model, batch = small_model("minimax", num_hidden_layers=1), make_batch("minimax")
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=False):
        broken = torch._dynamo.explain(model)(**batch)
    assert broken.break_reasons and all("aten.nonzero" in str(each.reason) for each in broken.break_reasons)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        for seed in (0, 5):  # other numbers of masked pieces
            other = make_batch("minimax", seed=seed)
            torch.testing.assert_close(compiled(**other).loss, model(**other).loss)


@pytest.mark.slow
def test_who_is_told_what_is_masked_is_one_graph() -> None:
    torch._dynamo.reset()
    model = small_model("minimax", num_hidden_layers=1)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for seed in (0, 5):
        batch = with_positions(make_batch("minimax", seed=seed))
        torch.testing.assert_close(compiled(**batch).loss, model(**batch).loss)


def test_embeddings_in_place_of_ids() -> None:
    model, batch = small_model("minimax").eval(), make_batch("minimax")
    expected = model(**batch)
    embedded = model.get_input_embeddings()(batch.pop("input_ids"))
    found = model(**batch, inputs_embeds=embedded, position_ids=torch.arange(11)[None])
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(model.measure_tasks(**batch, inputs_embeds=embedded).counts[2], torch.tensor(0.0))


@pytest.mark.parametrize("kind", [PoSMinimaxBertForPreTraining, PoSMinimaxBertForMaskedLM])
def test_several_processes_reach_every_parameter_of_an_untied_head(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of its biases is read where it is tied alone, but each process waits for its gradient."""
    model = small_model("minimax", kind=kind, tie_word_embeddings=False)
    batch = make_batch("minimax")
    inputs = batch if kind is PoSMinimaxBertForPreTraining else for_masked_lm(batch)
    alone = step(model, inputs)
    assert "cls.predictions.bias" not in alone
    model.zero_grad()
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor)
    found = step(model, inputs)
    assert found.keys() - {"loss"} == dict(model.named_parameters()).keys()
    assert not found["cls.predictions.bias"].any()


def test_fsdp_is_refused_for_gradnorm_alone() -> None:
    reasons = {case: small_model(case).reason_against_fsdp() for case in CASES}
    assert [case for case, reason in reasons.items() if reason] == ["gradnorm", "gradnorm-inside"]


# Configuration -----------------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_paper_and_of_bert() -> None:
    config, bert = PoSMinimaxBertConfig(), BertConfig()
    assert config.tasks == list(PARTS_OF_SPEECH) and len(config.tasks) == 9
    assert (config.task_balancing, config.next_sentence_prediction) == ("minimax", "beside")
    own = {"tasks", "task_balancing", "task_balancing_options", "next_sentence_prediction", "auto_map", "model_type"}
    assert (config.masking, config.mask_schedule) == ("random", "none")
    own |= {"masking", "num_masked_per_query", "mask_schedule", "mask_schedule_start", "mask_schedule_fraction"}
    assert {name: value for name, value in config.to_dict().items() if name not in own} == {
        name: value for name, value in bert.to_dict().items() if name not in own
    }


def test_the_order_of_tasks_survives(tmp_path: Path) -> None:
    """Ids in a batch mean places in this list."""
    tasks = ["verb", "adverb", "interjection", "noun"]
    config = small_config("gradnorm", tasks=tasks)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is PoSMinimaxBertConfig and again.tasks == tasks
    assert same_fields(again, config)
    assert again.balanced_tasks == tasks
    assert small_config("none-inside", tasks=tasks).balanced_tasks == [*tasks, "next_sentence"]
    assert type(BertConfig.from_pretrained(tmp_path)) is BertConfig


# Bad input ---------------------------------------------------------------------------------------------------------


RIGHT = with_positions(BATCH)["masked_positions"]
BAD_POSITIONS: list[tuple[torch.Tensor, str]] = [
    (RIGHT[:, 0], r"must be int64 of the shape \(4, K\), K at least 1, got torch.int64 of \(4,\)"),
    (RIGHT[:3], r"of the shape \(4, K\).*got torch.int64 of \(3, 8\)"),
    (RIGHT.int(), "must be int64 .* got torch.int32"),
    (RIGHT[:, :0], r"K at least 1, got .* \(4, 0\)"),
    (RIGHT[:, :2], "must be the places in each row where `labels` are not -100, ascending, and then -1, expected"),
    (RIGHT.flip(1), "ascending, and then -1, expected"),
    (RIGHT.roll(1, 0), "in row 0, got .*: leave it out, or make it anew where labels were changed"),
]


@pytest.mark.parametrize(("change", "message"), BAD_LABELS)
def test_bad_labels_are_refused(change: dict[str, Any], message: str) -> None:
    for model, batch in ((small_model("minimax"), BATCH), (masked_lm("minimax"), for_masked_lm(BATCH))):
        with pytest.raises(ValueError, match=message.format(*MASKED)):
            model(**batch | change)
        with pytest.raises(ValueError, match=message.format(*MASKED)):
            model.measure_tasks(**batch | change)


@pytest.mark.parametrize(("positions", "message"), BAD_POSITIONS)
def test_bad_masked_positions_are_refused(positions: torch.Tensor, message: str) -> None:
    for model, batch in ((small_model("minimax"), BATCH), (masked_lm("minimax"), for_masked_lm(BATCH))):
        for call in (model, model.measure_tasks):
            with pytest.raises(ValueError, match="`masked_positions` .*" + message):
                call(**batch, masked_positions=positions)
    small_model("minimax")(**BATCH, masked_positions=RIGHT)


def test_sentence_labels_that_the_configuration_does_not_want_are_refused() -> None:
    with pytest.raises(
        ValueError, match="`next_sentence_prediction` is 'none': leave it out, or set that to 'beside'"
    ):
        small_model("minimax-alone")(**BATCH)


def test_measuring_needs_labels() -> None:
    for case in ("none", "minimax"):
        with pytest.raises(ValueError, match=r"`labels` must be given to pre-train: \(B, N\)"):
            small_model(case).measure_tasks(**without_labels(BATCH))
        with pytest.raises(ValueError, match="`tasks` must come with `labels`"):
            small_model(case).measure_tasks(**{name: value for name, value in BATCH.items() if name != "tasks"})


@pytest.mark.parametrize(
    "task", ["SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice"]
)
def test_heads_check_their_inputs_as_the_encoder_does(task: str) -> None:
    head = getattr(hf_maskssl, f"PoSMinimaxBertFor{task}")(small_config("none")).eval()
    assert type(head.base_model) is hf_maskssl.PoSMinimaxBertModel
    ids = torch.full((1, 3), head.config.vocab_size)
    with pytest.raises(ValueError, match="`input_ids` must lie in"):
        head(input_ids=ids[None] if task == "MultipleChoice" else ids)


def test_gradnorm_refuses_an_offloaded_weight() -> None:
    model = accelerate.cpu_offload(small_model("gradnorm").train(), torch.device("cpu"))
    with pytest.raises(ValueError, match="gradients of a weight that is offloaded"):
        model(**make_batch("gradnorm"))
