"""Publishing: what is checked, what goes and what stays, and what happens when the network fails."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from card_runs import finetune_digits
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from hf_maskssl.hub import publish as module
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


class FakeHub:
    """Stands for the Hub's two calls; remembers what it was asked, or fails as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.created: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.error: Exception | None = None
        monkeypatch.setattr(HfApi, "create_repo", self.create_repo)
        monkeypatch.setattr(HfApi, "create_commit", self.create_commit)

    def create_repo(self, repo_id: str, **options: Any) -> None:
        if self.error is not None:
            raise self.error
        self.created = {"repo_id": repo_id, **options}

    def create_commit(self, repo_id: str, operations: list[Any], commit_message: str) -> SimpleNamespace:
        for operation in operations:
            with operation.as_file() as file:
                self.files[operation.path_in_repo] = file.read()
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    return FakeHub(monkeypatch)


def refuse(words: list[str]) -> None:
    """What `python -m hf_maskssl.hub.publish` does ends with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        run_script(lambda: main(words))
    assert caught.value.code == 2


def test_upload_holds_model_code_processor_and_card(folder: Path, hub: FakeHub, no_subprocess: list[Path]) -> None:
    address = publish(folder, "org/name", private=True)
    assert address == "https://huggingface.co/org/name/commit/1"
    assert hub.created == {"repo_id": "org/name", "private": True, "exist_ok": True}
    assert no_subprocess == [folder]
    others = {"README.md", "curves.png", "config.json", "model.safetensors", "preprocessor_config.json"}
    code = {path.name for path in folder.glob("*.py")}
    assert {"modeling_metamae.py", "configuration_metamae.py", "layers.py", "image_processing_array.py"} <= code
    assert set(hub.files) == others | code
    assert hub.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_card_is_completed_only_in_the_upload(folder: Path, hub: FakeHub, no_subprocess: list[Path]) -> None:
    """A changed file would make a training checkpoint count as damaged."""
    for name in ("manifest.json", "other.png"):
        (folder / name).unlink()
    sealed = folder.with_name("checkpoint-00000030")
    seal(folder, sealed)
    publish(sealed, "org/name")
    card = hub.files["README.md"].decode()
    assert 'from_pretrained("org/name")' in card and PLACEHOLDER not in card
    assert PLACEHOLDER in (sealed / "README.md").read_text()
    assert find_damage(sealed) is None


def test_dry_run_lists_and_uploads_nothing(
    folder: Path, hub: FakeHub, no_subprocess: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    hub.error = AssertionError("a dry run must not reach for the network")
    assert publish(folder, "org/name", dry_run=True) is None
    printed = capsys.readouterr().out
    size = (folder / "model.safetensors").stat().st_size
    assert f"{size:,} bytes  model.safetensors" in printed
    left_out = next(line for line in printed.splitlines() if line.startswith("Left out:"))
    for name in ("training_state/", "manifest.json", "trainer_state.json", "result.json", ".env", "other.png"):
        assert name in left_out
    assert "names no licence" in printed
    assert no_subprocess == [folder]


def test_output_folder_of_a_run_keeps_its_checkpoints(folder: Path, hub: FakeHub, no_subprocess: list[Path]) -> None:
    shutil.copytree(folder, folder / "checkpoint-00000030")
    publish(folder, "org/name")
    assert not any("/" in name or name.startswith("checkpoint") for name in hub.files)


def test_failed_upload_gives_the_command_that_retries(
    folder: Path, hub: FakeHub, no_subprocess: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    hub.error = ConnectionError("no route to host")
    spaced = folder.rename(folder.with_name("my model"))
    with pytest.raises(UploadError, match="no route to host"):
        publish(spaced, "org/name")
    refuse([str(spaced), "org/name", "--private"])
    message = capsys.readouterr().err
    assert "The model is safe" in message
    assert f"python -m hf_maskssl.hub.publish '{spaced}' org/name --private" in message


@pytest.mark.parametrize("repo_id", ["name", "org/na me", "org/name/more", "", "org/-name"])
def test_impossible_names_are_refused(
    folder: Path, hub: FakeHub, no_subprocess: list[Path], capsys: pytest.CaptureFixture[str], repo_id: str
) -> None:
    refuse([str(folder), repo_id])
    assert "error:" in capsys.readouterr().err
    assert hub.files == {} and no_subprocess == []


def test_everything_missing_is_named_at_once(folder: Path, hub: FakeHub, no_subprocess: list[Path]) -> None:
    for name in ("model.safetensors", "README.md", "modeling_metamae.py", "image_processing_array.py"):
        (folder / name).unlink()
    with pytest.raises(ValueError) as caught:
        publish(folder, "org/name")
    for words in ("no weights", "no card", "no modeling_metamae.py", "no image_processing_array.py"):
        assert words in str(caught.value)
    assert hub.files == {} and no_subprocess == []


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
    assert "has no processor" in capsys.readouterr().out and "model.safetensors" in hub.files


# ---- loading both ways, for real ----------------------------------------------------------------------------------


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
