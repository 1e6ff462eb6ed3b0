"""What the documentation says is so: tables, code, recipes, commands, paths and names."""

import ast
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForPreTraining, PreTrainedConfig

import hf_maskssl
from hf_maskssl.data.arguments import DataArguments
from hf_maskssl.data.preparation import PreparedData, prepare_data
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.evaluate_checkpoint import parse_arguments
from hf_maskssl.recipes import build_config, load_recipe
from hf_maskssl.training import load_pretraining_recipe

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benchmarks"))
from markdown_tables import update_tables  # noqa: E402

PACKAGE = ROOT / "src" / "hf_maskssl"
DOCUMENTS = ("README.md", "CONTRIBUTING.md")
# The pages that `make docs` builds; docs/results.md and docs/checkpoints.md are written by scripts.
PAGES = tuple(
    sorted(
        str(path.relative_to(ROOT))
        for path in (ROOT / "docs").rglob("*.md")
        if "_build" not in path.parts and path.name not in ("results.md", "checkpoints.md")
    )
)
HEADINGS = [
    "# hf_maskssl",
    "## Which method for my data",
    "## Try it",
    "## Pre-train on your own data",
    "## Features, neighbours, maps",
    "## Load the frozen encoder",
    "## Fine-tune",
    "## Results",
]
README_LINES = 250
# Language, or directive of MyST in braces with its argument, and what stands between.
FENCE = re.compile(r"^```(\{\w+\}|\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARKED = re.compile(r"^<!-- ((?:table|output):[\w./-]+) -->\n(.*?)^<!-- /\1 -->$", re.MULTILINE | re.DOTALL)
# Folders of one machine, places to install from, and what was left undone.
UNFIT = re.compile(r"(?<![\w.~}])/(?:work|tmp|home|root|mnt|Users)/\w|index-url|\b(?:TODO|FIXME|XXX)\b")
TEXT = {".py", ".md", ".yaml", ".json", ".toml", ".txt", ".cfg"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(text) if name == language]


def section(heading: str) -> str:
    """The README's text under a heading."""
    _, found, rest = read("README.md").partition(f"\n{heading}\n")
    assert found, f"README.md has no heading {heading!r}"
    return re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def commands(text: str) -> list[list[str]]:
    """The words of every command of the shell blocks; a backslash joins lines."""
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


# Tables and headings


def test_readme_has_its_headings_in_order() -> None:
    found = [line for line in read("README.md").splitlines() if line.startswith(("# ", "## "))]
    assert [line for line in found if line in HEADINGS] == HEADINGS


def test_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) <= README_LINES


def test_tables_are_those_of_the_results() -> None:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "model_cards").glob("*.md"))]
    outdated = update_tables(files, ROOT / "benchmarks" / "results", check=True)
    assert outdated == [], "run `make tables`"


def test_nothing_between_markers_is_left_empty() -> None:
    marked = MARKED.findall(read("README.md")) + MARKED.findall(read("docs/results.md"))
    assert {"table:metamae_probe", "table:step_time", "table:device/steps"} <= {name for name, _ in marked}
    assert [name for name, body in marked if not body.strip()] == []


# Python


def save_digits_encoder(folder: Path) -> None:
    """What `make quickstart` leaves there, untrained."""
    torch.manual_seed(0)
    config = build_config(load_recipe(ROOT / "examples" / "recipes" / "digits.yaml")["model"])
    AutoModelForPreTraining.from_config(config).save_pretrained(folder)
    processor = hf_maskssl.ArrayImageProcessor(1, [8, 8], scale=1 / 16, standardize="dataset", mean=[0.3], std=[0.4])
    processor.save_pretrained(folder)


def run_block(code: str, name: str) -> None:
    """Run it, and compare every `value = ...  # (2, 64)` with the shape that it promises."""
    namespace: dict[str, object] = {"__name__": "snippet"}
    exec(compile(code, name, "exec"), namespace)
    for variable, shape in re.findall(r"^(\w+) = .*#\s*(\([\d, ]+\))", code, flags=re.MULTILINE):
        value = namespace[variable]
        assert isinstance(value, torch.Tensor) and tuple(value.shape) == ast.literal_eval(shape), f"{name}: {variable}"


@pytest.mark.parametrize("document", [*DOCUMENTS, *(page for page in PAGES if blocks(read(page), "python"))])
def test_python_blocks_run(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code_blocks = blocks(read(document), "python")
    assert code_blocks
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    for number, code in enumerate(code_blocks):
        for folder in set(re.findall(r'"(outputs/[^"]+)"', code)):
            if not Path(folder).exists():
                save_digits_encoder(tmp_path / folder)
        run_block(code, f"{document}, Python block {number}")


def test_a_block_that_breaks_its_promise_is_found() -> None:
    with pytest.raises(AssertionError, match="features"):
        run_block("import torch\nfeatures = torch.ones(3, 64)  # (2, 64)", "test")
    with pytest.raises(ImportError):
        run_block("from hf_maskssl import MetaMAEForDreaming", "test")


def test_loading_the_encoder_takes_five_lines() -> None:
    code = blocks(section("## Load the frozen encoder"), "python")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    assert "AutoModel.from_pretrained(" in code


# The recipes of the README and the commands beside them


SMALL = ["--hidden_size", "16", "--num_hidden_layers", "1", "--num_attention_heads", "2"]


def test_readme_recipe_works_with_the_commands_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    text = section("## Pre-train on your own data")
    recipe_text = blocks(text, "yaml")[0]
    assert len(recipe_text.splitlines()) <= 10
    found = [(words[1], words[2:]) for words in commands(text) if words[0] == "hf-maskssl"]
    by_verb = dict(reversed(found))  # the first of each: it stands beside the first recipe
    pretrain, probe = by_verb["pretrain"], by_verb["probe"]

    Path(pretrain[0]).write_text(recipe_text, encoding="utf-8")
    recipe = load_pretraining_recipe(pretrain[0], [*pretrain[1:], *SMALL])
    config = build_config(recipe.model)
    _, models, probe_recipe, overrides = parse_arguments(probe)
    sections = load_recipe(probe_recipe, overrides, {"data": DataArguments, "probe": ProbeArguments}, primary="probe")
    labelled = sections["data"]
    assert models == [recipe.training.output_dir], "the probe opens what pre-training writes"

    # Data of the recipe's shape in the file that it names: what both commands begin with.
    assert recipe.data.kind == "series" and isinstance(recipe.data.data_files, str)
    series = np.random.default_rng(0).normal(size=(40, config.num_channels, config.series_length))
    columns = {recipe.data.input_column: series.tolist(), labelled.label_column: [row % 4 for row in range(40)]}
    pq.write_table(pa.table(columns), recipe.data.data_files)
    prepared = prepare_data(recipe.data, config)
    check_first_step(prepared, config)
    measured = prepare_data(labelled, config, prepared.processor, require_labels=True)
    assert measured.num_labels == 4 and (measured.test is not None or measured.validation is not None)


def check_first_step(prepared: PreparedData, config: PreTrainedConfig) -> None:
    rows: Any = prepared.train
    batch = prepared.collator([rows[row] for row in range(4)])
    batch.pop("index")
    assert torch.isfinite(AutoModelForPreTraining.from_config(config)(**batch).loss)


def test_readme_recipe_of_several_modalities_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    recipe_text = blocks(section("## Pre-train on your own data"), "yaml")[1]
    Path("recipe.yaml").write_text(recipe_text, encoding="utf-8")
    recipe = load_pretraining_recipe("recipe.yaml", [*SMALL, "--image_size", "32", "--num_visible_tokens", "4"])
    config: Any = build_config(recipe.model)

    # Files in the folders that the comment behind `data_dir` names.
    (names,) = re.findall(r"# folder/\{([\w,]+)\}/CLASS/NAME", recipe_text)
    assert set(names.split(",")) == {modality.name for modality in config.inputs()}
    random = np.random.default_rng(0)
    for modality in config.inputs():
        folder = Path(recipe.data.data_dir or "") / modality.name / "all"
        folder.mkdir(parents=True)
        for row in range(4):
            pixels = random.normal(size=(modality.num_channels, 32, 32))
            np.save(folder / f"{row}.npy", pixels[0].clip(0).astype(np.uint8) if modality.is_categorical else pixels)
    check_first_step(prepare_data(recipe.data, config), config)


@pytest.mark.parametrize("document", [*DOCUMENTS, *PAGES])
def test_commands_name_modules_and_targets_that_exist(document: str) -> None:
    text = read(document)
    modules = re.findall(r"python -m ([\w.]+)", text)
    targets = set(re.findall(r"^(?:```bash\n)?make (\w+)|`make (\w+)`", text, flags=re.MULTILINE))
    known = re.findall(r"^(\w+):", read("Makefile"), flags=re.MULTILINE)
    modules = [name for name in modules if name != "nltk.downloader"]  # of the extra `text`
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    assert {one or other for one, other in targets} - set(known) == set()


# Paths and names


def mentioned_paths(text: str) -> set[str]:
    """Link targets, and what in code looks like a path into the repository or the package; NAME stands for any."""
    found = {target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target}
    folders = {path.name for root in (ROOT, PACKAGE) for path in root.iterdir() if path.is_dir()} - {"outputs"}
    code = [
        *re.findall(r"`([^`\n]+)`", FENCE.sub("", text)),
        *(body for name, body in FENCE.findall(text) if not name.startswith("{")),
    ]
    for word in re.findall(r"(?<![\w./<$-])[\w.*-]+(?:/[\w.*-]+)+(?![\w<])", "\n".join(code)):
        if word.split("/")[0] in folders and "NAME" not in word:
            found.add(word.rstrip("."))
    return found


def resolve(path: str, document: str = "README.md") -> list[Path]:
    found = [match for root in (ROOT, PACKAGE, ROOT / "src") for match in root.glob(path)] if ".." not in path else []
    beside = (ROOT / document).parent / path
    return [*found, beside] if beside.exists() else found


@pytest.mark.parametrize("document", [*DOCUMENTS, *PAGES, "CHANGELOG.md", "model_cards/README.md"])
def test_mentioned_paths_exist(document: str) -> None:
    assert sorted(path for path in mentioned_paths(read(document)) if not resolve(path, document)) == []


def test_paths_are_seen_in_links_and_code() -> None:
    text = "[a](docs/a.png) [b](https://x.org/b.md) `models/none.py`, `models/<method>.py` `models/NAME.py` `a/b`\n"
    assert mentioned_paths(text + "```bash\nls src/x.py\n```\n") == {"docs/a.png", "models/none.py", "src/x.py"}


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", *(page for page in PAGES if "/methods/" in page)])
def test_functions_named_beside_a_file_are_in_it(document: str) -> None:
    """Rows `| `file.py` | `name`, `name` | ... |`."""
    rows = re.findall(r"^\| `([\w/]+\.py)` \| ([^|]+)\|", read(document), flags=re.MULTILINE)
    assert rows
    for path, cell in rows:
        (file,) = resolve(path)
        source = file.read_text(encoding="utf-8")
        for name in re.findall(r"`(?:\w+\.)?(\w+)`", cell):
            assert re.search(rf"\b(?:def|class) {name}\b|^{name}\b\s*[:=]", source, re.MULTILINE), f"{path}: {name}"


# What no file of the repository should hold


def text_files() -> list[Path]:
    top = [path for path in ROOT.iterdir() if path.is_file() and (path.suffix in TEXT or path.name == "Makefile")]
    folders = [ROOT / name for name in ("src", "examples", "benchmarks", "docs", "model_cards", ".ci")]
    inside = [
        path for folder in folders for path in folder.rglob("*") if path.is_file() and "_build" not in path.parts
    ]
    return sorted(top + [path for path in inside if path.suffix in TEXT or path.parent.name == ".ci"])


def test_no_file_names_a_place_on_one_machine_or_is_unfinished() -> None:
    files = text_files()
    assert {ROOT / "README.md", ROOT / "Makefile", PACKAGE / "__init__.py"} <= set(files)
    found = []
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if UNFIT.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert found == []


@pytest.mark.parametrize("line", ["see /home/me/data", "--extra-index-url x", "# TODO: later", 'open("/tmp/x")'])
def test_unfit_lines_are_seen(line: str) -> None:
    assert UNFIT.search(line)


@pytest.mark.parametrize("line", ["https://x.org/home/a", "../shared/work/a", "${HOME}/work/a", "~/tmp/a", "a/root/b"])
def test_other_lines_pass(line: str) -> None:
    assert not UNFIT.search(line)
