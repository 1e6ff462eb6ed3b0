"""Headers by which `uv run` runs an example without an install (PEP 723): they ask for what pyproject.toml offers."""

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("run_pretrain", "run_linear_probe", "run_finetune")
HEADER = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")  # the regex of PEP 723


@pytest.mark.parametrize("name", SCRIPTS)
def test_header_asks_for_this_package_and_the_extras_of_its_use(name: str) -> None:
    source = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    (match,) = HEADER.finditer(source)
    assert match["type"] == "script" and match.start() == 0
    header = tomllib.loads("".join(line[2:] or "\n" for line in match["content"].splitlines(keepends=True)))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert header["requires-python"] == project["requires-python"]
    (requirement,) = map(Requirement, header["dependencies"])
    assert requirement.name == project["name"] and not requirement.specifier
    assert {"train", "text"} <= requirement.extras <= project["optional-dependencies"].keys()
    assert f"uv run examples/{name}.py" in source and f"examples/{name}.py" in source.split("hf jobs uv run", 1)[1]
