"""The authors' checkpoints through the command line: the converted folder against their reference vectors."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForPreTraining

import hf_maskssl
from forked import run_script
from hf_maskssl import scripts
from hf_maskssl.hub import conversion
from hf_maskssl.hub.conversion import metamae as conversion_metamae

CASES = ["metamae_token", "metamae_image"]
VALUES = 1e-5  # absolute, float32
GRADIENTS = 1e-4  # relative to the largest entry of each tensor


def group(golden: dict[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors under `prefix.`, without it."""
    return {name.removeprefix(f"{prefix}."): value for name, value in golden.items() if name.startswith(f"{prefix}.")}


def save_as_authors(state: dict[str, torch.Tensor], path: Path) -> Path:
    """What their training script writes on several GPUs."""
    engine = {"epoch_length": 1000, "iteration": 100_000, "max_epochs": 100}
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    model = {f"module.{name}": value for name, value in state.items()}
    torch.save({"model": model, "optimizer": optimizer, "engine": engine}, path)
    return path


def arguments(golden: dict[str, Any], is_plain_mae: bool = False) -> list[str]:
    """The command line's options for a case, whose settings are not the defaults."""
    settings = golden["case"]["constructor"]
    options = {
        "num_attention_heads": settings["num_head_enc"],
        "decoder_num_attention_heads": settings["num_head_dec"],
        "mask_ratio": settings["mask_ratio"],
        "nearby_ratio": settings["s_ratio"],
    }
    if not is_plain_mae:
        options["contrastive_weight"] = settings["reg_weight"]
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module", params=CASES)
def golden(request: pytest.FixtureRequest, shared_golden: Any) -> dict[str, Any]:
    return shared_golden(request.param)


@pytest.fixture(scope="module")
def folder(golden: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("converted")
    checkpoint = save_as_authors(group(golden, "state"), root / "ckpt-100k.pth")
    conversion.main(["metamae", str(checkpoint), str(root / "model"), *arguments(golden)])
    return root / "model"


def run_step(folder: Path, golden: dict[str, Any], first_order: bool = False) -> tuple[Any, Any]:
    """One training pass with the reference's draws: model (with gradients) and output."""
    model = AutoModelForPreTraining.from_pretrained(folder).train()
    model.config.first_order = first_order
    draws = {"noise": golden["draw.0"]}
    if model.config.num_adaptation_steps:
        draws["nearby_noise"] = golden["draw.1"]
    output = model(**inputs(model, golden), **draws)
    output.loss.backward()
    return model, output


def inputs(model: Any, golden: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {"input_ids" if model.config.modality == "tokens" else "pixel_values": golden["input.x"]}


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=VALUES)


def assert_gradients(model: Any, expected: dict[str, torch.Tensor]) -> None:
    renamed = conversion_metamae._metamae_state(expected)
    actual = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert set(actual) == set(renamed)
    for name, value in renamed.items():
        distance = (actual[name] - value).abs().max() / value.abs().max()
        assert distance < GRADIENTS, f"{name}: {distance:.2e}"


def test_configuration_is_read_off_the_tensors(folder: Path, golden: dict[str, Any]) -> None:
    config = AutoModel.from_pretrained(folder).config
    settings = golden["case"]["constructor"]
    assert config.hidden_size == settings["embed_dim_enc"]
    assert config.num_hidden_layers == settings["num_layer_enc"]
    assert config.decoder_hidden_size == settings["embed_dim_dec"]
    assert config.decoder_num_hidden_layers == settings["num_layer_dec"]
    assert config.adaptation_step_size == settings["inner_lr"]
    assert config.mask_ratio == settings["mask_ratio"]


def test_outputs_and_losses_are_the_authors(folder: Path, golden: dict[str, Any]) -> None:
    _, output = run_step(folder, golden)
    predictions = output.patch_predictions
    if predictions is None:
        predictions = output.token_logits.transpose(1, 2)
    assert torch.equal(output.mask, golden["mask"].long())
    assert torch.equal(output.support_mask, golden["mask_support"].long())
    assert_close(output.latents, golden["latent"])
    assert_close(output.adapted_latents, golden["adapted_latent"])
    assert_close(predictions, golden["pred"])
    assert_close(output.loss, golden["total_loss"])
    for part, name in (("reconstruction", "recon"), ("support", "support"), ("contrastive", "contrast")):
        assert_close(output.loss_parts[part], golden[f"{name}_loss"])


def test_second_order_gradients_are_the_authors(folder: Path, golden: dict[str, Any]) -> None:
    model, _ = run_step(folder, golden)
    assert_gradients(model, group(golden, "grad"))


def test_first_order_gradients_are_the_authors(folder: Path, golden: dict[str, Any]) -> None:
    model, _ = run_step(folder, golden, first_order=True)
    assert_gradients(model, group(golden, "grad_first_order"))


def test_batch_norm_sees_both_views(folder: Path, golden: dict[str, Any]) -> None:
    model, _ = run_step(folder, golden)
    expected = group(golden, "after.projector.1")
    assert expected["num_batches_tracked"] == golden["state.projector.1.num_batches_tracked"] + 2
    for name, value in expected.items():
        assert_close(getattr(model.projector.norm, name), value)


def test_frozen_features_are_the_authors(folder: Path, golden: dict[str, Any]) -> None:
    encoder, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    with torch.inference_mode():
        output = encoder(**inputs(encoder, golden))
    assert_close(output.pooler_output, golden["features.global_pool"])
    assert_close(output.last_hidden_state[:, 1:], golden["features.tokenize"])


def test_plain_mae_is_the_authors(golden: dict[str, Any], tmp_path: Path) -> None:
    state = group(golden, "state")
    state = {name: value for name, value in state.items() if name != "inner_lr" and not name.startswith("projector.")}
    checkpoint = save_as_authors(state, tmp_path / "ckpt-1k.pth")
    conversion.main(["metamae", str(checkpoint), str(tmp_path / "mae"), *arguments(golden, is_plain_mae=True)])
    model, output = run_step(tmp_path / "mae", golden)
    assert model.config.num_adaptation_steps == 0
    assert_close(output.loss, golden["mae_loss"])
    assert_gradients(model, group(golden, "mae_grad"))


def test_folder_holds_weights_code_and_card(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "modeling_metamae.py", "README.md"} <= names
    card = (folder / "README.md").read_text()
    assert "ckpt-100k.pth" in card and "`mask_ratio`" in card
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith("model")] == ["model"]


# ---- errors, on a small checkpoint made here ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def authors_state() -> dict[str, torch.Tensor]:
    """A state dict in the authors' names: two layers of width 16, 3 x 16 x 16 images, patch 4."""
    config = hf_maskssl.MetaMAEConfig(
        image_size=16,
        patch_size=4,
        hidden_size=16,
        num_hidden_layers=2,
        intermediate_size=32,
        decoder_hidden_size=8,
        decoder_num_hidden_layers=1,
        decoder_intermediate_size=16,
    )
    model = hf_maskssl.MetaMAEForPretraining(config)
    renames = [(new, old) for old, new in [*conversion_metamae.METAMAE_NAMES, *conversion_metamae.BLOCK_NAMES]]
    state = {}
    for name, value in model.state_dict().items():
        if name.endswith("patch_projection.weight"):
            value = value.view(16, 4, 4, 3).movedim(-1, 1)
            name = "patch_embed.proj.weight"
        elif name == "decoder.mask_tokens":
            name, value = "mask_token", value[None]
        # Longer names first: `decoder.layers.` would be lost in `decoder.`.
        for new, old in sorted(renames, key=lambda pair: -len(pair[0])):
            name = name.replace(new, old) if new.startswith(".") or name.startswith(new) else name
        state[name] = value
    state["inner_lr"] = torch.tensor(0.25)
    for name, positions in (
        ("pos_embed", model.metamae.embeddings.positions),
        ("decoder_pos_embed", model.decoder.positions),
    ):
        state[name] = torch.nn.functional.pad(positions, (0, 0, 1, 0))[None]
    return state


def refuse(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message with which the command line refuses."""
    with pytest.raises(SystemExit) as caught:
        scripts.run_script(lambda: conversion.main(argv))
    assert caught.value.code == 2
    return capsys.readouterr().err


def assert_nothing_written(tmp_path: Path, before: set[str]) -> None:
    assert {path.name for path in tmp_path.iterdir()} == before


def test_small_state_converts(authors_state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    checkpoint = save_as_authors(authors_state, tmp_path / "ckpt-1k.pth")
    model = conversion.convert("metamae", checkpoint, tmp_path / "out")
    assert model.config.adaptation_step_size == 0.25
    assert (tmp_path / "out" / "config.json").is_file()


def test_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refuse(["metamae", str(tmp_path / "nope.pth"), str(tmp_path / "out")], capsys)
    assert "nope.pth is not a file" in message
    assert_nothing_written(tmp_path, set())


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_pickle_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": Trap(tmp_path / "ran")}, tmp_path / "evil.pth")
    message = refuse(["metamae", str(tmp_path / "evil.pth"), str(tmp_path / "out")], capsys)
    assert "evil.pth cannot be read" in message and "mkdir" in message
    assert "weights_only" not in message, "the advice to read the file unsafely must not reach the user"
    assert_nothing_written(tmp_path, {"evil.pth"})


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02}q\x00.", b"PK\x03\x04 cut off"])
def test_damaged_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    message = refuse(["metamae", str(tmp_path / "bad.pth"), str(tmp_path / "out")], capsys)
    assert "bad.pth" in message
    assert_nothing_written(tmp_path, {"bad.pth"})


def test_other_methods_weights_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_as_authors(
        {"global_tokens": torch.zeros(1, 1, 8), "encoder.0.norm1.weight": torch.ones(8)}, tmp_path / "m.pth"
    )
    message = refuse(["metamae", str(tmp_path / "m.pth"), str(tmp_path / "out")], capsys)
    assert "not a MetaMAE checkpoint" in message and "cls_token" in message and "global_tokens" in message
    assert_nothing_written(tmp_path, {"m.pth"})


def test_a_list_is_no_state_dict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": [1, 2]}, tmp_path / "list.pth")
    assert "holds no state dict" in refuse(["metamae", str(tmp_path / "list.pth"), str(tmp_path / "out")], capsys)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--image_size", "32", "16"], "32 tokens, the checkpoint's position table 16"),
        (["--image_size", "8", "32"], "position table differs"),  # 16 tokens as well, but another shape
        (["--image_size", "17", "16"], "multiple of `patch_size`"),
        (["--num_attention_heads", "3"], "`hidden_size` must be a positive multiple of `num_attention_heads`"),
        (["--mask_ratio", "1.5"], "`mask_ratio` must lie between 0 and 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    authors_state: dict[str, torch.Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    checkpoint = save_as_authors(authors_state, tmp_path / "ckpt-1k.pth")
    message = refuse(["metamae", str(checkpoint), str(tmp_path / "out"), *options], capsys)
    assert words in " ".join(message.split())
    assert_nothing_written(tmp_path, {"ckpt-1k.pth"})


def test_tensors_that_do_not_fit_are_refused(authors_state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    checkpoint = save_as_authors(authors_state | {"norm_enc.weight": torch.ones(9)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="does not fit the model"):
        conversion.convert("metamae", checkpoint, tmp_path / "out")
    checkpoint = save_as_authors(authors_state | {"teacher.weight": torch.ones(9)}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"unexpected \['teacher.weight'\]"):
        conversion.convert("metamae", checkpoint, tmp_path / "out")
    assert_nothing_written(tmp_path, {"a.pth", "b.pth"})


def test_failing_write_leaves_nothing(
    authors_state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_as_authors(authors_state, tmp_path / "ckpt-1k.pth")

    def fail(*arguments: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(conversion, "write_converted_card", fail)
    with pytest.raises(ValueError, match="out cannot be written: No space left on device"):
        conversion.convert("metamae", checkpoint, tmp_path / "out")
    assert_nothing_written(tmp_path, {"ckpt-1k.pth"})


def test_folder_in_use_is_refused(authors_state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    checkpoint = save_as_authors(authors_state, tmp_path / "ckpt-1k.pth")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    with pytest.raises(ValueError, match="not an empty folder"):
        conversion.convert("metamae", checkpoint, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_command_line_as_a_user_types_it(authors_state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    checkpoint = save_as_authors(authors_state, tmp_path / "ckpt-100k.pth")
    result = run_script(["-m", "hf_maskssl.hub.conversion", "metamae", str(checkpoint), str(tmp_path / "out")])
    assert result.returncode == 0, result.stderr
    assert "MetaMAEForPretraining" in result.stdout
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "metamae"
