"""Checkpoints of DABS through the command line: against its reference vectors, and of every kind of data by names and shapes."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from test_conversion import GRADIENTS, VALUES, group, inputs, refuse
from transformers import AutoModel, AutoModelForPreTraining

import hf_maskssl
from hf_maskssl.hub import conversion
from hf_maskssl.hub.conversion.dabs import PARTS, PREFIXES, convert_dabs, dabs_weights

OBJECTIVES = ["emix", "shed", "capri", "mae"]


def save_as_lightning(state: dict[str, torch.Tensor], path: Path) -> Path:
    """What Lightning writes beside the weights."""
    content = {
        "epoch": 3,
        "global_step": 100_000,
        "pytorch-lightning_version": "1.5.10",
        "state_dict": state,
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "model.ckpt", "current_score": None}},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 1e-4, "params": [0]}]}],
        "lr_schedulers": [],
    }
    torch.save(content, path)
    return path


@pytest.fixture(scope="module", params=OBJECTIVES)
def golden(request: pytest.FixtureRequest, shared_golden: Any) -> dict[str, Any]:
    return shared_golden(f"dabs_{request.param}_tokens")


@pytest.fixture(scope="module")
def folder(golden: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("converted")
    checkpoint = save_as_lightning(group(golden, "state"), root / "epoch=3.ckpt")
    words = ["--num_attention_heads", "4"]
    if golden["case"]["algorithm"] == "mae":  # of ids, e-Mix and MAE have weights of the same names
        words += ["--objective", "mae"]
    conversion.main(["metamae", str(checkpoint), str(root / "model"), *words])
    return root / "model"


def run_step(folder: Path, golden: dict[str, Any]) -> tuple[Any, Any]:
    model = AutoModelForPreTraining.from_pretrained(folder).train()
    draws = {"noise": golden["draw.0"]}
    if model.config.objective == "emix":
        draws = {"mix_noise": golden["draw.0"], "mix_partners": golden["draw.1"]}
    output = model(**inputs(model, golden), **draws)
    output.loss.backward()
    return model, output


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=VALUES)


def test_loss_and_encodings_are_those_of_dabs(folder: Path, golden: dict[str, Any]) -> None:
    model, output = run_step(folder, golden)
    assert model.config.objective == golden["case"]["algorithm"]
    assert_close(output.loss, golden["loss"])
    if "accuracy" in golden:
        assert_close(output.loss_parts["accuracy"], golden["accuracy"])
    if model.config.objective == "emix":
        assert_close(output.projections, golden["encoded"])
        assert_close(output.mixed_projections, golden["encoded_mix"])
    else:
        assert_close(output.latents, golden["encoded"])
        expected = golden["is_permuted"] if "is_permuted" in golden else golden["is_masked"]
        assert torch.equal(output.mask, expected.long())


def test_gradients_are_those_of_dabs(folder: Path, golden: dict[str, Any]) -> None:
    model, _ = run_step(folder, golden)
    expected = dabs_weights(group(golden, "grad"), model.config.objective)
    actual = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert set(actual) == set(expected)
    for name, value in expected.items():
        if value.abs().max() < VALUES:  # a gradient of 0 but for rounding, whose share says nothing
            assert actual[name].abs().max() < VALUES
            continue
        assert (actual[name] - value).abs().max() / value.abs().max() < GRADIENTS, name


def test_features_and_embeddings_are_those_of_dabs(folder: Path, golden: dict[str, Any]) -> None:
    encoder, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    with torch.inference_mode():
        pooled = encoder(**inputs(encoder, golden)).pooler_output
        tokens = encoder.embeddings.tokenize(golden["input.x"], None, None, None)
        assert_close(encoder.embeddings(tokens, place=False), golden["embeddings"])
    assert_close(pooled, golden["features.prehead"])
    head = group(golden, "state.model.mlp_head")
    normalized = torch.nn.functional.layer_norm(pooled, pooled.shape[1:], head["0.weight"], head["0.bias"])
    assert_close(normalized @ head["1.weight"].T + head["1.bias"], golden["features.head"])


def test_shuffled_places_are_those_of_dabs(shared_golden: Any, tmp_path: Path) -> None:
    golden = shared_golden("dabs_shed_tokens")
    model = convert_dabs(group(golden, "state"), num_attention_heads=4).model
    seen: list[torch.Tensor] = []
    model.metamae.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["embedded"]), with_kwargs=True
    )
    model(input_ids=golden["input.x"], noise=golden["draw.0"])
    places = golden["permuted_position_codes"].long().flatten()
    assert torch.equal(seen[0].flatten(0, 1), golden["embeddings"].flatten(0, 1)[places])


# ---- other kinds of data, on small checkpoints made here ------------------------------------------------------------

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "head_dim": 4,
    "intermediate_size": 24,
    "projector_output_size": 8,
    "position_embeddings": "learned",
    "final_norm": False,
    "pool_class_token": True,
    "dabs_as_released": True,
    "corruption_rate": 0.15,
}
KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "image": ({"modality": "image", "image_size": [8, 8], "patch_size": [2, 2], "num_channels": 3}, []),
    "speech": (
        {"modality": "image", "image_size": [4, 12], "patch_size": [4, 4], "num_channels": 1},
        ["--image_size", "4", "12"],
    ),
    "satellite": (
        {"modality": "image", "image_size": [4, 4], "patch_size": [2, 2], "num_channels": 13},
        ["--num_channels", "13"],
    ),
    "series": (
        {"modality": "series", "series_length": 20, "patch_size": 5, "num_channels": 7},
        ["--modality", "series", "--patch_size", "5"],
    ),
    "table": ({"modality": "series", "series_length": 6, "patch_size": 1, "num_channels": 1}, []),
    "tokens": ({"modality": "tokens", "vocab_size": 9, "max_position_embeddings": 7}, []),
    "pairs": (
        {
            "modality": "vision_language",
            "image_size": [4, 4],
            "patch_size": [2, 2],
            "num_channels": 3,
            "vocab_size": 9,
            "max_position_embeddings": 5,
        },
        ["--image_size", "4", "4"],
    ),
}


def dabs_state(model: Any, kind: str) -> dict[str, torch.Tensor]:
    """A model's weights in the names of DABS."""
    state = {}
    objective = model.config.objective
    for name, value in model.state_dict().items():
        if name.endswith("learned_positions"):
            name, value = "model.pos_embedding", value[None]
        elif "patch_projection" in name:
            place = "embed" if kind == "table" else "embed.1"
            name = f"model.embed_modules.0.{place}.{name.split('.')[-1]}"
        elif "token_embeddings" in name:
            name = f"model.embed_modules.{int(kind == 'pairs')}.embed.weight"
        for new, old in PARTS:
            name = name.replace(old, new)
        for old, new in PREFIXES:
            heads = {"emix": "model.mlp_head.", "mae": "predictor.1."}
            fits = old.startswith(heads.get(objective, "predictor.")) and (old != "predictor.1." or objective == "mae")
            if name.startswith(new) and (fits or not new.startswith("dabs.")):
                name = old + name.removeprefix(new)
        state[name] = value
    if objective != "emix":  # every file of DABS has a head
        state |= {"model.mlp_head.1.weight": torch.ones(8, 16), "model.mlp_head.1.bias": torch.ones(8)}
    return state


@pytest.mark.parametrize("objective", ["emix", "mae", "shed"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_converts(kind: str, objective: str, tmp_path: Path) -> None:
    fields, words = KINDS[kind]
    torch.manual_seed(0)
    model = hf_maskssl.MetaMAEForPretraining(hf_maskssl.MetaMAEConfig(objective=objective, **fields, **SIZES))
    torch.save(dabs_state(model, kind), tmp_path / "model.ckpt")  # the bare weights, as written at the end
    if objective == "mae" and kind == "tokens":
        words = [*words, "--objective", "mae"]
    conversion.main(["metamae", str(tmp_path / "model.ckpt"), str(tmp_path / "out"), *words])
    found = AutoModelForPreTraining.from_pretrained(tmp_path / "out")
    different = {
        name: (value, vars(found.config)[name])
        for name, value in (fields | SIZES | {"objective": objective}).items()
        if vars(found.config)[name] != value
    }
    assert different in ({}, {"patch_size": (5, 5)})
    torch.testing.assert_close(found.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_older_files_name_callbacks_by_their_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that is not installed is not needed: what it holds is not read, and nothing of it is run."""
    fields, _ = KINDS["tokens"]
    model = hf_maskssl.MetaMAEForPretraining(hf_maskssl.MetaMAEConfig(objective="shed", **fields, **SIZES))
    path = tmp_path / "old.ckpt"
    name = "pytorch_lightning.callbacks.model_checkpoint"
    key = type("ModelCheckpoint", (), {"__module__": name})
    module = ModuleType(name)
    vars(module)["ModelCheckpoint"] = key
    parents = {parent: ModuleType(parent) for parent in ("pytorch_lightning", "pytorch_lightning.callbacks")}
    with monkeypatch.context() as patch:
        for parent, content in (parents | {name: module}).items():
            patch.setitem(sys.modules, parent, content)
        torch.save({"state_dict": dabs_state(model, "tokens"), "callbacks": {key: {"best": 1.0}}}, path)
    assert type(conversion.convert("metamae", path, tmp_path / "out")).__name__ == "MetaMAEForPretraining"


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("satellite", [], "pass --num_channels"),
        ("series", ["--modality", "series"], "channels times steps"),
        ("speech", [], "tokens, the checkpoint 3"),
        ("pairs", [], "reads images and words"),
        ("tokens", ["--objective", "mae"], "whose predictor is that of 'shed'"),
        ("tokens", ["--num_attention_heads", "7"], "does not divide the attention's width 32"),
    ],
)
def test_what_the_file_does_not_say_is_asked_for(
    kind: str, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = KINDS[kind][0]
    objective = "shed"
    model = hf_maskssl.MetaMAEForPretraining(hf_maskssl.MetaMAEConfig(objective=objective, **fields, **SIZES))
    torch.save(dabs_state(model, kind), tmp_path / "model.ckpt")
    assert message in refuse(["metamae", str(tmp_path / "model.ckpt"), str(tmp_path / "out"), *words], capsys)
    assert not (tmp_path / "out").exists()


def test_the_card_says_what_was_assumed(folder: Path, golden: dict[str, Any]) -> None:
    card = (folder / "README.md").read_text()
    assert "`corruption_rate`" in card and "dabs_as_released" in card and "tamkin202" in card
