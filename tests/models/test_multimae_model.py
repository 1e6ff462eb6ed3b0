"""MultiMAE as a transformers model: what every method's models do, other sizes, and refusals of bad input."""

from pathlib import Path
from typing import Any

import multimae_cases
import pytest
import torch
from contract_behaviours import Head, check_export
from huggingface_hub.errors import StrictDataclassError
from model_behaviours import ModelBehaviours, look_at_nothing, step
from multimae_cases import (
    CASES,
    make_batch,
    make_draws,
    mapped,
    rows_of,
    small_config,
    small_model,
)
from test_multimae_configuration import REFUSED
from torch.nn import functional as F

from hf_maskssl import (
    MultiMAEForDenseRegression,
    MultiMAEForDepthEstimation,
    MultiMAEForImageClassification,
    MultiMAEForPretraining,
    MultiMAEForSemanticSegmentation,
    MultiMAEModel,
)
from hf_maskssl.models.layers import patchify
from hf_maskssl.models.modeling_multimae import position_table
from tiny_models import DEPTH, RGB, SEMSEG


def changed(name: str, value: Any) -> dict[str, Any]:
    batch = make_batch("paper")
    return batch | {"inputs": batch["inputs"] | {name: value}}


def spoilt(name: str, place: Any, value: float) -> dict[str, Any]:
    batch = mapped(make_batch("paper"), torch.clone)
    batch["inputs"][name][place] = value
    return batch


def hiding(**masks: Any) -> dict[str, Any]:
    return {"task_masks": {name: torch.arange(6).expand(4, 6) % 2 for name in ("rgb", "depth", "semseg")} | masks}


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


class TestMultiMAE(ModelBehaviours):
    kit = multimae_cases
    encoder_class = MultiMAEModel
    cases = list(CASES)
    shapes = ["paper", "mixed", "lacking"]
    anew = ("paper", {"task_balancing": "gradnorm"})
    random = {"drop_path_rate": 0.4}
    variants = [("paper", {"task_balancing": name}) for name in ("minimax", "gradnorm", "dwa")]
    impossible = REFUSED
    bad_inputs = [("paper", *each) for each in BAD_INPUTS]
    bad_draws = [("paper", *each) for each in BAD_DRAWS]

    def is_token(self, encoder: Any, batch: dict[str, Any]) -> torch.Tensor:
        parts = [torch.zeros(4, encoder.config.num_global_tokens, dtype=torch.bool)]
        for grid in encoder.token_grids(batch["inputs"]):
            present = batch.get("presence", {}).get(grid.name, torch.ones(4, dtype=torch.bool))
            parts.append(present[:, None].expand(-1, grid.size))
        return torch.cat(parts, 1)

    def heads(self) -> list[Head]:
        maps = torch.rand(4, 16, 24, generator=torch.Generator().manual_seed(3))
        fields = {"modalities": {"rgb": RGB, "depth": DEPTH}, "segmentation_num_layers": 1}
        generator = torch.Generator().manual_seed(3)
        batch = {
            "inputs": {
                name: torch.randn(4, size, 16, 24, generator=generator) for name, size in (("rgb", 3), ("depth", 1))
            }
        }
        classifier = MultiMAEForImageClassification
        segmenter = fields | {"num_labels": 3, "segmentation_head": "segmenter", "segmenter_drop_path_rate": 0.0}
        return [
            Head(classifier, "paper", fields | {"num_labels": 3}, torch.tensor([0, 1, 2, 1]), batch),
            Head(classifier, "paper", fields | {"num_labels": 1}, torch.tensor([0.5, 1.5, -1.0, 2.0]), batch),
            Head(classifier, "paper", fields | {"num_labels": 3}, torch.eye(3)[[0, 1, 1, 2]], batch),
            Head(MultiMAEForSemanticSegmentation, "paper", fields | {"num_labels": 3}, (9 * maps).long() % 3, batch),
            Head(MultiMAEForSemanticSegmentation, "paper", segmenter, (9 * maps).long() % 3, batch),
            Head(MultiMAEForDepthEstimation, "paper", fields, maps, batch),
            Head(
                MultiMAEForDenseRegression, "paper", fields | {"num_labels": 2}, torch.stack([maps, -maps], 1), batch
            ),
        ]


encoder = TestMultiMAE().encoder


# Shapes and meaning


def test_grids_are_those_of_the_inputs_in_order() -> None:
    for case in ("paper", "mixed", "lacking"):
        model = encoder(case)
        grids = model.token_grids(make_batch(case)["inputs"])
        assert [grid.name for grid in grids] == [modality.name for modality in model.config.inputs()]
        assert grids[-1].start + grids[-1].size == model.config.num_tokens


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
            (embeddings.positions(grid.name), "bilinear" if modality.is_categorical else "bicubic"),
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
    look_at_nothing(monkeypatch)
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


@pytest.mark.parametrize("case", ["paper", "mixed", "lacking"])
def test_tokens_are_dealt_alike_under_autocast(case: str) -> None:
    model, batch, masks = small_model(case), make_batch(case), []
    for is_enabled in (True, False):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_enabled):
            masks.append(model(**batch).masks)
    torch.testing.assert_close(*masks, rtol=0, atol=0)


@pytest.mark.parametrize("case", ["paper", "mixed", "lacking"])
def test_given_masks_and_predictions_need_no_look(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch(case)
    given = {"task_masks": small_model(case)(**batch, **make_draws(case)).masks}
    expected, seen = step(small_model(case), batch | given), small_model(case).predict(**batch)
    asked = look_at_nothing(monkeypatch)
    torch.testing.assert_close(step(small_model(case), batch | given), expected, rtol=1e-4, atol=1e-6)
    assert not asked
    torch.testing.assert_close(small_model(case).predict(**batch, visible={}), seen)


@pytest.mark.slow
def test_a_step_is_one_graph() -> None:
    torch._dynamo.reset()
    fields: dict[str, Any] = {"num_hidden_layers": 1, "decoder_num_hidden_layers": 1}
    fields["modalities"] = {"rgb": RGB, "depth": DEPTH | {"is_output": False}, "semseg": SEMSEG}
    model, batch = small_model("minimax", **fields, sample_modalities_uniformly=True), make_batch("minimax")
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    losses = []
    for each in (compiled, model):
        torch.manual_seed(0)
        losses.append(each(**batch).loss)
        losses[-1].backward()
    torch.testing.assert_close(losses[0], losses[1])


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


def test_every_token_may_be_visible_where_no_input_is_predicted() -> None:
    """Table 4b of the paper: depth and classes from whole colour images."""
    rgb, depth = RGB | {"is_output": False}, DEPTH | {"is_input": False}
    model = small_model("paper", modalities={"rgb": rgb, "depth": depth}, num_visible_tokens=6)
    inputs = make_batch("paper")["inputs"]
    outputs = model(inputs={"rgb": inputs["rgb"], "depth": inputs["depth"]}, predict_all=True)
    assert not outputs.masks["rgb"].any() and list(outputs.predictions) == ["depth"]
    # The loss is that of all pixels.
    error = (outputs.predictions["depth"] - inputs["depth"]).abs().mean()
    torch.testing.assert_close(outputs.loss_parts["depth"], error.detach())
    with pytest.raises(StrictDataclassError, match="at most the 6 tokens"):
        small_model("paper", modalities={"rgb": rgb, "depth": depth}, num_visible_tokens=7)
    with pytest.raises(StrictDataclassError, match="below the 6 tokens"):
        small_model("paper", modalities={"rgb": RGB, "depth": depth}, num_visible_tokens=6)


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


def test_the_batch_size_of_an_exported_encoder_is_free() -> None:
    check_export(
        encoder("paper", num_hidden_layers=1), {"pixel_values": make_batch("paper")["inputs"]["rgb"]}, "pooler_output"
    )
