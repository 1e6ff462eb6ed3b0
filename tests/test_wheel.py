"""The built wheel alone, in an environment of its own and an empty folder: from data to features, a map and an export."""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_wine

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
MINUTES = "0.3"
FIVE_MINUTES = 300
# With the sources on the path, pip takes the package for installed.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_MASKSSL_SHARED")}


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`hf-maskssl` as the wheel installs it; what the wheel needs comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: setuptools writes beside what it builds.
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )
    for name in filter(None, listed):
        if (ROOT / name).exists() and name.startswith(("src/", "examples/", "pyproject.toml", "README.md", "LICENSE")):
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name, follow_symlinks=False)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder), str(folder / "source")]
    subprocess.run([*pip, *build], check=True, env=ENVIRONMENT)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "environment")], check=True)
    python = folder / "environment" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    install = [*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, env=ENVIRONMENT)
    installed = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "environment")}))
    # A line of a .pth file is a folder whose own .pth files are not read, such as that of an editable install.
    (installed / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "environment" / "bin" / "hf-maskssl"


def write_table(folder: Path) -> str:
    wine = load_wine(as_frame=True)
    frame = wine.frame.drop(columns="target").assign(cultivar=[wine.target_names[one] for one in wine.target])
    frame.to_csv(folder / "wine.csv", index=False)
    return "wine.csv"


def write_pictures(folder: Path) -> str:
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:200], digits.target[:200], strict=True)):
        path = folder / "digits_png" / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(path)
    return "digits_png"


def write_texts(folder: Path) -> str:
    words = np.random.default_rng(0).choice("the a red green old house tree river near of".split(), (300, 8))
    (folder / "texts.txt").write_text("\n".join(" ".join(line) for line in words) + "\n")
    return "texts.txt"


@pytest.mark.parametrize("write", [write_table, write_pictures, write_texts])
def test_from_a_file_to_features(write: object, command: Path, tmp_path: Path) -> None:
    data = write(tmp_path)  # type: ignore[operator]
    environment = ENVIRONMENT | {"HF_HOME": str(tmp_path / "cache"), "COLUMNS": "80"}
    started = time.perf_counter()
    name = data.partition(".")[0]

    def run(*words: str) -> str:
        result = subprocess.run([command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        # The log on stderr is broken in a terminal alone, as docs/transcripts show.
        assert [line for line in result.stdout.splitlines() if len(line) > 80] == []
        return result.stdout

    run("pretrain", data, "--minutes", MINUTES)
    run("embed", f"outputs/{name}", data, "--output", "features.parquet")
    run("map", "features.parquet", "--output", "map.png", "map.html")
    run("export", f"outputs/{name}", "--output", "onnx")
    assert (tmp_path / "features.parquet").is_file() and (tmp_path / "map.html").is_file()
    assert list((tmp_path / "onnx").glob("*.onnx"))
    assert time.perf_counter() - started < FIVE_MINUTES


def test_the_wheel_holds_the_recipes(command: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [command, "recipes"], cwd=tmp_path, capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    assert "  digits " in result.stdout
