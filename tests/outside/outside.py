"""Packages as an installer leaves them, found by their entry points."""

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples"


def install(folder: Path, package: str, entry_points: str) -> dict[str, str]:
    """Put a package of this folder and its metadata into `folder/site`; the environment of processes that have it."""
    site = folder / "site"
    shutil.copytree(HERE / package, site / package)
    metadata = site / f"{package}-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
    (metadata / "entry_points.txt").write_text(entry_points)
    path = os.pathsep.join([str(site), *sys.path])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "ACCELERATE_USE_CPU": "true"}
