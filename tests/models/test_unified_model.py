"""One encoder for several kinds of data: what is shared, what becomes of the losses, and each part as a model of its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from model_behaviours import Looks, look_at_nothing
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, AutoModelForPreTraining

import tiny_models
from hf_maskssl import MetaMAEForPretraining, UnifiedConfig
from hf_maskssl.hub.load_checkpoint import arguments_of
from hf_maskssl.methods import find_method
from hf_maskssl.recipes import build_config

FIELDS: dict[str, dict[str, Any]] = {
    method: {
        "model_type": "unified",
        "part_type": method,
        "shared": tiny_models.SIZES[method] | ({} if method == "metamae" else tiny_models.LATENTS),
        "parts": {
            name: modality for name, modality in tiny_models.MODALITIES[method].items() if name != "vision_language"
        },
    }
    for method in ("metamae", "sma")
}


def build(method: str = "metamae", seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return AutoModelForPreTraining.from_config(build_config(FIELDS[method] | changes))


def inputs_of(config: UnifiedConfig) -> dict[str, Any]:
    return arguments_of(find_method(config).example_inputs(config))["inputs"]


def layers_of(model: nn.Module) -> set[int]:
    return {id(weight) for name, weight in model.named_parameters() if ".layers." in name}


@pytest.mark.parametrize("method", FIELDS)
def test_layers_are_one_and_the_rest_is_each_parts_own(method: str) -> None:
    model = build(method)
    parts = list(model.parts.values())
    assert len(parts) > 2 and layers_of(parts[0]) and all(layers_of(part) == layers_of(parts[0]) for part in parts)
    own = [{id(weight) for weight in part.base_model.embeddings.parameters()} for part in parts]
    assert not own[0] & own[1] and not own[0] & layers_of(parts[0])
    assert [id(part.base_model) for part in parts] == [id(one) for one in model.unified.parts.values()]
    assert len({id(weight) for weight in model.parameters()}) == len(list(model.parameters()))
    alone = sum(AutoModelForPreTraining.from_config(part.config).num_parameters() for part in parts)
    assert model.num_parameters() < alone


@pytest.mark.parametrize("balancing", ["none", "minimax"])
@pytest.mark.parametrize("method", FIELDS)
def test_loss_and_gradient_are_those_of_the_parts_alone(method: str, balancing: str) -> None:
    model = build(method, task_balancing=balancing).eval()
    inputs = inputs_of(model.config)
    torch.manual_seed(1)
    outputs = model(inputs=inputs)
    outputs.loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    torch.manual_seed(1)
    losses = torch.stack([model.parts[name](**inputs[name]).loss for name in sorted(inputs)])
    weights = losses.detach().softmax(0) if balancing == "minimax" else torch.ones(len(losses))
    (weights * losses).sum().backward()
    torch.testing.assert_close(outputs.loss, (weights * losses).sum())
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-4, atol=1e-6)
    assert gradients.keys() == {name for name, weight in model.named_parameters() if weight.grad is not None}
    for number, name in enumerate(sorted(inputs)):
        torch.testing.assert_close(outputs.loss_parts[name], losses[number].detach())
        torch.testing.assert_close(outputs.loss_parts[f"weight/{name}"], weights[number])
        assert f"{name}/reconstruction" in outputs.loss_parts


@pytest.mark.parametrize("method", FIELDS)
def test_no_step_waits_for_the_device(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    look_at_nothing(monkeypatch)
    model = build(method, task_balancing="minimax").train()
    inputs = inputs_of(model.config)
    with Looks(model, inputs) as looks:
        model(inputs=inputs).loss.backward()
    assert not looks.found, looks.places


@pytest.mark.parametrize("method", FIELDS)
def test_whole_and_parts_are_loaded_again(method: str, tmp_path: Path) -> None:
    model = build(method).eval()
    inputs = inputs_of(model.config)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert sum(weight.numel() for weight in saved.values()) <= sum(
        w.numel() for w in {*model.parameters(), *model.buffers()}
    )
    again, info = AutoModelForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in model.named_parameters()]
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    encoder, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    with torch.no_grad():
        found = encoder.eval()(inputs=inputs)
    for name, part in model.parts.items():
        part.save_pretrained(tmp_path / name)
        alone = AutoModel.from_pretrained(tmp_path, subfolder=name).eval()
        assert type(alone) is type(part.base_model)
        with torch.no_grad():
            expected = alone(**inputs[name])
        assert torch.equal(found.last_hidden_state[name], expected.last_hidden_state)
        assert torch.equal(found.pooler_output[name], expected.pooler_output)


def test_a_batch_may_lack_a_part() -> None:
    model = build(task_balancing="minimax").eval()
    inputs = inputs_of(model.config)
    torch.manual_seed(0)
    outputs = model(inputs={"series": inputs["series"]})
    torch.manual_seed(0)
    torch.testing.assert_close(outputs.loss, model.parts["series"](**inputs["series"]).loss)
    assert outputs.loss_parts["weight/series"] == 1 and outputs.loss_parts["weight/tokens"] == 0


def test_order_of_the_parts_is_the_alphabets() -> None:
    turned = dict(reversed(FIELDS["metamae"]["parts"].items()))
    first, second = build(), build(parts=turned)
    assert first.config.part_names == second.config.part_names == sorted(turned)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_gradnorm_compares_at_the_last_shared_matrix() -> None:
    model = build(task_balancing="gradnorm").train()
    weight = model._shared_weight()
    shared = [part.decoder.layers[-1].mlp.down.weight for part in model.parts.values()]
    assert all(weight is one for one in shared)
    before = model.balancer.rule.task_weights.clone()
    model(inputs=inputs_of(model.config)).loss.backward()
    after = model.balancer.rule.task_weights
    assert not torch.equal(before, after)
    torch.testing.assert_close(after.sum(), before.sum())


def test_progress_reaches_the_parts() -> None:
    model = build("sma", shared=FIELDS["sma"]["shared"] | {"mask_schedule": "mix"})
    model.set_training_progress(0.0)
    assert {float(part.random_share) for part in model.parts.values()} == {1.0}
    assert model.reason_against_fsdp() and model.reason_against_cuda_graphs()
    layers = [id(module) for module in model.compilable_modules()]
    assert len(layers) == len(set(layers))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": {"image": {"image_size": 8}}}, "at least two entries, got \\['image'\\]"),
        ({"parts": {"image": {}, "a.b": {}}}, "'a.b' cannot be the name of a part"),
        ({"parts": {"image": {}, "values": {}}}, "'values' cannot be the name of a part"),
        ({"parts": {"image": {}, "other": {"hiden_size": 8}}}, "has no field \\['hiden_size'\\]"),
        ({"shared": {"hiden_size": 8}}, "`shared`: MetaMAEConfig has no field"),
        ({"parts": {"image": {}, "words": {"modality": "tokens"}}}, "`parts\\['words'\\]`: .*`vocab_size`"),
        ({"part_type": "bert"}, "part_type"),
        ({"task_balancing": "minmax"}, "task_balancing"),
    ],
)
def test_impossible_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_config(FIELDS["metamae"] | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intermediate_size": 32}, "mlp.up.weight \\(32, 16\\) and \\(24, 16\\): .*best in `shared`"),
        ({"num_hidden_layers": 1}, "absent"),
        ({"masking": "guided"}, "0 MetaMAEInputLayer and TransformerLayer"),
    ],
)
def test_parts_that_cannot_share_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    parts = {**FIELDS["metamae"]["parts"], "image": FIELDS["metamae"]["parts"]["image"] | changes}
    with pytest.raises(
        ValueError, match=f"'image' and 'mixed' share `layers`, which must be the same in both, got .*{message}"
    ):
        build(parts=parts)


def test_all_parts_may_have_guided_masks() -> None:
    model = build(shared=FIELDS["metamae"]["shared"] | {"masking": "guided"}).train()
    outputs = model(inputs=inputs_of(model.config))
    outputs.loss.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)


def test_batches_of_unknown_parts_are_refused() -> None:
    model = build()
    for inputs in ({}, {"sound": {}}):
        with pytest.raises(
            ValueError, match="for some of the parts \\['image', 'mixed', 'series', 'tabular', 'tokens'\\]"
        ):
            model(inputs=inputs)
        with pytest.raises(ValueError, match="for some of the parts"):
            model.unified(inputs=inputs)


def test_a_part_is_an_ordinary_model() -> None:
    model = build()
    part = model.parts["series"]
    assert type(part) is MetaMAEForPretraining and part.config.model_type == "metamae"
    assert part.config == type(part.config)(**{**FIELDS["metamae"]["shared"], **FIELDS["metamae"]["parts"]["series"]})
