"""Checkpoint folders onto the Hub: `python -m hf_maskssl.hub.publish FOLDER org/name [--dry_run] [--private]`."""

import fnmatch
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import validate_repo_id

from ..scripts import OneLineErrors, run_script
from .cards import CARD, complete_card
from .loading import check_loading

# Only the files that a reader of the model needs are uploaded: the folder may also hold checkpoints, optimiser states and logs.
PUBLISHED = (
    CARD,
    "LICENSE*",
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "*.py",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab.*",
    "merges.txt",
    "*.model",
)
DRY_RUN_HELP = (
    "check and list the files, upload nothing; needs no network. As without it, the folder's own modelling code (its .py "
    "files) is run, in a process of its own: only for folders that you trust"
)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class UploadError(RuntimeError):
    """The upload of a sound folder failed; the message holds the command that tries it again."""


def publish(folder: str | Path, repo_id: str, dry_run: bool = False, private: bool = False) -> str | None:
    """Check a checkpoint folder, complete its card and upload both in one commit. The folder's own code is run for that.

    The folder itself is left as it is: a training checkpoint whose files change would no longer count as intact.

    Args:
        folder: Folder that `save_pretrained` of model and processor wrote, with a README.md.
        repo_id: Name "organisation/name" on the Hub; made when absent.
        dry_run: Whether to check and list the files without an upload. Needs no network.
        private: Whether a repository made here is private.

    Returns:
        Address of the commit; None after a dry run.

    Raises:
        ValueError: The name is not one of the Hub's, files are missing, or the folder does not load both ways.
        UploadError: The upload failed.
    """
    folder = Path(folder)
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"the repository must be named 'organisation/name', got '{repo_id}'.")
    check_files(folder)
    check_loading(folder)
    card = complete_card((folder / CARD).read_text(encoding="utf-8"), repo_id)
    files = select_files(folder, card)
    _print_files(folder, files, repo_id, card)
    if dry_run:
        print("Dry run: both ways of loading agree, nothing was uploaded.")
        return None
    operations = [CommitOperationAdd(path.name, card.encode() if path.name == CARD else path) for path in files]
    return _upload(folder, repo_id, private, operations)


def select_files(folder: Path, card: str) -> list[Path]:
    """The files of the folder that are published, and the pictures its card shows; never those of its sub-folders."""
    pictures = set(re.findall(r"!\[[^\]]*\]\(([^)/]+)\)", card))
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and (path.name in pictures or any(fnmatch.fnmatchcase(path.name, pattern) for pattern in PUBLISHED))
    ]


def check_files(folder: Path) -> None:
    """Refuse an incomplete folder; the error names everything that is missing.

    Raises:
        ValueError: No such folder, no readable config.json, or files missing.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give the output folder of a run, or one of its checkpoints.")
    problems = []
    if not any((folder / name).is_file() for name in WEIGHTS):
        problems.append(f"no weights ({' or '.join(WEIGHTS)})")
    if not (folder / CARD).is_file():
        problems.append(f"no card ({CARD}): write one with hf_maskssl.hub.cards")
    config = _read_json(folder / "config.json", problems)
    code = set(config.get("auto_map", {}).values())
    if config and not code:
        problems.append("no `auto_map` in config.json: save the model with hf_maskssl imported, so that code travels")
    elif config and "AutoModel" not in config["auto_map"]:
        problems.append(
            "no `AutoModel` in the `auto_map` of config.json: let the configuration class set it (CONTRIBUTING.md)"
        )
    if (folder / "preprocessor_config.json").is_file():
        code |= set(_read_json(folder / "preprocessor_config.json", problems).get("auto_map", {}).values())
    for name in sorted({f"{reference.rpartition('--')[2].partition('.')[0]}.py" for reference in code}):
        if not (folder / name).is_file():
            problems.append(f"no {name}, the code that an `auto_map` names")
    if problems:
        raise ValueError(f"{folder} cannot be published:" + "".join(f"\n- {problem}" for problem in problems))


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"no {path.name}")
    except ValueError as error:
        problems.append(f"{path.name} is damaged: {error}")
    return {}


def _print_files(folder: Path, files: list[Path], repo_id: str, card: str) -> None:
    sizes = [len(card.encode()) if path.name == CARD else path.stat().st_size for path in files]
    print(f"{folder} -> https://huggingface.co/{repo_id}")
    for path, size in zip(files, sizes, strict=True):
        print(f"{size:>14,} bytes  {path.name}")
    print(f"{sum(sizes):>14,} bytes  in {len(files)} files")
    left_out = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if path not in files)
    if left_out:
        print(f"Left out: {', '.join(left_out)}")
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "tokenizer_config.json")):
        print("Note: the folder has no processor, so its readers must prepare inputs themselves (the card says how).")
    if "\nlicense:" not in card.partition("\n---\n")[0]:
        print(f"Note: {CARD} names no licence; add `license: ...` to its header if others may use the model.")


def _upload(folder: Path, repo_id: str, private: bool, operations: list[CommitOperationAdd]) -> str:
    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.create_commit(repo_id, operations, commit_message="Upload model")
    # Whatever goes wrong here (network, token, rights, quota), the finished run must not be lost to it.
    except Exception as error:
        words = ["python", "-m", "hf_maskssl.hub.publish", str(folder), repo_id, *(["--private"] if private else [])]
        raise UploadError(
            f"the upload to {repo_id} failed: {error}\n"
            f"The model is safe in {folder}. Try again with:\n  {shlex.join(words)}"
        ) from error
    print(f"Published: {commit.commit_url}")
    return str(commit.commit_url)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line.

    Raises:
        ValueError: The folder is not fit to be published.
        UploadError: The upload failed.
    """
    parser = OneLineErrors(description=__doc__)
    parser.add_argument("folder", type=Path, help="output folder of a run, or one of its checkpoints")
    parser.add_argument("repo_id", help="organisation/name on the Hub")
    parser.add_argument("--dry_run", action="store_true", help=DRY_RUN_HELP)
    parser.add_argument("--private", action="store_true", help="make a private repository")
    publish(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_script(main)
