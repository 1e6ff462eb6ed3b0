"""MultiMAE as a transformers model: other sizes, loading, kernels, precisions, compilation, and refusals of bad input."""

from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from multimae_cases import (
    CASES,
    CLASSES,
    DEPTH,
    RGB,
    make_batch,
    make_draws,
    mapped,
    rows_of,
    small_config,
    small_model,
)
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForPreTraining, masking_utils

from hf_maskssl import MultiMAEForPretraining, MultiMAEModel
from hf_maskssl.models import (
    input_checks,
    layers,
    masking,
    modeling_multimae,
    multimodal_input,
    multimodal_masking,
)
from hf_maskssl.models.layers import enable_checkpointing, patchify
from hf_maskssl.models.modeling_multimae import position_table

SHAPES = ["paper", "mixed", "lacking"]


def encoder(case: str, **changes: Any) -> MultiMAEModel:
    torch.manual_seed(0)
    return MultiMAEModel(small_config(case, **changes)).eval()


# Shapes and meaning


@pytest.mark.parametrize("case", SHAPES)
def test_encoder_shapes_grids_and_pooling(case: str) -> None:
    model, batch = encoder(case), make_batch(case)
    output, num_global = model(**batch), model.num_prefix_tokens
    assert output.last_hidden_state.shape == (4, num_global + model.config.num_tokens, 16)
    tokens = output.last_hidden_state[:, num_global:]
    grids = model.token_grids(batch["inputs"])
    assert [grid.name for grid in grids] == [modality.name for modality in model.config.inputs()]
    assert grids[-1].start + grids[-1].size == model.config.num_tokens
    for row in range(4):
        there = [grid for grid in grids if batch.get("presence", {}).get(grid.name, [True] * 4)[row]]
        own = torch.cat([tokens[row, grid.start : grid.start + grid.size] for grid in there])
        torch.testing.assert_close(output.pooler_output[row], own.mean(0))


def test_pixel_values_are_rgb() -> None:
    model, images = encoder("paper"), make_batch("paper")["inputs"]["rgb"]
    expected = model(inputs={"rgb": images})
    found = model(pixel_values=images)
    assert found.last_hidden_state.shape == (4, 7, 16)
    torch.testing.assert_close(found.pooler_output, expected.pooler_output)
    pretraining = small_model("paper", num_visible_tokens=3)
    masks = {"rgb": torch.arange(24).view(4, 6) % 2}
    losses = [
        pretraining(**given, task_masks=masks).loss
        for given in ({"pixel_values": images}, {"inputs": {"rgb": images}})
    ]
    torch.testing.assert_close(losses[0], losses[1])


def test_encoding_a_part_is_encoding_it_alone() -> None:
    model, batch = encoder("paper"), make_batch("paper")
    ids = torch.tensor([[1, 4, 5, 17], [0, 7, 8, 0], [9, 16, 17, 3], [0, 0, 0, 0]])
    keep_mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)
    part = model(**batch, ids_keep=ids, keep_mask=keep_mask)
    embedded = model.embeddings(model.cut(**batch), None, None)
    for row in range(4):
        kept = ids[row][keep_mask[row]]
        hidden = torch.cat([embedded[row, :1], embedded[row, 1:][kept]])[None]
        for layer in model.layers:
            hidden = layer(hidden)
        torch.testing.assert_close(part.last_hidden_state[row, : 1 + len(kept)], hidden[0])
        torch.testing.assert_close(part.pooler_output[row], hidden[0, 1:].mean(0))


def test_hidden_states_attentions_and_tuples() -> None:
    model, batch, draws = small_model("paper").eval(), make_batch("paper"), make_draws("paper")
    model.set_attn_implementation("eager")
    output = model(**batch, **draws, output_hidden_states=True, output_attentions=True)
    assert [tuple(states.shape) for states in output.hidden_states] == [(4, 8, 16)] * 3
    assert [tuple(weights.shape) for weights in output.attentions] == [(4, 2, 8, 8)] * 2
    torch.testing.assert_close(output.hidden_states[-1], output.last_hidden_state)
    as_tuple, as_dict = model(**batch, **draws, return_dict=False), model(**batch, **draws)
    torch.testing.assert_close(as_tuple[0], as_dict.loss)
    assert len(as_tuple) == len(as_dict.to_tuple())


def test_drop_path_grows_with_depth_and_is_off_in_evaluation() -> None:
    model = small_model("paper", drop_path_rate=0.4, num_hidden_layers=5)
    assert [layer.drop_path_rate for layer in model.multimae.layers] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert {layer.drop_path_rate for decoder in model.decoders.values() for layer in decoder.layers} == {0.0}
    batch, draws = make_batch("paper"), make_draws("paper")
    assert len({model.train()(**batch, **draws).loss.item() for _ in range(4)}) > 1
    assert len({model.eval()(**batch, **draws).loss.item() for _ in range(3)}) == 1


# Positions and sizes


def test_positions_are_the_authors() -> None:
    """Their formula for one token after the other; patches of another size lie at their centres in the same plane."""
    config = small_config("mixed", position_order="row_first")
    table = config.modality_table()
    for name, token, place in (("thermal", 5, (1, 1)), ("bands", 3, (1, 2.5)), ("cover", 1, (0.5, 2.5))):
        found, expected = position_table(config, table[name], 16)[token], []
        for coordinate in place:
            angles = [coordinate / 10000 ** (k / 4) for k in range(4)]
            expected += [torch.tensor(angles).sin(), torch.tensor(angles).cos()]
        torch.testing.assert_close(found, torch.cat(expected))
        column_first = position_table(small_config("mixed"), table[name], 16)[token]
        torch.testing.assert_close(column_first, torch.cat([*expected[2:], *expected[:2]]))


@pytest.mark.parametrize(("case", "size"), [("paper", (24, 16)), ("paper", (8, 40)), ("mixed", (32, 48))])
def test_positions_of_other_sizes_are_interpolated(case: str, size: tuple[int, int]) -> None:
    """Tokens of empty images are their positions: bicubic, and bilinear for class maps; in decoders all bilinear."""
    model, native = small_model(case), small_config(case)
    batch = make_batch(case, image_size=list(size))
    inputs = {
        name: torch.full_like(image, 255) if image.dim() == 3 else image * 0 for name, image in batch["inputs"].items()
    }
    embeddings = model.multimae.embeddings
    tokens = embeddings(model.multimae.cut(inputs), None, None)[0]
    decoder = next(iter(model.decoders.values()))
    for grid in model.multimae.token_grids(inputs):
        modality = native.modality_table()[grid.name]
        shape = modality.grid(native.native_size)
        resized = []
        for table, mode in (
            (embeddings.get_buffer(f"positions_{grid.name}"), "bilinear" if modality.is_categorical else "bicubic"),
            (decoder.get_buffer(f"positions_{grid.name}"), "bilinear"),
        ):
            image = table.T.reshape(1, -1, *shape)
            resized.append(F.interpolate(image, (grid.rows, grid.columns), mode=mode).flatten(2)[0].T)
        start = model.config.num_global_tokens + grid.start
        expected = resized[0] + embeddings.projections[grid.name].bias
        torch.testing.assert_close(tokens[start : start + grid.size], expected)
        placed = decoder._placed(grid.name, (grid.rows, grid.columns), torch.float32)
        torch.testing.assert_close(placed, resized[1] + decoder.modality_embeddings[grid.name][0])


@pytest.mark.parametrize(("case", "size"), [("paper", (24, 16)), ("mixed", (32, 48))])
def test_training_and_prediction_at_another_size(case: str, size: tuple[int, int]) -> None:
    model = small_model(case)
    batch = make_batch(case, image_size=list(size))
    outputs = model(**batch)
    outputs.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    predicted = model.predict(batch["inputs"])
    for output in model.config.outputs():
        assert predicted[output.name].shape == (4, output.output_channels, *output.size(size))


@pytest.mark.parametrize("case", ["paper", "mixed"])
def test_patches_of_predictions_lie_where_they_were_cut(case: str) -> None:
    """Decoders that say where a patch is: its number, in all of its pixels."""
    model, batch = small_model(case), make_batch(case)
    for name, output in model.outputs.items():
        size = model.config.num_tokens_of(output)
        numbers = (
            torch.arange(4.0 * size).view(4, size, 1).expand(-1, -1, model.decoders[name].prediction.out_features)
        )
        image = model._unpatchify(name, numbers, model.multimae.cut(**batch))
        assert image.shape == (4, output.output_channels, *output.size(model.config.native_size))
        assert torch.equal(patchify(image, output.patch_shape), numbers)


# Loading


@pytest.mark.parametrize("case", CASES)
def test_save_and_load_give_the_same_outputs(case: str, tmp_path: Path) -> None:
    model = small_model(case).eval()
    model.save_pretrained(tmp_path)
    batch, draws = make_batch(case), make_draws(case)
    again, info = AutoModelForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(again, MultiMAEForPretraining) and not info["missing_keys"] and not info["unexpected_keys"]
    assert again.config.modality_table() == model.config.modality_table()
    torch.testing.assert_close(again.eval()(**batch, **draws).loss, model(**batch, **draws).loss)
    buffers = dict(again.named_buffers())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffers[name], buffer), name
    alone, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(alone, MultiMAEModel) and not info["missing_keys"] and not info["unexpected_keys"]
    torch.testing.assert_close(alone.eval()(**batch).pooler_output, model.multimae(**batch).pooler_output)


def test_missing_weights_are_made_anew(tmp_path: Path) -> None:
    encoder("paper").save_pretrained(tmp_path)
    model, info = AutoModelForPreTraining.from_pretrained(
        tmp_path, task_balancing="gradnorm", output_loading_info=True
    )
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"decoders", "balancer"}
    assert torch.equal(model.balancer.rule.task_weights, torch.ones(4)) and torch.equal(model.alphas, torch.ones(3))
    for decoder in model.decoders.values():
        assert not decoder.mask_token.any() and not decoder.prediction.bias.any()
        for embedding in decoder.modality_embeddings.values():
            assert 0.005 < embedding.std().item() < 0.04
        assert torch.equal(decoder.positions_depth, position_table(model.config, decoder.positioned["depth"], 8))
    assert torch.isfinite(model(**make_batch("paper")).loss)


def test_initial_values_are_those_of_the_authors() -> None:
    model = MultiMAEForPretraining(small_config("paper", hidden_size=64, num_global_tokens=40))
    assert model.multimae.embeddings.global_tokens.std().item() == pytest.approx(0.02, rel=0.1)
    projection = model.multimae.embeddings.projections["rgb"]
    bound = (6 / (192 + 64)) ** 0.5
    assert projection.weight.abs().max().item() == pytest.approx(bound, rel=0.01) and not projection.bias.any()
    assert model.multimae.embeddings.class_embeddings["semseg"].weight.std().item() == pytest.approx(0.02, rel=0.5)
    # Query, key and value are three layers in one matrix, key and value of the decoders two.
    for linear, parts in (
        (model.multimae.layers[0].attention.qkv, 3),
        (model.decoders["rgb"].cross_attention.key_value, 2),
    ):
        bound = (6 / (linear.out_features / parts + linear.in_features)) ** 0.5
        assert linear.weight.abs().max().item() == pytest.approx(bound, rel=0.05)


@pytest.mark.parametrize("case", ["paper", "mixed"])
def test_weights_may_wait_elsewhere(case: str) -> None:
    """Offloaded weights arrive when their module's forward begins: none may be read before."""
    model, batch = encoder(case), make_batch(case)
    expected = model(**batch).pooler_output
    offloaded = accelerate.cpu_offload(model, torch.device("cpu"))
    torch.testing.assert_close(offloaded(**batch).pooler_output, expected)


def test_another_image_size_keeps_the_positions_that_the_weights_know(tmp_path: Path) -> None:
    encoder("paper").save_pretrained(tmp_path)
    larger = MultiMAEModel.from_pretrained(tmp_path, image_size=[32, 40]).eval()
    assert (larger.config.native_size, larger.config.position_size) == ((32, 40), (16, 24))
    batch = make_batch("paper", image_size=[32, 40])
    torch.testing.assert_close(larger(**batch).pooler_output, encoder("paper")(**batch).pooler_output)


def test_chosen_tokens_that_a_sample_lacks_are_not_read() -> None:
    model, batch = encoder("lacking"), make_batch("lacking")
    everything = torch.arange(model.config.num_tokens).expand(4, -1)
    chosen = model(**batch, ids_keep=everything)
    torch.testing.assert_close(chosen.pooler_output, model(**batch).pooler_output)


@pytest.mark.parametrize(
    ("ids_keep", "keep_mask", "message"),
    [
        (torch.zeros(4, 0, dtype=torch.int64), None, "`ids_keep` must be int64"),
        (torch.full((4, 2), 18), None, "`ids_keep` must lie in 0 to 17"),
        (torch.full((4, 2), -1), None, "`ids_keep` must lie in 0 to 17"),
        (torch.zeros(4, 2, dtype=torch.int64), torch.ones(4, 3, dtype=torch.bool), "`keep_mask` must have the shape"),
    ],
)
def test_tokens_that_are_not_there_are_refused(
    ids_keep: torch.Tensor, keep_mask: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encoder("paper")(**make_batch("paper"), ids_keep=ids_keep, keep_mask=keep_mask)


def test_predicting_encodes_what_is_visible_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where looking costs: outside training one may look once."""
    model, inputs = small_model("paper").eval(), make_batch("paper")["inputs"]
    expected = model.predict(inputs, visible={"depth": False, "semseg": False}, targets=["depth"])
    for module in (input_checks, masking, multimodal_input, multimodal_masking):
        monkeypatch.setattr(module, "values_are_readable", lambda tensor: False)
    lengths: list[int] = []
    model.multimae.layers[0].register_forward_hook(lambda module, given, out: lengths.append(out.shape[1]))
    found = model.predict(inputs, visible={"depth": False, "semseg": False}, targets=["depth"])
    assert lengths == [1 + 6]
    torch.testing.assert_close(found["depth"], expected["depth"])


def test_masks_and_draws_exclude_each_other() -> None:
    batch, draws = make_batch("paper"), make_draws("paper")
    masks = {name: torch.arange(6).expand(4, -1) > 2 for name in ("rgb", "depth", "semseg")}
    with pytest.raises(ValueError, match="not both"):
        small_model("paper")(**batch, task_masks=masks, noise=draws["noise"])


# Kernels, precisions, compilation


def step(model: MultiMAEForPretraining, batch: dict[str, Any], draws: dict[str, Any]) -> list[torch.Tensor]:
    loss = model(**batch, **draws).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]  # type: ignore[misc]


@pytest.mark.parametrize("case", SHAPES)
def test_sdpa_gives_what_eager_gives(case: str) -> None:
    found = []
    for implementation in ("sdpa", "eager"):
        model = small_model(case)
        model.set_attn_implementation(implementation)
        found.append(step(model, make_batch(case), make_draws(case)))
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", SHAPES)
def test_gradient_checkpointing_gives_the_same_gradients(case: str) -> None:
    plain, checkpointed = small_model(case).train(), small_model(case).train()
    enable_checkpointing(checkpointed)
    batch, draws = make_batch(case), make_draws(case)
    for first, second in zip(step(plain, batch, draws), step(checkpointed, batch, draws), strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("case", CASES)
def test_training_step_under_bfloat16_autocast(case: str) -> None:
    model, batch, draws = small_model(case), make_batch(case), make_draws(case)
    expected = model(**batch, **draws)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(**batch, **draws)
        torch.manual_seed(0)
        drawn = model(**batch).masks
    torch.manual_seed(0)
    assert found.loss.dtype == torch.float32
    for name, mask in model(**batch).masks.items():
        assert torch.equal(drawn[name], mask) and torch.equal(found.masks[name], expected.masks[name])
    found.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    torch.testing.assert_close(found.loss, expected.loss, rtol=0.05, atol=0.05)


def test_training_step_of_a_bfloat16_model() -> None:
    for case in SHAPES:
        loss, *gradients = step(small_model(case).to(torch.bfloat16), make_batch(case), make_draws(case))
        assert torch.isfinite(loss) and all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("case", SHAPES)
def test_nothing_is_looked_at_where_that_would_wait(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: shapes must not depend on values, nor may a padded step ask whether a mask is all ones."""
    batch, draws = make_batch(case), make_draws(case)
    explicit = {"task_masks": small_model(case)(**batch, **draws).masks}
    expected = [step(small_model(case), batch, given) for given in (draws, explicit)]
    for module in (layers, masking, input_checks, modeling_multimae, multimodal_input, multimodal_masking):
        if hasattr(module, "values_are_readable"):
            monkeypatch.setattr(module, "values_are_readable", lambda tensor: False)
    looked: list[int] = []
    original = masking_utils._ignore_bidirectional_mask_sdpa
    monkeypatch.setattr(
        masking_utils,
        "_ignore_bidirectional_mask_sdpa",
        lambda *args, **kwargs: looked.append(1) or original(*args, **kwargs),
    )
    for given, wanted in zip((draws, explicit), expected, strict=True):
        for first, second in zip(step(small_model(case), batch, given), wanted, strict=True):
            torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)
    assert not looked
    seen = small_model(case).predict(**batch, visible={})
    monkeypatch.undo()
    torch.testing.assert_close(seen, small_model(case).predict(**batch))


def test_no_value_is_read_while_training() -> None:
    """One graph from inputs to loss: a number read from a tensor, which would make a GPU's host wait, breaks it."""
    torch._dynamo.reset()
    fields: dict[str, Any] = {"num_hidden_layers": 1, "decoder_num_hidden_layers": 1}
    fields["modalities"] = {"rgb": RGB, "depth": DEPTH | {"is_output": False}, "semseg": CLASSES}
    model, batch = small_model("minimax", **fields, sample_modalities_uniformly=True), make_batch("minimax")
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    losses = []
    for each in (compiled, model):
        torch.manual_seed(0)
        losses.append(each(**batch).loss)
        losses[-1].backward()
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["paper", "lacking"])
def test_compiled_layers_give_the_same_gradients(case: str) -> None:
    plain, compiled = small_model(case), small_model(case)
    for module in compiled.compilable_modules():
        module.compile()
    batch, draws = make_batch(case), make_draws(case)
    for left, right in zip(step(plain, batch, draws), step(compiled, batch, draws), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


# Bad input


def changed(name: str, value: Any) -> dict[str, Any]:
    batch = make_batch("paper")
    return batch | {"inputs": batch["inputs"] | {name: value}}


def spoilt(name: str, place: Any, value: float) -> dict[str, Any]:
    batch = mapped(make_batch("paper"), torch.clone)
    batch["inputs"][name][place] = value
    return batch


ALL_FALSE, ALL_TRUE = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
INPUTS = make_batch("paper")
BAD_INPUTS: list[tuple[dict[str, Any], str]] = [
    ({}, "takes `inputs`, a dict of modalities, or `pixel_values`, which is its rgb: give one"),
    ({**INPUTS, "pixel_values": INPUTS["inputs"]["rgb"]}, "give one"),
    ({"inputs": INPUTS["inputs"]["rgb"]}, "`inputs` must be a dict of modalities.*got a Tensor.*`pixel_values`"),
    ({"inputs": {}}, r"`inputs` must be modalities of the configuration, \['rgb', 'depth', 'semseg'\], got none"),
    (changed("thermal", torch.rand(4, 1, 16, 24)), r"modalities of the configuration.*got \['thermal'\]"),
    (changed("norm_rgb", torch.rand(4, 3, 16, 24)), r"got \['norm_rgb'\]"),
    (changed("rgb", torch.rand(4, 1, 16, 24)), r"`inputs\['rgb'\]` must have num_channels=3 channels, got 1"),
    (changed("depth", torch.rand(4, 16, 24)), r"`inputs\['depth'\]` must have the shape \(batch, channels, height, w"),
    (changed("rgb", torch.zeros(4, 3, 16, 24, dtype=torch.uint8)), r"`inputs\['rgb'\]` must be floating point"),
    (changed("semseg", torch.rand(4, 8, 12)), r"`inputs\['semseg'\]` must be integer class ids.*got torch.float32"),
    (changed("semseg", torch.zeros(4, 1, 8, 12, dtype=torch.int64)), r"shape \(batch, height, width\), got.*4, 1, 8"),
    (changed("rgb", torch.rand(4, 3, 16, 20)), r"multiples of \[8, 8\], its patches, got \[16, 20\]"),
    (changed("semseg", torch.zeros(4, 8, 10).long()), r"multiples of \[4, 4\], its patches, got \[8, 10\]"),
    (changed("rgb", torch.rand(4, 3, 0, 24)), r"multiples of \[8, 8\], its patches, got \[0, 24\]"),
    (changed("depth", torch.rand(4, 1, 16, 16)), "aligned images.*the same size times stride.*'depth': .4, 1, 16, 16"),
    (changed("semseg", torch.zeros(4, 16, 24).long()), "aligned images of one batch: the same size times stride"),
    (changed("depth", torch.rand(3, 1, 16, 24)), "the same number of samples"),
    (spoilt("depth", (2, 0, 1, 1), torch.nan), r"`inputs\['depth'\]` must be finite, found NaN.*rows \[2\]"),
    (spoilt("rgb", (1, 0, 1, 1), torch.inf), r"`inputs\['rgb'\]` must be finite.*rows \[1\]"),
    (spoilt("semseg", (3, 1, 1), 5), r"class ids of 0 to 4, or 255 for none, got 5 in row 3"),
    (spoilt("semseg", (0, 1, 1), -1), r"class ids of 0 to 4, or 255 for none, got -1 in row 0"),
    (INPUTS | {"presence": {"thermal": ALL_TRUE}}, r"`presence` must be of the given modalities.*got 'thermal'"),
    (INPUTS | {"presence": {"rgb": ALL_TRUE[:3]}}, r"`presence\['rgb'\]` must have one entry per sample, \(4,\), got"),
    (
        INPUTS | {"presence": {"rgb": ALL_FALSE, "depth": ALL_FALSE, "semseg": torch.tensor([1, 0, 1, 0])}},
        r"`presence` leaves rows \[1, 3\] of the batch without any input modality",
    ),
]


@pytest.mark.parametrize(("batch", "message"), BAD_INPUTS, ids=[message for _, message in BAD_INPUTS])
def test_bad_input_is_refused(batch: dict[str, Any], message: str) -> None:
    for model in (small_model("paper"), encoder("paper")):
        with pytest.raises(ValueError, match=message):
            model(**batch)


def hiding(**masks: Any) -> dict[str, Any]:
    return {"task_masks": {name: torch.arange(6).expand(4, 6) % 2 for name in ("rgb", "depth", "semseg")} | masks}


BAD_DRAWS: list[tuple[dict[str, Any], str]] = [
    (hiding(depth=torch.zeros(4, 5)), r"mask of 'depth' must have.*sample and patch, \(4, 6\) \(2 x 3 patches\), got"),
    (hiding(depth=torch.zeros(3, 6)), r"mask of 'depth' must have.*got \(3, 6\)"),
    (hiding(depth=torch.zeros(4, 2, 3)), r"mask of 'depth' must have.*got \(4, 2, 3\)"),
    (hiding(thermal=torch.zeros(4, 6)), r"masks must be those of the given inputs \['rgb', 'depth', 'semseg'\]"),
    ({"task_masks": {"rgb": torch.zeros(4, 6)}}, r"masks must be those of the given inputs.*got \['rgb'\]"),
    (
        {"task_masks": {name: torch.arange(4)[:, None].expand(4, 6) > 1 for name in ("rgb", "depth", "semseg")}},
        r"the masks hide every token in rows \[2, 3\] of the batch",
    ),
    ({"proportions": torch.rand(4, 4)}, r"`proportions` must have one.*\(4, 3\), got \(4, 4\)"),
    ({"noise": torch.rand(4, 6)}, r"`noise` must have one draw per place, the shape \(4, 18\), got \(4, 6\)"),
    ({"shuffle_noise": torch.rand(4, 6)}, "`shuffle_noise` must have one draw per place"),
    (
        {"proportions": torch.full((4, 3), torch.nan)},
        r"`proportions` must be shares of 0 or more.*rows \[0, 1, 2, 3\]",
    ),
    ({"proportions": torch.tensor([[0.5, 0.7, -0.2]] * 4)}, "`proportions` must be shares of 0 or more"),
]


@pytest.mark.parametrize(("draws", "message"), BAD_DRAWS, ids=[message for _, message in BAD_DRAWS])
def test_bad_masks_and_draws_are_refused(draws: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model("paper")(**make_batch("paper"), **draws)


def test_more_visible_tokens_than_there_are() -> None:
    model, batch = small_model("paper"), make_batch("paper")
    with pytest.raises(ValueError, match=r"`num_visible_tokens` 7.*only 6, of \['rgb'\]"):
        model(inputs={"rgb": batch["inputs"]["rgb"]})
    presence = {"rgb": torch.tensor([True, False, True, False]), "depth": torch.tensor([True, True, True, False])}
    with pytest.raises(ValueError, match=r"only 6 in rows \[3\] of the batch"):
        model(**batch, presence=presence)
    with pytest.raises(ValueError, match=r"only 3, of \['rgb', 'depth', 'semseg'\]"):
        small = make_batch("paper", image_size=[8, 8], num_visible_tokens=2)
        model(**small)


def test_a_model_without_tasks_or_inputs_to_read() -> None:
    fields: dict[str, Any] = {"modalities": {"rgb": RGB | {"is_output": False}}, "num_visible_tokens": 2}
    assert encoder("paper", **fields)(pixel_values=torch.rand(1, 3, 16, 24)).pooler_output.shape == (1, 16)
    with pytest.raises(ValueError, match=r"`modalities` must hold at least one output to pre-train, got \['rgb'\]"):
        small_model("paper", **fields)
    model = small_model("paper", modalities={"rgb": RGB, "depth": DEPTH | {"is_input": False}}, num_visible_tokens=2)
    depth = make_batch("paper")["inputs"]["depth"]
    for call in (model, model.multimae, model.predict):
        with pytest.raises(
            ValueError, match=r"must hold at least one that is encoded, of \['rgb'\], got only \['depth'\]"
        ):
            call(inputs={"depth": depth})


def test_bad_requests_for_a_prediction() -> None:
    model, inputs = small_model("paper"), make_batch("paper")["inputs"]
    for arguments, message in (
        ({"targets": ["thermal"]}, r"`targets` must name outputs, \['rgb', 'depth', 'semseg', 'norm_rgb'\], got"),
        ({"visible": {"thermal": True}}, "masks must be those of the given inputs"),
        ({"visible": {"depth": torch.ones(5)}}, r"mask of 'depth' must have.*\(4, 6\) \(2 x 3 patches\), got \(5,\)"),
        ({"visible": dict.fromkeys(inputs, False)}, "hide every token in rows"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(inputs, **arguments)  # type: ignore[arg-type]


def test_one_sample_is_a_batch() -> None:
    """Also where a modality shows nothing, or has nothing to predict."""
    torch.manual_seed(0)
    model = small_model("lacking", sample_modalities_uniformly=True)
    for row in range(4):
        batch = rows_of(make_batch("lacking"), [row])
        for _ in range(5):
            loss = model(**batch).loss
            loss.backward()
            assert torch.isfinite(loss)
