"""docs/papers.md: every row says whether it is here, and every command of it exists and parses."""

import re
import shlex

import pytest

from hf_maskssl.methods import papers
from hf_maskssl.preparing.catalogue import DATA_SETS
from hf_maskssl.recipes import recipe_names
from hf_maskssl.training import load_pretraining_recipe
from hf_maskssl.training.finetuning.arguments import load_finetuning_recipe
from hf_maskssl.training.sweeps.sweep_file import sweep_names
from test_docs import ROOT, read
from test_pages import mistakes

PAGE = "docs/papers.md"
HEADS = ("in the paper", "beyond the papers")
# Recipes of no table of a paper: small data, a user's own, and MultiMAE with a modality more.
OF_NO_TABLE = re.compile(
    r"own_data|small|shared|brown|pydoc|corpus|clothing|digits|scenes|vowels|motions|add_modality"
)


def rows() -> list[tuple[str, str, str]]:
    """(what, whether it is here, command) of each row of the page."""
    found = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", read(PAGE), flags=re.MULTILINE)
    return [row for row in found if row[0] not in HEADS and not row[0].startswith("---")]


def commands_of(cell: str) -> list[list[str]]:
    """The words of each command in a cell, the verb or the script first."""
    spans = re.findall(r"`((?:hf-maskssl|python) [^`]+)`", cell)
    return [shlex.split(span)[1:] for span in spans]


ROWS = rows()


def test_the_page_has_the_four_papers() -> None:
    assert len(ROWS) > 60
    found = re.findall(r"\(https://arxiv\.org/abs/([\d.]+)\)", read(PAGE))
    assert found == ["2310.16318", "2402.14789", "2204.01678", "2306.12070"]
    cited = (papers.METAMAE_BIBTEX, papers.SMA_BIBTEX, papers.MULTIMAE_BIBTEX, papers.MINIMAX_BIBTEX)
    assert all(number in entry for number, entry in zip(found, cited, strict=True))


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:50] for row in ROWS])
def test_a_row_says_how(row: tuple[str, str, str]) -> None:
    what, status, cell = row
    assert status == "Y" or status.startswith(("partly: ", "quoted")), f"{what}: {status}"
    commands = commands_of(cell)
    assert commands or status != "Y", f"{what}: Y without a command"
    for words in commands:
        if words[0].endswith(".py"):
            assert (ROOT / words[0]).is_file(), words
            continue
        assert mistakes(words) == []
        verb, *rest = words
        if verb == "pretrain":
            load_pretraining_recipe(rest[0], rest[1:])
        elif verb in ("finetune", "segment", "depth"):
            load_finetuning_recipe(rest[0], rest[1:])
        elif verb == "data" and rest[0] == "prepare":
            assert rest[2] == ("--download" if DATA_SETS[rest[1]].downloads else "--raw"), f"{rest[1]}: another option"


def test_every_sweep_data_set_and_recipe_of_a_table_has_its_row() -> None:
    words = {word for _, _, cell in ROWS for command in commands_of(cell) for word in command}
    assert set(sweep_names()) - words == set()
    assert set(DATA_SETS) - words == set()
    named = read(PAGE)
    recipes = [name for name in recipe_names() if not OF_NO_TABLE.search(name)]
    assert [name for name in recipes if name not in named] == []
