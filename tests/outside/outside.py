"""Packages as an installer leaves them, found by their entry points."""

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples"
# Pre-training, resuming, publishing and probing, in one process; further lines may follow.
WALK = """
import runpy, sys
from pathlib import Path
import hf_maskssl, hf_maskssl.hub.publish

def run(*words):
    sys.argv = list(words)
    runpy.run_path(words[0], run_name="__main__")

examples = Path(sys.argv[1])
run(str(examples / "run_pretrain.py"), "recipe.yaml")
run(str(examples / "run_pretrain.py"), "recipe.yaml", "--max_steps", "12", "--resume", "true")
hf_maskssl.hub.publish.main(["run", "org/toy", "--dry_run"])
run(str(examples / "run_linear_probe.py"), "run", "recipe.yaml", "--output", "probe")
"""


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
