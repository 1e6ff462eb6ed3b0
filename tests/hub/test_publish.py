"""Publishing: what is checked, what goes and what stays, and what happens when the network fails."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from card_runs import finetune_digits, probe_report
from fake_hub import FakeHub
from huggingface_hub import HfApi, ModelCard, constants
from safetensors.torch import load_file, save_file

from hf_maskssl.files import write_json
from hf_maskssl.hub import publish as module
from hf_maskssl.hub import published_files
from hf_maskssl.hub.cards import PLACEHOLDER, write_model_card
from hf_maskssl.hub.loading import check_loading, compare_outputs, last_error
from hf_maskssl.hub.publish import UploadError, main, publish
from hf_maskssl.methods import find_method
from hf_maskssl.scripts import run_script
from hf_maskssl.training.pretraining.checkpoints import find_damage, seal


@pytest.fixture
def folder(make_run: Any, blank_curves: None) -> Path:
    """A checkpoint with its card, and beside the model what only a resumed run needs."""
    recipe, state, folder = make_run("image")
    write_model_card(folder, recipe, state)
    (folder / "training_state").mkdir()
    (folder / "training_state" / "optimizer.bin").write_bytes(b"0" * 1000)
    for name in ("manifest.json", "trainer_state.json", "result.json", ".env", "other.png"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def no_subprocess(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Loading in fresh processes takes seconds and has its own test; here only that it was asked for counts."""
    checked: list[Path] = []
    monkeypatch.setattr(module, "check_loading", checked.append)
    return checked


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A server on the loopback in the Hub's place."""
    with FakeHub() as hub:
        monkeypatch.setattr(module, "HfApi", lambda: HfApi(endpoint=hub.address, token="of nobody"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own, of a compiled library
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def refuse(words: list[str]) -> None:
    """What `hf-maskssl publish` does ends with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        run_script(lambda: main(words))
    assert caught.value.code == 2


def test_upload_holds_model_code_processor_and_card(folder: Path, hub: FakeHub, no_subprocess: list[Path]) -> None:
    address = publish(folder, "org/name", private=True)
    assert address == f"{hub.address}/org/name/commit/1" and len(hub.commits) == 1
    assert hub.is_private == {"org/name": True}
    assert no_subprocess == [folder]
    others = {"README.md", "curves.png", "config.json", "model.safetensors", "preprocessor_config.json"}
    code = {path.name for path in folder.glob("*.py")}
    assert {"modeling_metamae.py", "configuration_metamae.py", "layers.py", "image_processing_array.py"} <= code
    assert set(hub.files()) == others | code
    assert hub.files()["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_card_is_completed_only_in_the_upload(folder: Path, hub: FakeHub, no_subprocess: list[Path]) -> None:
    """A changed file would make a training checkpoint count as damaged."""
    for name in ("manifest.json", "other.png"):
        (folder / name).unlink()
    sealed = folder.with_name("checkpoint-00000030")
    seal(folder, sealed)
    publish(sealed, "org/name")
    card = hub.files()["README.md"].decode()
    assert 'from_pretrained("org/name")' in card and PLACEHOLDER not in card
    assert PLACEHOLDER in (sealed / "README.md").read_text()
    assert find_damage(sealed) is None


def test_dry_run_lists_and_uploads_nothing(
    folder: Path, hub: FakeHub, no_subprocess: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(folder, "org/name", dry_run=True) is None
    printed = capsys.readouterr().out
    size = (folder / "model.safetensors").stat().st_size
    assert f"{size:,} bytes  model.safetensors" in printed
    assert "Left out: 6 files" in printed and "names no licence" in printed
    for line in (
        "secret: .env",
        "not of the model: other.png, result.json",
        "of the run alone: manifest.json, trainer_state.json, training_state/",
    ):
        assert f"\n  {line}\n" in printed
    assert no_subprocess == [folder] and hub.requests == []
    assert all(len(line) <= 80 for line in printed.splitlines() if not line.startswith(str(folder)))


def test_output_folder_of_a_run_keeps_its_checkpoints(folder: Path, hub: FakeHub, no_subprocess: list[Path]) -> None:
    shutil.copytree(folder, folder / "checkpoint-00000030")
    publish(folder, "org/name")
    assert not any("/" in name or name.startswith("checkpoint") for name in hub.files())


def test_failed_upload_gives_the_command_that_retries(
    folder: Path, hub: FakeHub, no_subprocess: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    hub.failing = "/api/repos/create"
    spaced = folder.rename(folder.with_name("my model"))
    with pytest.raises(UploadError, match="403 Forbidden"):
        publish(spaced, "org/name")
    refuse([str(spaced), "org/name", "--private", "--license", "mit"])
    message = capsys.readouterr().err
    assert "The model is safe" in message and "org/name was not touched" in message
    assert f"hf-maskssl publish '{spaced}' org/name --private --license mit" in message


@pytest.mark.parametrize("stage", ["/preupload/", "/upload/", "/commit/", "/api/validate-yaml"])
def test_what_fails_halfway_leaves_the_repository_as_it_was(
    folder: Path, hub: FakeHub, no_subprocess: list[Path], stage: str
) -> None:
    publish(folder, "org/name")
    before = hub.files()
    (folder / "model.safetensors").write_bytes(b"other weights")
    hub.failing = stage
    with pytest.raises(UploadError, match="holds what it held before") as caught:
        publish(folder, "org/name")
    assert hub.files() == before and len(hub.commits) == 1
    assert hub.requests[-1].find(stage) >= 0 and "org/name" in str(caught.value)
    hub.failing = None
    publish(folder, "org/name")
    assert hub.files()["model.safetensors"] == b"other weights" and len(hub.commits) == 2


def test_commit_goes_to_the_branch_that_is_named(folder: Path, hub: FakeHub, no_subprocess: list[Path]) -> None:
    publish(folder, "org/name", revision="v1/trial")
    assert hub.files("v1/trial")["config.json"] and hub.files() == {}


def test_public_repository_is_not_taken_for_a_private_one(
    folder: Path, hub: FakeHub, no_subprocess: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    publish(folder, "org/name")
    refuse([str(folder), "org/name", "--private"])
    assert "--private: org/name is there already, and public" in capsys.readouterr().err
    assert len(hub.commits) == 1
    publish(folder, "org/other", private=True)
    publish(folder, "org/other", private=True)


# ---- the licence ---------------------------------------------------------------------------------------------------


def test_licence_is_asked_for_once(
    folder: Path, hub: FakeHub, no_subprocess: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return ["apache", "apache-2.0"][len(asked) - 1]

    (folder / "manifest.json").unlink()
    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    card = (folder / "README.md").read_text()
    main([str(folder), "org/name"])
    assert "names no licence" in asked[0] and "did you mean 'apache-2.0'?" in asked[1]
    main([str(folder), "org/name"])
    assert len(asked) == 2
    assert (folder / "README.md").read_text() == card.replace("---\n", "---\nlicense: apache-2.0\n", 1)
    assert ModelCard(hub.files()["README.md"].decode()).data.license == "apache-2.0"


def test_nobody_is_asked_without_a_terminal(
    folder: Path, hub: FakeHub, no_subprocess: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(question: str) -> str:
        raise AssertionError("a job in a queue would wait for ever")

    monkeypatch.setattr("builtins.input", fail)
    main([str(folder), "org/name"])
    assert ModelCard(hub.files()["README.md"].decode()).data.license is None


def test_checkpoint_of_a_run_stays_intact_whatever_its_licence(
    folder: Path, hub: FakeHub, no_subprocess: list[Path]
) -> None:
    (folder / "manifest.json").unlink()
    sealed = folder.with_name("checkpoint-00000030")
    seal(folder, sealed)
    publish(sealed, "org/name", licence="mit")
    assert find_damage(sealed) is None
    assert ModelCard(hub.files()["README.md"].decode()).data.license == "mit"


def test_unknown_licence_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuse([str(folder), "org/name", "--license", "Apache 2.0"])
    assert "the Hub knows no 'Apache 2.0' (did you mean 'apache-2.0'?)" in capsys.readouterr().err


# ---- what stays ----------------------------------------------------------------------------------------------------


def test_hidden_secret_and_huge_files_stay(
    folder: Path,
    hub: FakeHub,
    no_subprocess: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where a card shows them as pictures, or where their names are those of files that are published."""
    monkeypatch.setattr(published_files, "LARGEST_OTHER", 100_000)
    (folder / "huge.png").write_bytes(b"0" * 100_001)
    for name in ("secrets.py", "my_token.txt", ".hidden.py"):
        (folder / name).write_text("x = 1")
    (folder / "onnx").mkdir()
    for name in ("model.onnx", ".DS_Store"):
        (folder / "onnx" / name).write_bytes(b"0")
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card + "\n![a](huge.png) ![b](.env) ![c](curves.png)\n")
    publish(folder, "org/name")
    printed = capsys.readouterr().out
    assert {"curves.png", "onnx/model.onnx"} <= set(hub.files())
    for name in ("huge.png", ".env", "secrets.py", "my_token.txt", ".hidden.py", "onnx/.DS_Store", "other.png"):
        assert name not in hub.files()
    assert "Left out: 11 files" in printed and "\n  too big: huge.png\n" in printed
    assert (
        "\n  secret: .env, my_token.txt, secrets.py\n" in printed and "\n  hidden: .hidden.py, .DS_Store\n" in printed
    )


@pytest.mark.parametrize("name", ["README.md", "config.json", "layers.py"])
def test_token_in_a_file_is_found_before_anything_is_uploaded(
    folder: Path, hub: FakeHub, no_subprocess: list[Path], name: str
) -> None:
    secret = "hf_" + "a1B2" * 9
    text = (folder / name).read_text()
    (folder / name).write_text(
        text + f"\n# {secret}" if name != "config.json" else text.replace("{", f'{{"a": "{secret}",', 1)
    )
    with pytest.raises(ValueError, match=f"a token or a private key would be published: {name}, line") as caught:
        publish(folder, "org/name")
    assert secret not in str(caught.value) and hub.requests == []


def test_results_of_a_probe_go_into_the_card(
    folder: Path, hub: FakeHub, no_subprocess: list[Path], tmp_path: Path
) -> None:
    report = probe_report(str(folder), "org/digits")
    write_json(tmp_path / "result.json", report)
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("---\n", "---\ndatasets: org/digits\n", 1))
    publish(folder, "org/name", results=tmp_path / "result.json")
    published = ModelCard(hub.files()["README.md"].decode())
    assert "## Evaluation" in published.text and published.data.eval_results[0].metric_value == 0.92
    assert b"org/digits" in hub.files()[".eval_results/digits.yaml"]
    with pytest.raises(FileNotFoundError, match="did you mean"):
        publish(folder, "org/name", results=tmp_path / "results.json")


@pytest.mark.parametrize("repo_id", ["name", "org/na me", "org/name/more", "", "org/-name"])
def test_impossible_names_are_refused(
    folder: Path, hub: FakeHub, no_subprocess: list[Path], capsys: pytest.CaptureFixture[str], repo_id: str
) -> None:
    refuse([str(folder), repo_id])
    assert "error:" in capsys.readouterr().err
    assert hub.requests == [] and no_subprocess == []


def test_everything_missing_is_named_at_once(folder: Path, hub: FakeHub, no_subprocess: list[Path]) -> None:
    for name in ("model.safetensors", "README.md", "modeling_metamae.py", "image_processing_array.py"):
        (folder / name).unlink()
    with pytest.raises(ValueError) as caught:
        publish(folder, "org/name")
    for words in ("no weights", "no card", "no modeling_metamae.py", "no image_processing_array.py"):
        assert words in str(caught.value)
    assert hub.requests == [] and no_subprocess == []


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no config.json"), ("{", "config.json is damaged"), ('{"a": 1}', "no `auto_map`")]
)
def test_unusable_config_is_named(folder: Path, content: str | None, words: str) -> None:
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=words):
        publish(folder, "org/name", dry_run=True)


def test_absent_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuse([str(tmp_path / "nowhere"), "org/name", "--dry_run"])
    assert "is not a folder" in capsys.readouterr().err


def test_folder_without_processor_is_published_with_a_note(
    make_run: Any, blank_curves: None, hub: FakeHub, no_subprocess: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, state, folder = make_run("ids")
    write_model_card(folder, recipe, state)
    publish(folder, "org/name")
    assert "has no processor" in capsys.readouterr().out and "model.safetensors" in hub.files()


# ---- loading both ways, for real ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_finetuned_model_loads_both_ways_and_is_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pre-training checkpoints of every method do so in tests/models/test_cargo.py."""
    folder = finetune_digits(tmp_path)
    main([str(folder), "org/name", "--dry_run"])
    printed = capsys.readouterr().out
    assert "both ways of loading agree" in printed and "Left out" not in printed


def test_missing_sibling_and_missing_weight_are_found(folder: Path) -> None:
    """Each way has its own complaint: with the package the folder's code is not run, so only the weight is missed."""
    weights = load_file(folder / "model.safetensors")
    del weights["metamae.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "masking.py").unlink()
    with pytest.raises(ValueError) as caught:
        check_loading(folder)
    registered, remote = str(caught.value).splitlines()[1:]
    assert "with hf_maskssl imported" in registered and "missing ['norm.weight']" in registered
    assert "without hf_maskssl, trust_remote_code=True" in remote and "masking.py" in remote


def test_outputs_that_differ_are_found(folder: Path) -> None:
    first = {"pooler_output": torch.zeros(2, 4)}
    compare_outputs(folder, first, {"pooler_output": torch.full((2, 4), 1e-6)})
    with pytest.raises(ValueError, match="`pooler_output` differs by 0.5"):
        compare_outputs(folder, first, {"pooler_output": torch.full((2, 4), 0.5)})
    with pytest.raises(ValueError, match="`pooler_output` differs by nan"):
        compare_outputs(folder, first, {"pooler_output": torch.full((2, 4), torch.nan)})
    with pytest.raises(ValueError, match="give .*logits"):
        compare_outputs(folder, first, {"logits": torch.zeros(2, 4)})


@pytest.mark.parametrize(
    "name", ["image", "series", "tabular", "tokens", "pairs", "sma_text", "sma_series", "sma_image", "pos_bert"]
)
def test_example_inputs_fit_their_model(make_run: Any, name: str) -> None:
    from transformers import AutoModel

    _, _, folder = make_run(name)
    encoder = AutoModel.from_pretrained(folder)
    example_inputs = find_method(encoder.config).example_inputs
    first, again = example_inputs(encoder.config), example_inputs(encoder.config)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    with torch.inference_mode():
        assert encoder(**first).pooler_output.shape == (2, 16)


def test_the_line_that_names_an_error_is_found() -> None:
    traceback = "Traceback (most recent call last):\n  File\nx.y.LoadError: two things:\n  first\nand more\n"
    assert last_error("Loading weights\n" + traceback) == "x.y.LoadError: two things:"
    assert last_error("killed\n") == "killed" and last_error("") == ""


def test_example_inputs_of_a_foreign_model_are_refused() -> None:
    with pytest.raises(ValueError, match="model_type 'bert': expected one of"):
        find_method(SimpleNamespace(model_type="bert"))  # type: ignore[arg-type]
