"""Fetch the tests that transformers has of all its models, in the version that is installed: they are in no wheel.

`python tests/conformance/fetch.py` downloads transformers' source distribution and unpacks its tests into build/, which git
ignores. Where they are already, it does nothing.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = f"transformers-{transformers.__version__}"
SOURCE = REPOSITORY / "build" / NAME


def main() -> None:
    if (SOURCE / "tests" / "test_modeling_common.py").exists():
        print(f"{SOURCE} is there.")
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "transformers"]
        subprocess.run([*command, "--dest", folder, f"transformers=={transformers.__version__}"], check=True)
        with tarfile.open(Path(folder) / f"{NAME}.tar.gz") as archive:
            wanted = [member for member in archive.getmembers() if member.name.startswith(f"{NAME}/tests/")]
            archive.extractall(SOURCE.parent, wanted, filter="data")
    print(f"{len(wanted)} files of tests in {SOURCE}.")


if __name__ == "__main__":
    main()
