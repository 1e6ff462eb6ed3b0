"""PoS-BERT's losses and gradients against transformers' BERT and a loop over single pieces, for every task balancing."""

from collections import defaultdict
from typing import Any

import pytest
import torch
from pos_minimax_bert_cases import (
    BALANCERS,
    CASES,
    as_bert,
    for_masked_lm,
    make_batch,
    make_draws,
    masked_lm,
    slow_guided,
    small_model,
    without_labels,
)
from torch.nn import functional as F
from transformers import BertForMaskedLM, BertForPreTraining

NEXT = "next_sentence"
Losses = dict[str, torch.Tensor]


def slow_losses(bert: Any, tasks: list[str], batch: dict[str, torch.Tensor]) -> tuple[Losses, dict[str, int]]:
    """Mean loss of each task that is there, and of next sentence prediction: rows alone and without their padding."""
    terms: dict[str, list[torch.Tensor]] = defaultdict(list)
    for row in range(len(batch["input_ids"])):
        length = int(batch["attention_mask"][row].sum())
        given = {name: batch[name][row : row + 1, :length] for name in ("input_ids", "token_type_ids")}
        outputs = bert(**given)
        for place in range(length):
            label = int(batch["labels"][row, place])
            if label != -100:
                task = tasks[int(batch["tasks"][row, place])]
                terms[task].append(-outputs.prediction_logits[0, place].log_softmax(-1)[label])
        follows = int(batch.get("next_sentence_label", torch.full((length,), -100))[row])
        if follows != -100:
            terms[NEXT].append(-outputs.seq_relationship_logits[0].log_softmax(-1)[follows])
    return {task: torch.stack(each).mean() for task, each in terms.items()}, {k: len(v) for k, v in terms.items()}


def slow_balance(model: Any, losses: Losses) -> tuple[torch.Tensor, dict[str, float], torch.Tensor | None]:
    """The balanced loss, each task's weight, and the learned log variances, if any."""
    config, state = model.config, {name: value.clone() for name, value in model.balancer.rule.state_dict().items()}
    options, names = config.task_balancing_options or {}, config.balanced_tasks
    present = [task for task in names if task in losses]
    values = torch.stack([losses[task].detach() for task in present])
    places = [names.index(task) for task in present]
    learned = None
    if config.task_balancing == "none":
        weights = torch.ones(len(present))
    elif "momentum" in options:
        share = 1 - options["momentum"]
        running = state["running_losses"][places] * (1 - share) + values * share
        weights = (options["alpha"] * running / (state["running_shares"][places] * (1 - share) + share)).softmax(0)
    elif config.task_balancing == "minimax":
        weights = (options["alpha"] * values).softmax(0)
    elif config.task_balancing == "gradnorm":
        weights = state["task_weights"][places]
    elif config.task_balancing == "dwa":
        last, before = state["history"][:, places]
        weights = len(present) * (last / before / options["temperature"]).softmax(0)
    else:
        learned = state["log_variances"].requires_grad_()
        weights = (-learned[places]).exp()
    loss = sum(weight * losses[task] for weight, task in zip(weights, present, strict=True))
    if learned is not None:
        loss = loss + learned[places].sum()
    given = dict(zip(present, weights.tolist(), strict=True))
    if NEXT in losses and NEXT not in names:
        given[NEXT] = float(weights.detach().sum()) if len(present) else 1.0
        loss = loss + given[NEXT] * losses[NEXT]
    return loss, given, learned


@pytest.mark.parametrize("case", CASES)
def test_loss_parts_and_gradients_of_a_loop_over_pieces(case: str) -> None:
    model, batch = small_model(case).double().train(), make_batch(case)
    draws = make_draws(case)
    bert = as_bert(model, BertForPreTraining)
    losses, counts = slow_losses(bert, model.config.tasks, slow_guided(model, batch, draws) if draws else batch)
    expected, weights, learned = slow_balance(model, losses)  # before the step changes what the balancer remembers
    expected.backward()
    outputs = model(**batch, **draws)
    outputs.loss.backward()
    torch.testing.assert_close(outputs.loss, expected)
    names = model.config.tasks if case == "minimax-alone" else [*model.config.tasks, NEXT]
    assert sorted(outputs.loss_parts) == sorted(
        f"{kind}{name}" for kind in ("", "weight/", "count/") for name in names
    )
    for name in names:
        parts = [float(outputs.loss_parts[f"{kind}{name}"]) for kind in ("", "weight/", "count/")]
        wanted = [losses[name].item() if name in losses else 0.0, weights.get(name, 0.0), counts.get(name, 0)]
        assert parts == pytest.approx(wanted, rel=1e-6), name
    assert all(not value.requires_grad for value in outputs.loss_parts.values())
    theirs = {name: parameter.grad for name, parameter in bert.named_parameters()}
    if learned is not None:
        theirs["balancer.rule.log_variances"] = learned.grad
    for name, parameter in model.named_parameters():
        if case == "minimax-alone" and name.startswith(("bert.pooler", "cls.seq_relationship")):
            assert parameter.grad is None
            continue
        assert (theirs[name] != 0).any(), name
        torch.testing.assert_close(parameter.grad, theirs[name], msg=name, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", ["none", "minimax-inside", "uncertainty", "gradnorm"])
def test_gradients_against_finite_differences(case: str) -> None:
    model, batch = small_model(case).double().train(), make_batch(case)
    model.balancer.begin_step(model.measure_tasks(**batch))  # the weights are constants
    names, values = zip(*model.named_parameters(), strict=True)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), kwargs=batch).loss

    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


@pytest.mark.parametrize("case", ["minimax", "plain"])
def test_the_loss_at_masked_pieces_is_that_of_full_logits(case: str) -> None:
    model, batch = small_model(case).double(), make_batch(case)
    found = model(**batch).loss_parts
    logits = model(**without_labels(batch)).prediction_logits
    losses = F.cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="none")
    for number, task in enumerate(model.config.tasks):
        own = losses[(batch["labels"] != -100) & (batch["tasks"] == number)]
        torch.testing.assert_close(found[task], own.mean() if len(own) else own.sum(), rtol=1e-9, atol=1e-9)


# GradNorm ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["gradnorm", "gradnorm-inside"])
def test_a_graph_per_task_has_the_gradient_of_one_for_all(case: str) -> None:
    split, joint = small_model(case).double().train(), small_model(case).double().eval()
    batch = make_batch(case)
    found = []
    for model in (split, joint):
        outputs = model(**batch)
        outputs.loss.backward()
        found.append([outputs.loss, *(parameter.grad for parameter in model.parameters())])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second)
    # And what GradNorm measures with them is each task's own gradient.
    model = small_model(case).double().train()
    measured = model.measure_tasks(**batch)
    bert = as_bert(model, BertForPreTraining)
    losses, counts = slow_losses(bert, model.config.tasks, batch)
    weight = bert.bert.encoder.layer[-1].output.dense.weight
    for number, task in enumerate(model.config.balanced_tasks):
        expected = torch.zeros_like(weight)
        if task in losses:
            (expected,) = torch.autograd.grad(losses[task] * counts[task], weight, retain_graph=True)
        torch.testing.assert_close(measured.gradients[number], expected.flatten(), rtol=1e-6, atol=1e-9)
    after = split.balancer.rule.task_weights
    assert torch.isfinite(after).all() and not torch.allclose(after, joint.balancer.rule.task_weights)


# transformers' BERT ------------------------------------------------------------------------------------------------


def test_without_labels_it_is_bert_bit_for_bit() -> None:
    batch = without_labels(make_batch("minimax"))
    pairs = [(small_model("minimax"), BertForPreTraining), (masked_lm("minimax"), BertForMaskedLM)]
    for model, kind in pairs:
        model.set_attn_implementation("eager")  # which gives the attention weights
        wanted = {**batch, "output_hidden_states": True, "output_attentions": True}
        found, expected = model.eval()(**wanted), as_bert(model, kind)(**wanted)
        assert found.loss is None and found.loss_parts is None and list(found) == list(expected)
        for name in found:
            values = [each[name] if isinstance(each[name], tuple) else (each[name],) for each in (found, expected)]
            assert all(torch.equal(first, second) for first, second in zip(*values, strict=True)), name
        assert len(found.hidden_states) == 3 and len(found.attentions) == 2


@pytest.mark.parametrize("balancer", ["none", "minimax"])
def test_plain_masked_language_modelling_is_berts(balancer: str) -> None:
    """One task, which nobody needs to name: loss and gradients of `BertForMaskedLM` and `BertForPreTraining`."""
    changes = BALANCERS[balancer]
    batch = make_batch("plain")
    del batch["tasks"]
    for model, kind, given in (
        (masked_lm("plain", **changes), BertForMaskedLM, for_masked_lm(batch)),
        (small_model("plain", **changes), BertForPreTraining, batch),
    ):
        bert = as_bert(model.double(), kind)
        outputs, expected = model(**given), bert(**given)
        assert outputs.keys() & {"logits", "prediction_logits"} == set()
        torch.testing.assert_close(outputs.loss, expected.loss)
        outputs.loss.backward()
        expected.loss.backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, bert.get_parameter(name).grad, msg=name)


def test_masked_language_modelling_alone_is_the_same_objective() -> None:
    """Whatever the place of next sentence prediction, of which it knows nothing."""
    batch = make_batch("minimax-alone")
    expected = small_model("minimax-alone")(**batch)
    for place in ("beside", "inside", "none"):
        model = masked_lm("minimax-alone", next_sentence_prediction=place)
        model.load_state_dict(small_model("minimax-alone").state_dict(), strict=False)
        found = model(**batch)
        torch.testing.assert_close(found.loss, expected.loss)
        for name, value in expected.loss_parts.items():
            torch.testing.assert_close(found.loss_parts[name], value, msg=name)
        sums = small_model("minimax-alone").measure_tasks(**batch).sums
        torch.testing.assert_close(model.measure_tasks(**batch).sums[:4], sums)


# What is not there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_without_any_masked_piece_the_gradient_is_finite(case: str) -> None:
    model, batch = small_model(case).train(), make_batch(case)
    batch["labels"] = torch.full_like(batch["labels"], -100)
    outputs = model(**batch)
    outputs.loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert all(torch.isfinite(value).all() for value in gradients.values())
    assert not gradients["cls.predictions.transform.dense.weight"].any()
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    for task in model.config.tasks:
        assert outputs.loss_parts[task] == outputs.loss_parts[f"weight/{task}"] == 0
    if case == "minimax-alone":
        assert outputs.loss == 0 and not any(value.any() for value in gradients.values())
    else:  # next sentence prediction goes on, and beside the tasks as if they were one
        assert outputs.loss_parts["count/next_sentence"] == 3 and gradients["bert.pooler.dense.weight"].any()
        if not case.endswith("inside"):
            torch.testing.assert_close(outputs.loss.detach(), outputs.loss_parts["next_sentence"])


@pytest.mark.parametrize("case", [case for case in CASES if case != "minimax-alone"])
def test_pairs_that_nobody_labels_are_no_task(case: str) -> None:
    """Left out, or all -100: the same loss, and no gradient for their head."""
    batch = make_batch(case)
    unknown = {**batch, "next_sentence_label": torch.full((4,), -100)}
    losses = []
    for given in (for_masked_lm(batch), unknown):
        model = small_model(case).train()
        outputs = model(**given)
        outputs.loss.backward()
        losses.append(outputs.loss)
        gradient = model.cls.seq_relationship.weight.grad
        assert gradient is None or not gradient.any()
        assert float(outputs.loss_parts.get("count/next_sentence", 0)) == 0
    torch.testing.assert_close(*losses)


def test_what_stands_in_padding_changes_nothing() -> None:
    model, batch = small_model("minimax"), make_batch("minimax")
    padding = batch["attention_mask"] == 0
    other = {name: value.clone() for name, value in batch.items()}
    other["input_ids"][padding], other["tasks"][padding] = 7, 1
    assert not torch.equal(other["input_ids"], batch["input_ids"])
    torch.testing.assert_close(model(**other).loss, model(**batch).loss)


# Accumulated batches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["none", "none-inside", "minimax", "minimax-inside", "gradnorm", "plain"])
def test_rows_one_by_one_have_the_gradient_of_the_batch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once all have been measured; by their counts alone where nothing depends on losses."""
    batch = make_batch(case)
    assert (batch["next_sentence_label"] == -100).any()  # batches differ in their labelled pairs too
    rows = [{name: value[row : row + 1] for name, value in batch.items()} for row in range(4)]
    whole, parts = small_model(case).double().train(), small_model(case).double().train()
    expected = whole(**batch)
    expected.loss.backward()
    encoded: list[int] = []
    parts.bert.register_forward_hook(lambda *_: encoded.append(1))
    assert parts.always_measures
    totals = [parts.measure_tasks(**row) for row in rows]
    assert len(encoded) == (0 if case in ("none", "none-inside", "plain") else 4)
    parts.balancer.begin_step(sum(totals[1:], totals[0]))
    logged: dict[str, float] = defaultdict(float)
    for row in rows:
        outputs = parts(**row)
        (outputs.loss / 4).backward()
        for name, value in outputs.loss_parts.items():
            logged[name] += float(value) / 4
    parts.balancer.end_step()
    for (name, first), second in zip(parts.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-6, atol=1e-8, msg=name)
    for name, value in expected.loss_parts.items():
        assert logged[name] == pytest.approx(float(value), rel=1e-5), name
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, msg=name)
