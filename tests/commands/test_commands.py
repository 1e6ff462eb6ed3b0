"""The command line: every verb has a page of help, recipes are found by name, a mistake is one line."""

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedConfig

from hf_maskssl.commands import VERBS, function_of, help_text, main
from hf_maskssl.commands.fields import SECTIONS, field_lines, section_class
from hf_maskssl.data.arguments import ARGUMENTS
from hf_maskssl.methods import METHODS
from hf_maskssl.recipes import find_recipe, load_recipe, read_yaml, recipe_names
from hf_maskssl.scripts import UserError

ROOT = Path(__file__).resolve().parents[2]
WIDTH, PAGE = 80, 48


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/hf-maskssl", *words])
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    main()


def assert_page(text: str) -> None:
    lines = text.splitlines()
    assert 5 < len(lines) <= PAGE, len(lines)
    assert [line for line in lines if len(line) > WIDTH] == []


def test_the_command_lists_its_verbs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(monkeypatch)
    printed = capsys.readouterr().out
    assert printed.strip() == help_text()
    assert_page(printed)
    assert all(f"  {verb} " in printed for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_page_of_help(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, verb, "--help")
    printed = capsys.readouterr().out
    assert end.value.code == 0
    assert_page(printed)
    assert f"hf-maskssl {verb}" in printed


def test_the_page_of_help_is_light() -> None:
    code = "import sys; sys.argv = ['hf-maskssl']; from hf_maskssl.commands import main; main()\n"
    code += "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules], file=sys.stderr)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "src")}
    )
    assert ended.stderr.strip() == "[]"


def test_a_mistyped_verb_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError) as end:
        call(monkeypatch, "pretrian", "digits")
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "error: VERB: no command 'pretrian' (did you mean 'pretrain'?); `hf-maskssl --help` lists them\n"
    )


def test_examples_are_calls_of_the_verbs() -> None:
    """The scripts run the verbs and hold nothing of their own, so that the two ways in never differ."""
    called = {}
    for path in (ROOT / "examples").glob("*.py"):
        code = path.read_text(encoding="utf-8")
        if "from hf_maskssl.commands import run" in code:
            verb = code.rpartition('run("')[2].partition('"')[0]
            called[path.name] = verb
            assert len(code.splitlines()) < 40 and callable(function_of(verb))
    assert called["run_pretrain.py"] == "pretrain" and len(called) == 11


def test_recipes_are_in_the_package() -> None:
    assert recipe_names() == sorted(path.stem for path in (ROOT / "examples" / "recipes").glob("*.yaml"))
    assert read_yaml("digits") == read_yaml(ROOT / "examples" / "recipes" / "digits.yaml")


def test_a_file_comes_before_a_recipe_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("digits").is_file()
    Path("digits").write_text("model: {model_type: sma}")
    assert load_recipe("digits")["model"] == {"model_type": "sma"}


@pytest.mark.parametrize(
    "name, advice",
    [("digitz", "did you mean 'digits'"), ("recipes/digits", "no such file"), ("digits.yaml", "no such file")],
)
def test_no_such_recipe(name: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=advice):
        find_recipe(name)


def test_recipes_are_listed_shown_and_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, "recipes")
    listed = capsys.readouterr().out
    assert max(map(len, listed.splitlines())) <= WIDTH
    assert all(f"  {name} " in listed for name in recipe_names())
    call(monkeypatch, "recipes", "show", "digits")
    shown = capsys.readouterr().out
    call(monkeypatch, "recipes", "copy", "digits")
    assert Path("digits.yaml").read_text(encoding="utf-8") == shown
    capsys.readouterr()
    with pytest.raises(UserError):
        call(monkeypatch, "recipes", "copy", "digits")
    assert "TARGET: digits.yaml exists already" in capsys.readouterr().err
    with pytest.raises(UserError):
        call(monkeypatch, "recipes", "show")
    assert "NAME: expected the name of a recipe to show" in capsys.readouterr().err


@pytest.mark.parametrize(
    "section, kind, model",
    [
        *(("data", kind, "metamae") for kind in ARGUMENTS),
        *(("model", "image", model) for model in METHODS),
        *((section, "image", "metamae") for section in SECTIONS[2:]),
    ],
)
def test_every_field_is_described(section: str, kind: str, model: str) -> None:
    """What `fields` prints names each field of a recipe once, with a meaning, within 80 columns."""
    cls = section_class(section, kind, model)
    common = {field.name for field in dataclasses.fields(PreTrainedConfig)} if section == "model" else set()
    own = [field.name for field in dataclasses.fields(cls) if field.init and field.name not in common]
    lines = list(field_lines(cls))
    assert max(map(len, lines)) <= WIDTH
    named = [line.partition(":")[0] for line in lines if not line.startswith(" ")]
    assert [name for name in own if name not in named] == [] and len(named) == len(set(named))


def test_doctor_names_versions_and_extras(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(monkeypatch, "doctor")
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("hf_maskssl ", "Python ", "torch ", "device:", "cache of models:"))


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_stops_ends_the_command_quietly(unbuffered: str) -> None:
    command = f"{sys.executable} -m hf_maskssl fields training | head -1"
    result = subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": unbuffered},
    )
    assert result.stdout.startswith("training (PretrainingArguments)") and result.stderr == ""


@pytest.mark.parametrize("verb, advice", [("embed", ", which goes on with what is written"), ("probe", "")])
def test_a_stopped_verb_says_what_to_do(
    verb: str, advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Python leaves SIGINT ignored where a shell that began the tests in the background has it ignored.
    monkeypatch.setattr("hf_maskssl.commands.function_of", lambda verb: lambda: signal.raise_signal(signal.SIGINT))
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, verb)
    signal.signal(signal.SIGINT, former)
    assert end.value.code == 130
    assert capsys.readouterr().err == f"stopped by Ctrl-C: give the same command again{advice}\n"
