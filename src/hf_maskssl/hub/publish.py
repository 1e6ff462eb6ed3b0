"""Check a checkpoint folder and put it on the Hub, in one commit."""

import json
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from ..files import JsonView, nearest_path
from ..scripts import OneLineErrors, run_script
from .card_headers import CARD
from .card_results import eval_files, with_evaluation
from .cards import complete_card
from .licences import ask_licence, check_licence, licence_of, store_licence, with_licence
from .loading import check_loading
from .published_files import Selection, check_secrets, part_folders, select_files

DRY_RUN_HELP = (
    "check and list the files, upload nothing; needs no network. As without it, the folder's own modelling code (its .py "
    "files) is run, in a process of its own: only for folders that you trust"
)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class PublicRepositoryError(ValueError):
    """A repository that should be private is there, and public."""


class UploadError(RuntimeError):
    """The upload of a sound folder failed; the message holds the command that tries it again."""


def publish(
    folder: str | Path,
    repo_id: str,
    dry_run: bool = False,
    private: bool = False,
    revision: str | None = None,
    licence: str | None = None,
    results: str | Path | None = None,
) -> str | None:
    """Check a checkpoint folder, complete its card and upload both in one commit. The folder's own code is run for that.

    The folder itself is left as it is, but for the licence, which its card keeps where it is no checkpoint of a run: that one
    would no longer count as intact.

    Args:
        folder: Folder that `save_pretrained` of model and processor wrote, with a README.md.
        repo_id: Name "organisation/name" on the Hub; made when absent.
        dry_run: Whether to check and list the files without an upload. Needs no network.
        private: Whether a repository made here is private; one that is there and public is refused.
        revision: Name of the branch that gets the commit, made when absent; None means the main one.
        licence: Name of the licence on the Hub, for the card; None leaves the card's own.
        results: Path of a result.json of `hf-maskssl probe` whose first model this is, for the card; None adds nothing.

    Returns:
        Address of the commit; None after a dry run.

    Raises:
        ValueError: The name is not one of the Hub's, files are missing, the folder does not load both ways, a file holds a
            token, or there is no such licence.
        FileNotFoundError: No such results.
        UploadError: The upload failed; the repository has the files that it had before.
    """
    folder = Path(folder)
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"the repository must be named 'organisation/name', got '{repo_id}'.")
    if licence is not None:
        check_licence(licence)
    report = None if results is None else _read_results(Path(results))
    _check_model(folder)
    card = complete_card(_filled_card(folder, licence, report), repo_id)
    selection = select_files(folder, card)
    check_secrets(selection.files)
    contents = {path.relative_to(folder).as_posix(): path for path in selection.files}
    written = {CARD: card.encode(), **{name: text.encode() for name, text in eval_files(card).items()}}
    _print_files(folder, contents, written, repo_id)
    _print_left_out(folder, selection, card)
    if dry_run:
        print("Dry run: both ways of loading agree, nothing was uploaded.")
        return None
    sources: dict[str, Path | bytes] = {**contents, **written}
    operations = [CommitOperationAdd(name, source) for name, source in sources.items()]
    if licence is not None and licence_of((folder / CARD).read_text(encoding="utf-8")) != licence:
        store_licence(folder, licence)
    given = {"--revision": revision, "--license": licence, "--results": results}
    words = [str(folder), repo_id, *(["--private"] * private)]
    words += [word for name, value in given.items() if value is not None for word in (name, str(value))]
    return _upload(folder, repo_id, private, revision, operations, words)


def _check_model(folder: Path) -> None:
    """Refuse an incomplete folder, or one that does not load both ways; or that of a part of the model."""
    check_files(folder)
    parts = part_folders(folder)
    for part in parts:
        check_files(part)
    for each in (folder, *parts):
        check_loading(each)


def _filled_card(folder: Path, licence: str | None, report: JsonView | None) -> str:
    """The folder's card with the licence and the results that the call gives."""
    card = (folder / CARD).read_text(encoding="utf-8")
    if report is not None:
        card = with_evaluation(card, report)
    return card if licence is None else with_licence(card, licence)


def _read_results(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"results {path}: no such file{nearest_path(path)}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"results {path}: not JSON: {error}") from error


def check_files(folder: Path) -> None:
    """Refuse an incomplete folder; the error names everything that is missing.

    Raises:
        ValueError: No such folder, no readable config.json, or files missing.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give the output folder of a run, or one of its checkpoints.")
    problems = []
    if not any((folder / name).is_file() for name in WEIGHTS):
        is_alone = (folder / "adapter_config.json").is_file()
        advice = ": it is an adapter alone; finetuning.merge_adapter saves a whole model" if is_alone else ""
        problems.append(f"no weights ({' or '.join(WEIGHTS)}){advice}")
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


def _print_files(folder: Path, contents: dict[str, Path], written: dict[str, bytes], repo_id: str) -> None:
    sizes = {name: path.stat().st_size for name, path in contents.items()}
    sizes |= {name: len(text) for name, text in written.items()}
    print(f"{folder} -> https://huggingface.co/{repo_id}")
    for name, size in sorted(sizes.items()):
        print(f"{size:>14,} bytes  {name}")
    print(f"{sum(sizes.values()):>14,} bytes  in {len(sizes)} files")


def _print_left_out(folder: Path, selection: Selection, card: str) -> None:
    if selection.count:
        print(f"Left out: {selection.count:,} file{'s' * (selection.count != 1)}")
    for why, names in selection.left_out.items():
        print(textwrap.fill(f"{why}: {', '.join(names)}", 80, initial_indent="  ", subsequent_indent="    "))
    notes = []
    processors = ("preprocessor_config.json", "tokenizer_config.json")
    if not part_folders(folder) and not any((folder / name).is_file() for name in processors):
        notes.append(
            "Note: the folder has no processor, so its readers must prepare inputs themselves (the card says how)."
        )
    if licence_of(card) is None:
        notes.append("Note: the card names no licence, so nobody may use the model; --license NAME adds one.")
    for note in notes:
        print(textwrap.fill(note, 80))


def _upload(
    folder: Path,
    repo_id: str,
    private: bool,
    revision: str | None,
    operations: list[CommitOperationAdd],
    words: list[str],
) -> str:
    """One commit with everything: until it is there, the repository keeps its files."""
    api = HfApi()
    done = f"{repo_id} was not touched."
    try:
        if private:
            _refuse_public(api, repo_id)
        api.create_repo(repo_id, private=private, exist_ok=True)
        done = f"{repo_id} holds what it held before: files go up first, and one commit at the end makes them the repository's."
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.create_commit(repo_id, operations, commit_message="Upload model", revision=revision)
    except PublicRepositoryError:
        raise
    # Whatever goes wrong here (network, token, rights, quota), the finished run must not be lost to it.
    except Exception as error:
        raise UploadError(
            f"the upload to {repo_id} failed: {error}\n{done}\nThe model is safe in {folder}. Try again with:\n"
            f"  hf-maskssl publish {shlex.join(words)}"
        ) from error
    print(f"Published: {commit.commit_url}")
    return str(commit.commit_url)


def _refuse_public(api: HfApi, repo_id: str) -> None:
    """Refuse a repository that is there and public: the Hub would ignore that it should be private.

    Raises:
        PublicRepositoryError: It is.
    """
    try:
        is_public = api.model_info(repo_id).private is False
    except RepositoryNotFoundError:
        return
    if is_public:
        raise PublicRepositoryError(
            f"--private: {repo_id} is there already, and public: make it private in its settings first, or leave --private out."
        )


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
    parser.add_argument(
        "--revision", metavar="BRANCH", help="branch that gets the commit, made when absent (default: main)"
    )
    parser.add_argument(
        "--license",
        dest="licence",
        metavar="NAME",
        help="licence of the weights, such as apache-2.0, for the card; a terminal is asked where the card names none",
    )
    parser.add_argument("--results", type=Path, metavar="PATH", help="result.json of `hf-maskssl probe`, for the card")
    options = parser.parse_args(argv)
    if options.licence is None and not options.dry_run and sys.stdin.isatty() and sys.stdout.isatty():
        path = options.folder / CARD
        if path.is_file() and licence_of(path.read_text(encoding="utf-8")) is None:
            options.licence = ask_licence()
    publish(**vars(options))


if __name__ == "__main__":
    run_script(main)
