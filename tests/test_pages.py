"""The pages of docs/: commands exist, recipes take a step, messages are those of the code, and no warning as they are built."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from scipy.io import wavfile
from transformers import CONFIG_MAPPING

from hf_maskssl.commands import VERBS
from hf_maskssl.commands.fields import OPTIONS
from hf_maskssl.data.arguments import ARGUMENTS
from hf_maskssl.data.builtin import SOURCES
from hf_maskssl.data.preparation import prepare_data
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.methods import METHODS, papers
from hf_maskssl.preparing.catalogue import DATA_SETS
from hf_maskssl.recipes import build_config, recipe_names
from hf_maskssl.training import PretrainingArguments, load_pretraining_recipe
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, load_finetuning_recipe
from hf_maskssl.training.sweeps.sweep_file import sweep_names
from hf_maskssl.version import __version__
from test_docs import PACKAGE, PAGES, ROOT, UNFIT, blocks, check_first_step, commands, read

sys.path.append(str(ROOT / "docs"))
import capture  # noqa: E402
import generated  # noqa: E402

DOCUMENTS = ("README.md", "CONTRIBUTING.md", *PAGES)
# Verbs whose command line takes any field of a recipe, too.
WITH_FIELDS = {"pretrain", "describe", "probe", "finetune", "segment", "depth", "embed", "masks", "predict"}
WITH_FIELDS |= {"tokenizer", "tag", "pseudo-label", "sweep"}
RECIPE_FIRST = {"pretrain", "describe", "finetune", "segment", "depth"}


# Commands


def verbs(document: str) -> list[list[str]]:
    """Words of each command of a page that calls a verb, the verb first; a launcher's own words are left out."""
    found = []
    for words in commands(read(document)):
        if words[0] == "hf-maskssl":
            found.append(words[1:])
        elif "hf_maskssl" in words and words[words.index("hf_maskssl") - 1] == "-m":
            found.append(words[words.index("hf_maskssl") + 1 :])
    return found


@cache
def option_names(verb: str) -> set[str]:
    """Options that a verb takes, without dashes."""
    names = set(re.findall(r"--([\w-]+)", generated.help_of(verb)))
    if verb in WITH_FIELDS:
        sections = [*ARGUMENTS.values(), PretrainingArguments, ProbeArguments, FinetuningArguments, *OPTIONS.values()]
        for cls in [*sections, *(CONFIG_MAPPING[model] for model in METHODS)]:
            names |= set(cls.__dataclass_fields__)
    return names


def mistakes(words: list[str]) -> list[str]:
    """What of a command does not exist."""
    verb, *rest = words
    if verb not in VERBS:
        return [f"no verb {verb}"]
    given = [word[2:].partition("=")[0].rpartition(".")[2] for word in rest if word.startswith("--")]
    found = [f"{verb} has no --{name}" for name in given if name not in option_names(verb)]
    names = rest[:1] if verb in RECIPE_FIRST else rest[1:2] if verb == "recipes" and len(rest) > 1 else []
    names += [rest[rest.index("--recipe") + 1]] if "--recipe" in rest else []
    for name in names:
        is_data = verb == "pretrain" and "--minutes" in rest
        if not re.search(r"[./]", name) and not is_data and name not in [*recipe_names(), *SOURCES]:
            found.append(f"no recipe {name}")
    if verb == "sweep" and rest and not rest[0].startswith("--") and not re.search(r"[./]", rest[0]):
        found += [f"no sweep {rest[0]}"] if rest[0] not in sweep_names() else []
    if verb == "data" and len(rest) > 1:
        found += [f"no data set {rest[1]}"] if rest[1] not in DATA_SETS else []
    return found


@pytest.mark.parametrize("document", [one for one in DOCUMENTS if verbs(one)])
def test_commands_are_those_of_the_package(document: str) -> None:
    assert [mistake for words in verbs(document) for mistake in mistakes(words)] == []


@pytest.mark.parametrize(
    ("command", "mistake"),
    [
        ("pretrian digits", "no verb pretrian"),
        ("pretrain digit", "no recipe digit"),
        ("embed a b --outptu c", "embed has no --outptu"),
        ("masks a --recipe b", "no recipe b"),
        ("sweep metamae_tabel6", "no sweep metamae_tabel6"),
        ("data prepare pamap --download", "no data set pamap"),
    ],
)
def test_a_wrong_command_is_seen(command: str, mistake: str) -> None:
    assert mistakes(command.split()) == [mistake]


def test_scripts_that_pages_name_exist() -> None:
    named = {
        word for one in DOCUMENTS for words in commands(read(one)) for word in words if word.endswith((".py", ".sh"))
    }
    assert named and [name for name in sorted(named) if not (ROOT / name).is_file()] == []


# Recipes


def write_wine() -> None:
    capture.write_wine()
    frame = pd.read_csv("wine.csv").rename(columns={"target": "cultivar"})
    frame.to_csv("wine.csv", index=False)


def write_sensors() -> None:
    series = np.random.default_rng(0).normal(size=(24, 6, 320))
    pd.DataFrame({"series": [[list(channel) for channel in row] for row in series]}).to_parquet("sensors.parquet")


def write_wine_and_sensors() -> None:
    write_wine()
    write_sensors()


def write_logger() -> None:
    """Series of unequal length, one row a time step, whose state changes."""
    parts = []
    for machine in range(6):
        steps = np.arange(70 + 20 * machine)
        parts.append(
            pd.DataFrame(
                {
                    "machine": f"m{machine}",
                    "time": 0.5 * steps,
                    "current": np.sin(steps / (2 + machine)),
                    "speed": np.cos(steps / (2 + machine)),
                    "state": np.where(steps < 40, "cold", "warm"),
                }
            ).drop(index=[3, 17])
        )
    pd.concat(parts).to_csv("logger.csv", index=False)


def write_pictures() -> None:
    for row in range(24):
        folder = Path("pictures", "ab"[row % 2])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64, 3), 10 * row, dtype=np.uint8)).save(folder / f"{row}.png")


def write_sounds() -> None:
    for row in range(24):
        folder = Path("sounds", "ab"[row % 2])
        folder.mkdir(parents=True, exist_ok=True)
        wavfile.write(
            folder / f"{row}.wav", 8000, np.random.default_rng(row).integers(-999, 999, 4400).astype(np.int16)
        )


def write_proteins() -> None:
    letters = list("ACDEFGHIKLMNPQRSTVWY")
    rows = ["".join(np.random.default_rng(row).choice(letters, 40)) for row in range(24)]
    pd.DataFrame({"sequence": rows}).to_csv("proteins.csv", index=False)


def write_tagged() -> None:
    """Words that are tagged, since the tagger's data are not always there."""
    words = [["the", "old", "tree", "falls", "slowly"], ["a", "river", "runs", "north", "today"]] * 12
    tags = [["DET", "ADJ", "NOUN", "VERB", "ADV"], ["DET", "NOUN", "VERB", "ADV", "NOUN"]] * 12
    pd.DataFrame({"text": words, "tags": tags}).to_parquet("tagged.parquet")


def write_modalities() -> None:
    random = np.random.default_rng(0)
    for name, shape in (("bands", (13, 128, 128)), ("thermal", (128, 128)), ("cover", (128, 128))):
        folder = Path("folder", name, "all")
        folder.mkdir(parents=True)
        for row in range(4):
            values = random.integers(0, 12, shape).astype(np.uint8) if name == "cover" else random.normal(size=shape)
            np.save(folder / f"{row}.npy", values)


def write_captioned() -> None:
    Path("captioned").mkdir()
    for row in range(8):
        Image.fromarray(np.full((64, 64, 3), 30 * row, dtype=np.uint8)).save(f"captioned/{row}.png")
    names = [f"{row}.png" for row in range(8)]
    pd.DataFrame({"file_name": names, "caption": [f"grey {row}" for row in range(8)]}).to_csv(
        "captioned/metadata.csv", index=False
    )


def write_customers() -> None:
    random = np.random.default_rng(0)
    columns = {
        "age": random.integers(18, 90, 60),
        "plan": random.choice(["basic", "gold", "silver"], 60),
        "income": np.exp(random.normal(10.0, 1.0, 60)).round(),
        "active": random.choice([True, False], 60),
        "region": random.choice(list("NESWC"), 60),
        "joined": [f"2026-{1 + row % 12:02}-{1 + row % 28:02}" for row in range(60)],
        "churned": random.choice(["yes", "no"], 60),
    }
    pd.DataFrame(columns).mask(random.random((60, 7)) < [0.1] * 5 + [0.0] * 2).to_csv("customers.csv", index=False)


# Page -> what writes the data of its first recipe, and what the test changes of that.
GUIDES: dict[str, tuple[Callable[[], None], list[str]]] = {
    "tabular": (write_wine, []),
    "series": (write_sensors, []),
    "image": (write_pictures, []),
    "spectrogram": (write_sounds, []),
    "tokens": (write_proteins, []),
    "text": (
        write_tagged,
        "--source parquet --data_files tagged.parquet --tagger null --tag_column tags --wordpiece_size 60 "
        "--vocab_size 60 --next_sentence_prediction none".split(),
    ),
    "multimodal": (write_modalities, ["--num_visible_tokens", "4"]),
    "vision_language": (write_captioned, []),
    "unified": (write_wine_and_sensors, []),
}
SMALL = ["--hidden_size", "16", "--num_hidden_layers", "1", "--num_attention_heads", "2", "--intermediate_size", "16"]
SMALL_DECODER = ["--decoder_hidden_size", "16", "--decoder_num_attention_heads", "2"]


def test_every_kind_has_a_guide() -> None:
    names = {"tokens": "tokens", "masked_text": "text"}
    assert {names.get(kind, kind) for kind in ARGUMENTS} == set(GUIDES)
    # The page of the papers' data sets is none of a kind.
    assert set(GUIDES) == {path.stem for path in (ROOT / "docs" / "data").glob("*.md")} - {"prepare"}


@pytest.mark.parametrize("page", [*GUIDES, "mixed"])
def test_the_recipe_of_a_guide_takes_a_step(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write, changes = GUIDES.get(page, (write_customers, []))
    write()
    texts = blocks(read(f"docs/data/{page if page in GUIDES else 'tabular'}.md"), "yaml")
    texts = [text for text in texts if "model:" in text and ("category_counts" in text or page != "mixed")]
    take_a_step(texts[0], changes)
    if page == "series":
        write_logger()
        take_a_step(texts[1], [])


def take_a_step(text: str, changes: list[str]) -> None:
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    decoder = SMALL_DECODER if "metamae" in text or "multimae" in text else []
    small = [] if "model_type: unified" in text else [*SMALL, *decoder]
    recipe = load_pretraining_recipe("recipe.yaml", [*small, *changes])
    config = build_config(recipe.model)
    check_first_step(prepare_data(recipe.data, config), config)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_other_recipes_are_read(document: str, tmp_path: Path) -> None:
    """Those of fine-tuning whole, sections that stand alone by the names of their fields."""
    for number, text in enumerate(blocks(read(document), "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text, encoding="utf-8")
        sections = yaml.safe_load(text)
        if "finetuning" in sections:
            assert load_finetuning_recipe(path).data.kind == sections["data"]["kind"]
        elif "data" in sections:
            assert set(sections["data"]) <= set(ARGUMENTS[sections["data"]["kind"]].__dataclass_fields__)


# Messages


def fixed_texts() -> str:
    """The texts of the package's code, in which values of messages are left out."""
    parts = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts.append(node.value)
    return "\n".join(parts)


def quoted(document: str) -> Iterator[str]:
    """Messages that a page quotes: code that begins with "error: "."""
    for text in re.findall(r"`error: ([^`]+)`", read(document)):
        yield " ".join(text.split())


def fixed_parts(message: str) -> list[str]:
    return [part.strip() for part in re.split(r"\.\.\.(?!\.)", message) if len(part.strip()) > 2]


def test_messages_that_pages_quote_are_the_codes() -> None:
    texts = fixed_texts()
    missing = [
        (page, part)
        for page in PAGES
        for message in quoted(page)
        for part in fixed_parts(message)
        if part not in texts
    ]
    assert missing == []
    assert len(list(quoted("docs/troubleshooting.md"))) >= 25


def test_a_message_that_no_code_has_is_seen() -> None:
    assert fixed_parts("data.kind ... goes with model.modality ..., but")[1] == "goes with model.modality"
    assert "goes with a model that we dream of" not in fixed_texts()


# What the package is


def test_extras_are_those_of_the_project() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads(read("pyproject.toml"))["project"]
    listed = dict(re.findall(r"^\| `\[(\w+)\]` \| ([^|]+) \|", read("docs/install.md"), flags=re.MULTILINE))
    known = {
        extra: ", ".join(name for line in lines for name in names_of(line))
        for extra, lines in project["optional-dependencies"].items()
    }
    assert listed == known


def test_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    newest = re.findall(r"^## (\S+) \((\S+)\)$", read("CHANGELOG.md"), flags=re.MULTILINE)[0]
    assert newest == (__version__, str(citation["date-released"])) and citation["version"] == __version__
    bibtex = "".join(text for text in vars(papers).values() if isinstance(text, str))
    assert [paper["title"] for paper in citation["references"] if paper["url"] not in bibtex] == []


def names_of(requirement: str) -> list[str]:
    """Name of a required package, or the extras of this one that it asks for."""
    own = re.match(r"hf-maskssl\[([^]]+)\]", requirement)
    match = re.match(r"[\w.-]+", requirement)
    return own[1].split(",") if own else [match[0]] if match else []


def test_references_have_every_public_name_verb_and_section() -> None:
    api, helps, fields = generated.api(), generated.commands(), generated.fields()
    assert {"### MetaMAEModel", "### embed", "### prepare_data", "### pretrain"} <= set(api.splitlines())
    assert [verb for verb in VERBS if f"## {verb}" not in helps.splitlines()] == []
    assert [line for line in helps.splitlines() if len(line) > generated.WIDTH] == []
    assert [kind for kind in ARGUMENTS if f"## data, kind {kind}" not in fields] == []
    assert "- **`mask_ratio`**: `float = 0.5`" in fields


# Transcripts


@pytest.mark.parametrize("walk", capture.WALKS, ids=lambda walk: walk.name)
def test_transcripts_are_of_the_walks(walk: capture.Walk) -> None:
    lines = read(f"docs/transcripts/{walk.name}.txt").splitlines()
    shown = [line.removeprefix(capture.PROMPT) for line in lines if line.startswith(capture.PROMPT)]
    assert [re.sub(r"--minutes \S+", "--minutes {minutes}", line) for line in shown] == list(walk.commands)
    assert [mistake for words in walk.lines(1.0) for mistake in mistakes(words)] == []
    assert capture.unfit("\n".join(lines), ROOT) == []
    assert [line for line in lines if UNFIT.search(line) or "Traceback" in line or line.startswith("error: ")] == []


def test_what_a_terminal_shows_at_the_end() -> None:
    assert capture.shown("a\r\nlong line\rshort\x1b[K\n\x1b[1mbold\x1b[0m\none\rt\n") == "a\nshort\nbold\ntne"
    code, text = capture.in_terminal([sys.executable, "-c", "import os; print(os.get_terminal_size().columns)"])
    assert (code, text) == (0, "80")


# The build


@pytest.mark.slow
def test_pages_build_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
    result = subprocess.run([*command, str(ROOT / "docs"), str(tmp_path / "html")], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-5000:]
    page = (tmp_path / "html" / "reference" / "api.html").read_text(encoding="utf-8")
    assert "hf_maskssl.MetaMAEForPretraining" in page
    loaded = re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css))"', page)
    assert loaded == []
