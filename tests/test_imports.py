"""Imports point one way, and importing the package is light."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hf_maskssl

PACKAGE = Path(hf_maskssl.__file__).resolve().parent
REPOSITORY = PACKAGE.parent.parent
# Each sub-package may import itself and those before it. "" is the package's own front: `__init__`,
# which makes names public and registers the methods, `recipes` and `launch`.
ORDER = ["models", "methods", "", "data", "annotation", "evaluation", "pictures", "training", "hub"]
HEAVY = ["datasets", "sklearn", "matplotlib", "accelerate", "evaluate", "pandas"]


def sub_package(parts: tuple[str, ...]) -> str:
    return parts[0] if parts and parts[0] in ORDER else ""


def imported_modules(path: Path, parts: tuple[str, ...]) -> list[tuple[int, tuple[str, ...]]]:
    """(line, module path inside the package) of everything of the package that a file imports, anywhere in it."""
    found: list[tuple[int, tuple[str, ...]]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # `from hf_maskssl import training` names a sub-package as well.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level]
            module = tuple(node.module.split(".")) if node.module else ()
            found += [(node.lineno, (*base, *module, alias.name)) for alias in node.names]
        own = [name for name in names if name.split(".")[0] == "hf_maskssl"]
        found += [(getattr(node, "lineno", 0), tuple(name.split(".")[1:])) for name in own]
    return found


def backward_imports(root: Path) -> list[str]:
    problems = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        own = ORDER.index(sub_package(parts[:-1]))
        for line, module in imported_modules(path, parts):
            if ORDER.index(sub_package(module)) > own:
                problems.append(f"{path.relative_to(root)}:{line} imports {'.'.join(module)}")
    return problems


def test_imports_point_one_way() -> None:
    assert backward_imports(PACKAGE) == []


def test_every_sub_package_has_its_place() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(ORDER) - {""}


@pytest.mark.parametrize(
    "line",
    [
        "from ..training.pretraining.loop import pretrain",
        "from ..hub import cards",
        "import hf_maskssl.hub.cards",
        "from hf_maskssl.evaluation import probe",
        "from hf_maskssl import training",
        "def late() -> None:\n    from ..evaluation.probe import linear_probe",
    ],
)
def test_a_backward_import_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.py").write_text(f"from ..models.layers import patchify\n{line}\n")
    problems = backward_imports(tmp_path)
    assert len(problems) == 1 and problems[0].startswith("data/rows.py:")


def test_nothing_imports_examples_tests_or_benchmarks() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert not {name.split(".")[0] for name in names} & {"examples", "tests", "benchmarks"}, path


def test_importing_the_package_is_light_and_registers_its_models() -> None:
    # accelerate, where it is installed, comes with transformers' own base class: that is not our doing.
    code = (
        "import sys\nfrom transformers import PreTrainedModel\n"
        "before = set(sys.modules)\nimport hf_maskssl\n"
        f"print([name for name in {HEAVY} if name in sys.modules and name not in before])\n"
        "from transformers import AutoConfig\n"
        "print(AutoConfig.for_model('metamae').model_type)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[:2] == ["[]", "metamae"]


@pytest.mark.parametrize("name", hf_maskssl.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(hf_maskssl, name) is not None
    assert name in dir(hf_maskssl)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'MetaMAEForDreaming'"):
        hf_maskssl.MetaMAEForDreaming  # noqa: B018
