"""The authors' MultiMAE checkpoints: every kind of file through the command line, and what is refused.

`tests/models/test_multimae_golden.py` compares what converted models compute with the authors' reference vectors.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, AutoModelForPreTraining

from hf_maskssl import (
    MultiMAEForDenseRegression,
    MultiMAEForDepthEstimation,
    MultiMAEForImageClassification,
    MultiMAEForSemanticSegmentation,
    scripts,
)
from hf_maskssl.hub import conversion
from hf_maskssl.hub.load_checkpoint import arguments_of
from hf_maskssl.methods import find_method
from hf_maskssl.models.layers import sincos_positions

State = dict[str, torch.Tensor]
HEADS = ["--num_attention_heads", "2", "--decoder_num_attention_heads", "2", "--num_visible_tokens", "3"]
# Of a 16 x 16 image in patches of 8: width 16 and 8 in the decoders, two layers and one.
WIDTH, DECODER_WIDTH, GRID, PATCH = 16, 8, (2, 2), 8
ADAPTERS = {"rgb": (3, PATCH), "depth": (1, PATCH), "semseg": (6, PATCH // 4)}
PREDICTED = {"rgb": 3, "depth": 1, "semseg": 5, "norm_rgb": 3}


def positions(width: int) -> torch.Tensor:
    column, row = sincos_positions(GRID, width).chunk(2, dim=1)
    return torch.cat([row, column], dim=1).T.reshape(1, width, *GRID)


def block(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"norm1.weight": (width,), "norm2.weight": (width,)}
    for name, rows, columns in (
        ("attn.qkv", 3 * width, width),
        ("attn.proj", width, width),
        ("mlp.fc1", 4 * width, width),
        ("mlp.fc2", width, 4 * width),
    ):
        shapes[f"{name}.weight"] = (rows, columns)
    shapes |= {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items()}
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


def authors_state(inputs: list[str] | None = None, outputs: list[str] | None = None) -> State:
    """Random weights under the keys that their classes have (rgb, depth, five classes, standardised rgb)."""
    inputs = ["rgb", "depth", "semseg"] if inputs is None else inputs
    outputs = [*inputs, "norm_rgb"] if outputs is None else outputs
    shapes: dict[str, tuple[int, ...]] = {"global_tokens": (1, 1, WIDTH)}
    for name in inputs:
        channels, patch = ADAPTERS[name]
        prefix = f"input_adapters.{name}."
        shapes |= {f"{prefix}pos_emb": (1, WIDTH, *GRID), f"{prefix}proj.weight": (WIDTH, channels, patch, patch)}
        shapes |= {f"{prefix}proj.bias": (WIDTH,)} | (
            {f"{prefix}class_emb.weight": (5, 6)} if name == "semseg" else {}
        )
    for layer in range(2):
        shapes |= block(f"encoder.{layer}.", WIDTH)
    for name in outputs:
        rows, width = PREDICTED[name] * ADAPTERS[name.removeprefix("norm_")][1] ** 2, DECODER_WIDTH
        own: dict[str, tuple[int, ...]] = {"mask_token": (1, 1, width), "pos_emb": (1, width, *GRID)}
        own |= {f"task_embeddings.{task}": (1, 1, width) for task in inputs}
        for part, size in (
            ("proj_context", (width, WIDTH)),
            ("decoder.q", (width, width)),
            ("decoder.kv", (2 * width, width)),
            ("decoder.proj", (width, width)),
            ("mlp.fc1", (4 * width, width)),
            ("mlp.fc2", (width, 4 * width)),
            ("out_proj", (rows, width)),
        ):
            own |= {f"{part}.weight": size, f"{part}.bias": size[:1]}
        for norm in ("query_norm", "context_norm", "out_norm"):
            own |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
        shapes |= {
            f"output_adapters.{name}.{key}": size
            for key, size in (own | block("decoder_transformer.0.", width)).items()
        }
    generator = torch.Generator().manual_seed(0)
    state = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: positions(value.shape[1]) if name.endswith("pos_emb") else value for name, value in state.items()}


def timm_state(state: State) -> State:
    """The rgb path in timm's names, half of the global token in the class token's position."""
    row = state["global_tokens"] / 2
    renamed = {"cls_token": state["global_tokens"] - row}
    renamed["pos_embed"] = torch.cat([row, positions(WIDTH).flatten(2).transpose(1, 2)], dim=1)
    for kind in ("weight", "bias"):
        renamed[f"patch_embed.proj.{kind}"] = state[f"input_adapters.rgb.proj.{kind}"]
    return renamed | {
        name.replace("encoder.", "blocks."): value for name, value in state.items() if name.startswith("encoder.")
    }


def convert(folder: Path, content: Any, *options: str) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / "authors.pth")
    conversion.main(["multimae", str(folder / "authors.pth"), str(folder / "out"), *options])
    return folder / "out"


def example(size: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs: dict[str, torch.Tensor] = {
        "rgb": torch.randn(2, 3, size, size, generator=generator),
        "depth": torch.randn(2, 1, size, size, generator=generator),
    }
    inputs["semseg"] = torch.randint(5, (2, size // 4, size // 4), generator=generator)
    return inputs


# ---- kinds of files -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("released"), {"model": authors_state()}, *HEADS)


def test_released_weights_become_a_pretraining_model(released: Path) -> None:
    model, info = AutoModelForPreTraining.from_pretrained(released, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    config = model.config
    assert (config.image_size, config.patch_size, config.hidden_size) == ([16, 16], [8, 8], WIDTH)
    assert (config.num_hidden_layers, config.intermediate_size) == (2, 4 * WIDTH)
    assert (config.decoder_hidden_size, config.decoder_num_hidden_layers) == (DECODER_WIDTH, 1)
    assert [modality.name for modality in config.inputs()] == ["rgb", "depth", "semseg"]
    losses = {modality.name: modality.loss for modality in config.outputs()}
    expected = {"rgb": "mse", "depth": "l1", "semseg": "cross_entropy", "norm_rgb": "standardized_mse"}
    assert losses == expected and config.modality_table()["semseg"].num_classes == 5
    assert model(inputs=example()).loss.isfinite()
    names = {path.name for path in released.iterdir()}
    assert {"model.safetensors", "modeling_multimae.py", "README.md", "preprocessor_config.json"} <= names
    card = (released / "README.md").read_text()
    assert "`num_attention_heads` | 2" in card and "as the authors' code does" in card


def test_processor_beside_it_prepares_as_the_authors_did(released: Path) -> None:
    processor: Any = AutoImageProcessor.from_pretrained(released)
    pictures = {name: picture.standardize for name, picture in processor.pictures().items()}
    assert pictures == {"rgb": "dataset", "depth": "robust", "semseg": "none"} and processor.image_size == [16, 16]


def test_training_checkpoint_tells_its_settings(tmp_path: Path) -> None:
    """Data-parallel names, an argparse Namespace, uncertainty weighting without the further rgb."""
    settings = {
        "model": "pretrain_multimae_tiny",
        "num_encoded_tokens": 4,
        "alphas": [0.5, 1.0, 2.0],
        "decoder_num_heads": 2,
        "sample_tasks_uniformly": True,
        "standardize_depth": False,
        "drop_path": 0.1,
    }
    tasks = ["depth", "semseg", "rgb"]  # out_domains in another order than in_domains
    content = {
        "model": {f"module.{name}": value for name, value in authors_state(outputs=tasks).items()},
        "args": argparse.Namespace(**settings),
        "loss_balancer": {"log_vars": torch.nn.Parameter(torch.tensor([0.1, 0.2, 0.3]))},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "scaler": {"scale": 65536.0},
        "epoch": 3,
    }
    model: Any = AutoModelForPreTraining.from_pretrained(convert(tmp_path, content, "--num_attention_heads", "2"))
    config = model.config
    assert (config.num_visible_tokens, config.sample_modalities_uniformly, config.drop_path_rate) == (4, True, 0.1)
    assert config.dirichlet_alpha == {"rgb": 0.5, "depth": 1.0, "semseg": 2.0}
    log_variances = dict(zip(model.outputs, model.balancer.rule.log_variances.tolist(), strict=True))
    assert log_variances == pytest.approx({"rgb": 0.3, "depth": 0.1, "semseg": 0.2})
    assert "`num_visible_tokens` |" not in (tmp_path / "out" / "README.md").read_text()
    settings_of_depth = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())["modalities"]["depth"]
    assert settings_of_depth["standardize"] == "none" and settings_of_depth["scale"] == 2**-16


@torch.no_grad()
def test_encoders_alone_give_what_the_whole_gives(released: Path, tmp_path: Path) -> None:
    """Without output adapters, and in timm's names, whose class token also has a position."""
    state = authors_state()
    whole: Any = AutoModel.from_pretrained(released).eval()
    encoder = {name: value for name, value in state.items() if not name.startswith("output_adapters.")}
    multivit: Any = AutoModel.from_pretrained(convert(tmp_path / "multivit", {"model": encoder}, *HEADS))
    torch.testing.assert_close(multivit(inputs=example())[0], whole(inputs=example())[0])
    folder = convert(tmp_path / "timm", timm_state(state), *HEADS)
    rgb = example()["rgb"]
    timm: Any = AutoModel.from_pretrained(folder)
    torch.testing.assert_close(timm(pixel_values=rgb)[0], whole(pixel_values=rgb)[0])
    assert list(timm.config.modalities) == ["rgb"]
    assert "The file holds the encoder alone" in (folder / "README.md").read_text()


@pytest.mark.parametrize("has_decoders", [True, False])
def test_padding_class_is_left_out(tmp_path: Path, has_decoders: bool) -> None:
    state = authors_state(outputs=None if has_decoders else [])
    table = "input_adapters.semseg.class_emb.weight"
    state[table] = torch.cat([state[table], torch.zeros(1, 6)])
    folder = convert(tmp_path, {"model": state}, *HEADS)
    model: Any = AutoModel.from_pretrained(folder)
    assert model.config.modality_table()["semseg"].num_classes == 5
    assert torch.equal(model.embeddings.class_embeddings["semseg"].weight, state[table][:5])
    assert "Class 5 of 'semseg' stood for no class" in (folder / "README.md").read_text()


def test_outputs_that_are_no_inputs(tmp_path: Path) -> None:
    """rgb in, depth and classes out: these have no adapter to be read from."""
    state = authors_state(inputs=["rgb"], outputs=["depth", "semseg"])
    model: Any = AutoModelForPreTraining.from_pretrained(convert(tmp_path, state, *HEADS))
    table = model.config.modality_table()
    assert [modality.name for modality in model.config.inputs()] == ["rgb"]
    assert list(model.outputs) == ["depth", "semseg"] and table["semseg"].num_classes == 5
    assert model(inputs=example()).loss.isfinite()


@torch.no_grad()
def test_example_inputs_fit(released: Path) -> None:
    model: Any = AutoModel.from_pretrained(released)
    arguments = arguments_of(find_method(model.config).example_inputs(model.config))
    assert set(arguments["inputs"]) == {"rgb", "depth", "semseg"} and len(arguments) == 1
    assert model(**arguments).pooler_output.isfinite().all()


# ---- refused ------------------------------------------------------------------------------------------------------


# ---- fine-tuned checkpoints ---------------------------------------------------------------------------------------


def convolution(name: str, rows: int, columns: int, size: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (rows, columns, size, size)}
    return shapes | ({f"{name}.bias": (rows,)} if bias else {})


def linear(name: str, rows: int, columns: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def dpt(outputs: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """A DPT head with maps of 4, 5, 6 and 7 channels and a fusion of 8, without the tensors that it holds twice."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, channels in enumerate((4, 5, 6, 7), 1):
        shapes |= convolution(f"act_{number}_postprocess.0", channels, WIDTH, 1)
        if number != 3:
            shapes |= convolution(f"act_{number}_postprocess.1", channels, channels, {1: 4, 2: 2, 4: 3}[number])
        shapes |= convolution(f"scratch.layer{number}_rn", 8, channels, 3, bias=False)
        shapes |= convolution(f"scratch.refinenet{number}.out_conv", 8, 8, 1)
        for unit in (1, 2):
            for layer in (1, 2):
                shapes |= convolution(f"scratch.refinenet{number}.resConfUnit{unit}.conv{layer}", 8, 8, 3)
    return shapes | outputs


NORM = {"weight": (WIDTH,), "bias": (WIDTH,)}
VALUES = convolution("head.0", 4, 8, 3) | convolution("head.2", 32, 4, 3)
FINE_TUNED: dict[str, tuple[str, Any, dict[str, tuple[int, ...]]]] = {
    "segmenter": (
        "semseg",
        MultiMAEForSemanticSegmentation,
        {"cls_emb": (1, 3, 12), "mask_norm.weight": (3,), "mask_norm.bias": (3,)}
        | {"decoder_norm.weight": (12,), "decoder_norm.bias": (12,)}
        | linear("proj_dec", 12, WIDTH)
        | linear("patch_proj", 12, 12, bias=False)
        | linear("classes_proj", 12, 12, bias=False)
        | block("blocks.0.", 12),
    ),
    "convnext": (
        "semseg",
        MultiMAEForSemanticSegmentation,
        linear("proj_dec", 24, WIDTH)
        | convolution("final_layer", 3, 6, 1)
        | {"blocks.0.dwconv.weight": (6, 1, 7, 7), "blocks.0.dwconv.bias": (6,)}
        | {"blocks.0.norm.weight": (6,), "blocks.0.norm.bias": (6,)}
        | linear("blocks.0.pwconv1", 24, 6)
        | linear("blocks.0.pwconv2", 6, 24),
    ),
    "linear": (
        "cls",
        MultiMAEForImageClassification,
        {f"norm.{name}": shape for name, shape in NORM.items()} | linear("head", 3, WIDTH),
    ),
    "depth": ("depth", MultiMAEForDepthEstimation, dpt(VALUES | convolution("head.4", 1, 32, 1))),
    "normals": ("normal", MultiMAEForDenseRegression, dpt(VALUES | convolution("head.4", 3, 32, 1))),
    "dpt_classes": (
        "semseg",
        MultiMAEForSemanticSegmentation,
        dpt(convolution("head.0", 8, 8, 3, bias=False) | convolution("head.4", 3, 8, 1)),
    ),
}


@pytest.mark.parametrize("kind", FINE_TUNED)
def test_fine_tuned_checkpoints_become_the_model_of_their_head(kind: str, tmp_path: Path) -> None:
    task, model_class, shapes = FINE_TUNED[kind]
    draw = torch.Generator().manual_seed(2)
    head = {name: 0.2 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    if kind in ("depth", "normals", "dpt_classes"):  # as their modules hold them
        head |= {
            f"act_postprocess.{int(name[4]) - 1}{name[17:]}": head[name] for name in [*head] if name[:4] == "act_"
        }
        head |= {
            f"scratch.layer_rn.{number}.weight": head[f"scratch.layer{number + 1}_rn.weight"] for number in range(4)
        }
    state = authors_state(["rgb"], []) | {f"output_adapters.{task}.{name}": value for name, value in head.items()}
    options = ["--num_attention_heads", "2", "--num_visible_tokens", "3"]
    options += ["--segmenter_num_attention_heads", "2"] if kind == "segmenter" else []
    folder = convert(tmp_path, {"model": state}, *options)
    model, info = model_class.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert ("segmenter_num_attention_heads" in (folder / "README.md").read_text()) == (kind == "segmenter")
    # Every number of the head has its place, but for what its coarsest map never uses.
    ours = torch.cat(
        [values.flatten() for name, values in model.named_parameters() if not name.startswith("multimae")]
    )
    unused = ("act_postprocess", "scratch.layer_rn", "scratch.refinenet4.resConfUnit1")
    theirs = torch.cat([values.flatten() for name, values in head.items() if not name.startswith(unused)])
    assert torch.equal(ours.sort().values, theirs.sort().values)
    output = model(pixel_values=example()["rgb"])
    assert output[0].isfinite().all()
    if kind == "segmenter":
        assert torch.equal(model.segmentation_head.class_tokens, head["cls_emb"])
        assert torch.equal(model.segmentation_head.layers[0].attention.qkv.weight, head["blocks.0.attn.qkv.weight"])
    if kind == "depth":
        fusion = model.depth_head.fusion
        assert torch.equal(
            fusion[1].residual_layer2.convolution1.weight, head["scratch.refinenet2.resConfUnit2.conv1.weight"]
        )


def test_the_inputs_of_a_head_come_from_the_files_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, model_class, shapes = FINE_TUNED["convnext"]
    head = {f"output_adapters.semseg.{name}": torch.ones(shape) for name, shape in shapes.items()}
    state = authors_state(["rgb", "depth"], []) | head
    options = ["--num_attention_heads", "2", "--num_visible_tokens", "3"]
    settings = argparse.Namespace(decoder_main_tasks=["depth"])
    model = model_class.from_pretrained(convert(tmp_path / "named", {"model": state, "args": settings}, *options))
    assert model.config.head_modalities == ["depth"]
    settings = argparse.Namespace(decoder_main_tasks="rgb-depth")
    (tmp_path / "wrong").mkdir()
    text = refusal(tmp_path / "wrong", {"model": state, "args": settings}, capsys, *options)
    assert "the head reads 1 of the inputs ['rgb', 'depth']" in text


def refusal(tmp_path: Path, content: Any, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    with pytest.raises(SystemExit) as caught:
        scripts.run_script(lambda: convert(tmp_path, content, *(options or HEADS)))
    assert caught.value.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["authors.pth"]
    return " ".join(capsys.readouterr().err.split())


def changed(name: str, value: torch.Tensor) -> State:
    return authors_state() | {name: value}


SCRAMBLED = positions(WIDTH).transpose(-1, -2)
CONTENTS: dict[str, tuple[Any, str]] = {
    "other_method": ({"cls_token": torch.zeros(1, 1, 8)}, "not a MultiMAE checkpoint"),
    "unknown_tensor": (changed("encoder.0.ls1.gamma", torch.ones(16)), "does not have: ['encoder.0.ls1.gamma']"),
    "head": (
        changed("output_adapters.cls.head.weight", torch.ones(2, 16)),
        "fine-tuned checkpoint: its output_adapters ['cls']",
    ),
    "resized_classes": (
        changed("input_adapters.semseg.proj.1.weight", torch.ones(16, 6, 1, 1)),
        "interpolate_class_emb",
    ),
    "learned_positions": (
        changed("output_adapters.rgb.pos_emb", torch.zeros(1, DECODER_WIDTH, *GRID)),
        "rgb.pos_emb differs by up to 1 ",
    ),
    "layer_scale": (
        timm_state(authors_state()) | {"blocks.0.ls1.gamma": torch.ones(16)},
        "does not have: ['encoder.0.ls1.gamma']",
    ),
    "no_square": (
        timm_state(authors_state()) | {"pos_embed": torch.zeros(1, 4, WIDTH)},
        "pos_embed has 3 rows besides those of class tokens",
    ),
    "scrambled_positions": (
        changed("output_adapters.depth.pos_emb", SCRAMBLED[:, :DECODER_WIDTH]),
        "depth.pos_emb differs",
    ),
    "another_grid": (changed("input_adapters.depth.pos_emb", torch.zeros(1, WIDTH, 2, 3)), "table of [2, 3] patches"),
    "seventh_class": (
        changed("input_adapters.semseg.class_emb.weight", torch.ones(6, 6)),
        "has 6 rows, its decoder predicts 5",
    ),
    "wrong_shape": (changed("encoder.1.norm1.weight", torch.ones(9)), "does not fit the model"),
    "flat_projection": (
        changed("input_adapters.rgb.proj.weight", torch.ones(16, 192)),
        "shape: ['input_adapters.rgb.proj.weight']",
    ),
    "too_few_values": (
        changed("output_adapters.rgb.out_proj.bias", torch.ones(100)),
        "has 100 rows, a patch of 'rgb' 192",
    ),
    "one_alpha_short": (
        {"model": authors_state(), "args": argparse.Namespace(alphas=[1.0, 2.0])},
        "must have one number per input, ['rgb', 'depth', 'semseg']",
    ),
    "no_task_queries": (
        {"model": authors_state(), "args": argparse.Namespace(decoder_use_task_queries=False)},
        "`args.decoder_use_task_queries` is False",
    ),
    "other_balancer": ({"model": authors_state(), "loss_balancer": {"w": torch.ones(4)}}, "expected log_vars"),
    "balancer_of_three": (
        {"model": authors_state(), "loss_balancer": {"log_vars": torch.ones(3)}},
        "3 entries for the outputs ['rgb', 'depth', 'semseg', 'norm_rgb']",
    ),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_what_has_no_counterpart_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    content, words = CONTENTS[case]
    assert words in refusal(tmp_path, content, capsys)


def test_missing_tensor_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = authors_state()
    del state["output_adapters.semseg.context_norm.bias"]
    assert "missing ['decoders.semseg.context_norm.bias']" in refusal(tmp_path, state, capsys)


def test_heads_have_to_be_given_for_other_widths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(tmp_path, authors_state(), capsys, "--num_visible_tokens", "3")
    assert "encoder of width 16 has: pass --num_attention_heads" in message


class Other:
    """A class that no checkpoint of the authors holds."""


def test_no_class_but_the_namespace_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(tmp_path, {"model": authors_state(), "args": argparse.Namespace(hook=Other())}, capsys)
    assert "authors.pth cannot be read" in message and "Other was not an allowed global" in message
    assert "weights_only" not in message and "safe_globals" not in message, "no advice to read the file unsafely"
