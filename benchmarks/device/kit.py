"""The device kit: what a GPU machine without network lacks, packed here, checked and unpacked there.

    python benchmarks/device/kit.py make [--folder .device-kit] [--shared FOLDER]
    python benchmarks/device/kit.py check [--folder .device-kit]
    python benchmarks/device/kit.py unpack TARGET [--folder .device-kit]

`make` fills the folder with wheels.tar.xz (the packages of `WHEELS` in the versions of constraints.txt, for CPython 3.12 on
x86-64 Linux, without torch and what else such a machine has), data/ and golden/ (the files of `DATA` and `GOLDEN`, laid out
as in HF_MASKSSL_SHARED), claims/ (what the claims want cut beforehand: RDKit, which splits molecules by scaffold, stays here)
and manifest.json with the commit and every digest. `check` says what is missing, damaged, or older than the code. `unpack`
installs the wheels into TARGET with pip, without an index.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".device-kit"
CONSTRAINTS = ROOT / "constraints.txt"
MANIFEST, PACKED_WHEELS = "manifest.json", "wheels.tar.xz"
LARGEST_KIT = 50 * 2**20  # bytes
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
# What such a machine lacks, or has in a version other than ours. hf-xet, which huggingface-hub names, only serves the network.
WHEELS = (
    "accelerate",
    "datasets",
    "dill",
    "evaluate",
    "httpcore2",
    "httpx2",
    "huggingface-hub",
    "multiprocess",
    "tokenizers",
    "transformers",
    "truststore",
)
# Folders and files of the small real sets that the claims read.
DATA = (
    "clothing64",
    "higgs_small",
    "moleculenet",
    "proteins/fluorescence",
    "proteins/protein_corpus",
    "proteins/secondary_structure",
    "smiles_corpus",
    "spoken_digits",
    "text/bert_uncased_vocab.txt",
    "text/brown",
    "text/cola",
    "text/sst2",
    "timeseries",
)
GOLDEN = ("metamae_image", "metamae_token", "multimae_losses", "multimae_pretrain", "sma_masking", "sma_self")
CLAIM_SLICES = "claims"  # what HF_MASKSSL_CLAIMS_DATA names
# A kit of other versions of these is older than the code.
DECISIVE = (CONSTRAINTS, Path(__file__).resolve())


class KitError(Exception):
    """The kit cannot be made, or not be used; the message says what to do."""


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def code_digest() -> str:
    """SHA-256 over the names and contents of the Python files that runs execute."""
    total = hashlib.sha256()
    for path in sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]):
        total.update(f"{path.relative_to(ROOT)} {digest(path)}\n".encode())
    return total.hexdigest()


def pinned_versions(names: Sequence[str], python: str = PYTHON) -> dict[str, str]:
    """Name -> version that constraints.txt asks for on the machine's Python."""
    from packaging.requirements import Requirement

    environment = {"python_version": python, "python_full_version": f"{python}.3"}
    found = {}
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            found[requirement.name] = str(requirement.specifier).removeprefix("==")
    if absent := [name for name in names if name not in found]:
        raise KitError(f"constraints.txt has no version of {', '.join(absent)} for Python {python}: add it there")
    return {name: found[name] for name in names}


# ---- here: making it


def make(folder: Path, shared: Path, python: str = PYTHON) -> dict[str, Any]:
    """Fill the folder; wheels that are there in the right versions are kept. Returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    before = read_manifest(folder) if (folder / MANIFEST).is_file() else {}
    (folder / MANIFEST).unlink(missing_ok=True)  # until all of it is there, it is no kit
    versions = pinned_versions(WHEELS, python)
    packed = folder / PACKED_WHEELS
    is_packed = packed.is_file() and before.get("files", {}).get(PACKED_WHEELS) == digest(packed)
    if not is_packed or (before.get("wheels"), before.get("python")) != (versions, python):
        pack_wheels(versions, packed, python)
    for name in ("data", "golden"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in DATA:
        copy(shared / "data" / name, folder / "data" / name)
    for name in GOLDEN:
        for ending in ("json", "safetensors"):
            copy(shared / "golden" / f"{name}.{ending}", folder / "golden" / f"{name}.{ending}")
    os.environ["HF_MASKSSL_SHARED"] = str(shared)
    write_claim_slices(folder / CLAIM_SLICES)
    files = {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    size = sum((folder / name).stat().st_size for name in files)
    if size > LARGEST_KIT:
        raise KitError(f"{folder} holds {size / 2**20:.1f} MiB, more than {LARGEST_KIT / 2**20:.0f}: shorten DATA")
    manifest = {
        "commit": commit(),
        "code": code_digest(),
        "decisive": {str(path.relative_to(ROOT)): digest(path) for path in DECISIVE},
        "python": python,
        "wheels": versions,
        "bytes": size,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def commit() -> str:
    """The commit of the working tree, "+changes" where files differ from it; "unknown" outside of a repository."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        changes = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+changes" if changes.stdout.strip() else "")


def pack_wheels(versions: dict[str, str], packed: Path, python: str) -> None:
    """Download the wheels and put them, not compressed one by one, into one archive: a third of their size."""
    with tempfile.TemporaryDirectory() as name:
        raw, stored = Path(name) / "raw", Path(name) / "stored"
        stored.mkdir()
        platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *platforms]
        command += ["--python-version", python, "--implementation", "cp", "--dest", str(raw)]
        command += [f"{package}=={version}" for package, version in versions.items()]
        finished = subprocess.run(command, capture_output=True, text=True)
        if finished.returncode:
            errors = [line for line in finished.stderr.splitlines() if line.startswith("ERROR")]
            raise KitError(f"pip could not download the wheels: {' '.join(errors) or finished.stderr[-500:]}")
        for wheel in sorted(raw.glob("*.whl")):
            with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(stored / wheel.name, "w") as target:
                for entry in source.infolist():
                    target.writestr(entry.filename, source.read(entry))
        aside = packed.with_suffix(".partial")
        with tarfile.open(aside, "w:xz") as archive:
            for wheel in sorted(stored.iterdir()):
                archive.add(wheel, wheel.name, filter=without_owner)
        aside.replace(packed)


def without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = 0
    return entry


def copy(source: Path, target: Path) -> None:
    if not source.exists():
        raise KitError(f"{source} is not there: name the folder of the small real sets with --shared")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.md"))
    else:
        shutil.copyfile(source, target)


def write_claim_slices(folder: Path) -> None:
    """What the claims want cut beforehand, because RDKit is not there."""
    import datasets

    sys.path.insert(0, str(ROOT / "benchmarks"))
    from evidence.slices import write_slices

    datasets.disable_progress_bars()
    shutil.rmtree(folder, ignore_errors=True)
    if absent := write_slices(folder):
        raise KitError(
            f"{', '.join(absent)} of the claims' data could not be cut: name the small real sets with --shared"
        )


# ---- there: using it


def read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise KitError(f"{folder} holds no {MANIFEST}: make the kit with `make device-kit`") from None
    except ValueError as error:
        raise KitError(
            f"{folder / MANIFEST} cannot be read ({error}): make the kit again with `make device-kit`"
        ) from None
    if not isinstance(manifest, dict):
        raise KitError(f"{folder / MANIFEST} holds no object: make the kit again with `make device-kit`")
    return manifest


def find_problems(folder: Path) -> list[str]:
    """What is wrong with a kit, each in a sentence; nothing when it can be used.

    Raises:
        KitError: There is no kit.
    """
    manifest = read_manifest(folder)
    problems = []
    for name, expected in manifest.get("decisive", {}).items():
        path = ROOT / name
        if not path.is_file():
            problems.append(f"the kit was made with {name}, which is not here")
        elif digest(path) != expected:
            problems.append(
                f"the kit is older than the code: {name} has changed since commit {manifest.get('commit')}"
            )
    files = manifest.get("files", {})
    if not files:
        problems.append(f"{MANIFEST} names no files")
    for name, expected in files.items():
        if not (folder / name).is_file():
            problems.append(f"{name} is missing")
        elif digest(folder / name) != expected:
            problems.append(f"{name} is damaged: its digest is not the manifest's")
    return problems


def code_commit(manifest: dict[str, Any]) -> str:
    """The commit of the code here, which may have come without its repository."""
    here = commit()
    if here != "unknown":
        return here
    return str(manifest.get("commit")) + ("" if manifest.get("code") == code_digest() else "+changes")


def unpack(folder: Path, target: Path) -> None:
    """Install the wheels into `target`; neither an index nor the packages that they need are asked for."""
    with tempfile.TemporaryDirectory() as name:
        with tarfile.open(folder / PACKED_WHEELS) as archive:
            archive.extractall(name, filter="data")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
        command += [
            "--disable-pip-version-check",
            "--no-cache-dir",
            "--root-user-action=ignore",
            "--target",
            str(target),
        ]
        finished = subprocess.run(
            [*command, *map(str, sorted(Path(name).glob("*.whl")))], capture_output=True, text=True
        )
    if finished.returncode:
        raise KitError(f"pip could not install the wheels: {finished.stderr[-1000:]}")


def unmet_requirements(target: Path) -> list[str]:
    """What the unpacked packages ask for and this Python has not, or in another version; it may still work."""
    from packaging.requirements import Requirement

    unmet = []
    with first_on_path(target):
        for package in metadata.distributions(path=[str(target)]):
            for text in package.requires or []:
                requirement = Requirement(text)
                if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                    continue
                try:
                    version = metadata.version(requirement.name)
                except metadata.PackageNotFoundError:
                    unmet.append(f"{package.name} needs {requirement.name}{requirement.specifier}: not installed")
                    continue
                if not requirement.specifier.contains(version, prereleases=True):
                    unmet.append(f"{package.name} needs {requirement.name}{requirement.specifier}: found {version}")
    return unmet


@contextlib.contextmanager
def first_on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["make", "check", "unpack", "commit"])
    parser.add_argument("target", type=Path, nargs="?", help="of unpack: the folder to install into")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the kit")
    parser.add_argument("--shared", type=Path, default=os.environ.get("HF_MASKSSL_SHARED", ROOT.parent / "shared"))
    parser.add_argument("--python", default=PYTHON, help="of the machine that the kit is for; default: %(default)s")
    options = parser.parse_args()
    if (options.action == "unpack") != (options.target is not None):
        parser.error("unpack, and nothing else, takes a target folder")
    try:
        run(options)
    except KitError as error:
        raise SystemExit(f"device kit: {error}.") from error


def run(options: argparse.Namespace) -> None:
    if options.action == "make":
        manifest = make(options.folder.resolve(), Path(options.shared).resolve(), options.python)
        size = manifest["bytes"] / 2**20
        print(f"{options.folder}: {size:.1f} MiB, {len(manifest['files'])} files, commit {manifest['commit']}")
    elif options.action == "check":
        if problems := find_problems(options.folder):
            raise KitError("; ".join(problems) + ": make the kit again with `make device-kit`")
        print(f"device kit: sound, made at commit {read_manifest(options.folder)['commit']}")
    elif options.action == "commit":
        print(code_commit(read_manifest(options.folder)))
    else:
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        if (meant := read_manifest(options.folder).get("python")) != here:
            raise KitError(
                f"made for Python {meant}, this is {here}: make it again with `kit.py make --python {here}`"
            )
        unpack(options.folder, options.target)
        for sentence in unmet_requirements(options.target):
            print(f"device kit: {sentence}")


if __name__ == "__main__":
    main()
