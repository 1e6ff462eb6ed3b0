"""Imports point one way, and importing the package is light."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hf_maskssl
from hf_maskssl.methods import BUILT_IN

PACKAGE = Path(hf_maskssl.__file__).resolve().parent
REPOSITORY = PACKAGE.parent.parent
# Each sub-package may import itself and those before it. "" is the package's own front: `__init__`,
# which makes names public and registers the methods, `recipes` and `launch`.
ORDER = [
    "models",
    "methods",
    "",
    "data",
    "preparing",
    "annotation",
    "evaluation",
    "pictures",
    "embedding",
    "training",
    "hub",
    "commands",
]
HEAVY = ["torch", "numpy", "transformers", "datasets", "sklearn", "matplotlib", "accelerate", "evaluate", "pandas"]


def sub_package(parts: tuple[str, ...]) -> str:
    if parts == ("__main__",):
        return "commands"
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
        own = ORDER.index(sub_package(parts[:-1] or parts))
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


def run_python(code: str, folder: Path, words: str = "") -> str:
    """What a new process prints that is given `words`."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=folder, input=words, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_the_package_is_light(tmp_path: Path) -> None:
    code = f"import sys, hf_maskssl\nprint([name for name in {HEAVY} if name in sys.modules])"
    assert run_python(code, tmp_path) == "[]"


AUTO_MODEL = (
    "from transformers import AutoConfig, AutoModel, AutoModelForPreTraining\n"
    "config = AutoConfig.from_pretrained('model')\n"
    "models = AutoModel.from_pretrained('model'), AutoModelForPreTraining.from_config(config)\n"
    "print(*(type(one).__name__ for one in (config, *models)))"
)


# What a new process runs -> what it prints last.
WAYS_IN = [
    (f"import hf_maskssl\n{AUTO_MODEL}", "MetaMAEConfig MetaMAEModel MetaMAEForPretraining"),
    # transformers' Auto classes are being imported here while its base class is not whole yet, or are there before.
    (
        f"import hf_maskssl\nfrom transformers import BertModel\n{AUTO_MODEL}",
        "MetaMAEConfig MetaMAEModel MetaMAEForPretraining",
    ),
    (
        f"from transformers import AutoModel\nimport hf_maskssl\n{AUTO_MODEL}",
        "MetaMAEConfig MetaMAEModel MetaMAEForPretraining",
    ),
    (
        "import hf_maskssl, pickle\nfrom transformers import CONFIG_MAPPING\n"
        "promised = pickle.loads(pickle.dumps(CONFIG_MAPPING['sma']))\n"
        "print(promised.model_type, CONFIG_MAPPING['sma'])",
        "sma <class 'hf_maskssl.models.configuration_sma.SMAConfig'>",
    ),
    (
        "import hf_maskssl\nfrom transformers import AutoFeatureExtractor, AutoImageProcessor\n"
        "series, image = AutoFeatureExtractor.from_pretrained('series'), AutoImageProcessor.from_pretrained('image')\n"
        "print(type(series).__name__, type(image).__name__)",
        "SeriesFeatureExtractor ArrayImageProcessor",
    ),
    (
        "import hf_maskssl\nprint(hf_maskssl.MetaMAEModel._auto_class, hf_maskssl.MetaMAEConfig._auto_class)",
        "AutoModel AutoConfig",
    ),
    (
        "from hf_maskssl.recipes import build_config\nfrom transformers import CONFIG_MAPPING\n"
        "print(CONFIG_MAPPING['sma'].__module__)",
        "hf_maskssl.models.configuration_sma",
    ),
]
# Runs each text of code in a fork of a process that has imported torch, the longest part of every import, and neither this
# package nor transformers.
FORKS = """
import json, os, sys, tempfile, traceback
import accelerate, sympy, torch, torch._dynamo, torch.distributed.fsdp, torch.distributed.tensor
assert not {"transformers", "hf_maskssl"} & set(sys.modules)
printed = []
for code in json.load(sys.stdin):
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            try:
                exec(code, {"__name__": "__main__"})
            except BaseException:
                print(traceback.format_exc())
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
        output.seek(0)
        printed.append(output.read().strip())
print(json.dumps(printed))
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Output of each of `WAYS_IN`."""
    folder = tmp_path_factory.mktemp("ways")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = hf_maskssl.MetaMAEConfig(modality="tokens", vocab_size=9, max_position_embeddings=8, **sizes)
    hf_maskssl.MetaMAEModel(config).save_pretrained(folder / "model")
    hf_maskssl.ArrayImageProcessor().save_pretrained(folder / "image")
    hf_maskssl.SeriesFeatureExtractor().save_pretrained(folder / "series")
    return json.loads(run_python(FORKS, folder, json.dumps([code for code, _ in WAYS_IN])).split("\n")[-1])


@pytest.mark.parametrize("way", range(len(WAYS_IN)))
def test_auto_classes_know_the_methods_after_the_bare_import(way: int, printed: list[str]) -> None:
    assert printed[way].split("\n")[-1] == WAYS_IN[way][1], printed[way]


def test_promised_configurations_are_those_of_the_methods() -> None:
    names = {method.model_type: method.config_class.__name__ for method in BUILT_IN}
    assert names == hf_maskssl._CONFIGURATIONS


@pytest.mark.parametrize("name", hf_maskssl.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(hf_maskssl, name) is not None
    assert name in dir(hf_maskssl)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'MetaMAEForDreaming'"):
        hf_maskssl.MetaMAEForDreaming  # noqa: B018
