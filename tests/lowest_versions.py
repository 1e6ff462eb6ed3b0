"""Installs the lowest versions that pyproject.toml promises into an environment of its own and runs tests there: `make lowest`.

    python tests/lowest_versions.py .venv-lowest [--torch_of .venv] [test files ...]

torch alone is not the lowest: its builds are hundreds of megabytes, with CUDA gigabytes. It is that of constraints.txt, or, with
--torch_of, the one that another environment of the same Python has, by links. What the pinned packages need themselves is the
newest that fits, as a user of today would get it.
"""

import argparse
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# At least one for every library that has a floor.
TESTS = ["data/test_sources.py", "data/test_scenes.py", "data/test_multimodal_folder.py", "data/test_preparation.py"]
TESTS += ["data/test_texts.py", "data/test_tokenizers.py", "data/test_pos_tagging.py", "training/test_loop.py"]
TESTS += [
    "training/test_resume.py",
    "training/test_finetuning.py",
    "evaluation/test_probe.py",
    "evaluation/test_metrics.py",
]
TESTS += ["evaluation/test_evaluate_checkpoint.py", "evaluation/test_pictures.py", "models/test_metamae_model.py"]
TESTS += ["models/test_processors.py", "hub/test_cards.py", "hub/test_publish.py", "test_imports.py"]
NOT_LOWERED = ("torch",)
UNPINNED = ("tensorboard", "rdkit", "pytest", "hypothesis")


def lowest_versions(pyproject: str) -> dict[str, str]:
    """Name of each package -> its floor, of `"name>=floor"` and `"name>=floor,<ceiling"`."""
    pairs = re.findall(r'"([A-Za-z][\w-]*)>=([0-9][0-9.]*)[",]', pyproject)
    return {name: floor for name, floor in pairs if name not in ("setuptools", *NOT_LOWERED)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="environment, made where it is absent")
    parser.add_argument("--torch_of", type=Path, help="environment whose torch is linked")
    parser.add_argument("tests", nargs="*", help="test files; default: one or more for every library")
    options = parser.parse_intermixed_args()
    python = options.folder / "bin" / "python"
    if not python.exists():
        venv.create(options.folder, with_pip=True)
    if options.torch_of is not None:
        link_torch(options.torch_of, options.folder)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    torch = re.search(r"^torch==\S+", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    floors = lowest_versions((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pins = [f"{name}=={floor}" for name, floor in floors.items()]
    print(" ".join(pins), flush=True)
    subprocess.run([*pip, *([torch[0]] if torch else []), *pins, *UNPINNED], check=True)
    subprocess.run([*pip, "--no-deps", "--editable", ROOT], check=True)
    tests = options.tests or [str(ROOT / "tests" / name) for name in TESTS]
    return subprocess.run([python, "-m", "pytest", *tests], cwd=ROOT).returncode


def link_torch(source: Path, target: Path) -> None:
    """Make the torch of one environment importable, and known to pip, in another of the same Python."""
    packages = next((source / "lib").glob("python*/site-packages"))
    for path in [*packages.glob("torch"), *packages.glob("torch-*.dist-info"), *packages.glob("torchgen")]:
        link = next((target / "lib").glob("python*/site-packages")) / path.name
        if not link.exists():
            link.symlink_to(path.resolve())


if __name__ == "__main__":
    sys.exit(main())
