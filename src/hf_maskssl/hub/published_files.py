"""The files of a checkpoint folder that are published, and why the others are not."""

import fnmatch
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .card_headers import CARD

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
    "*.onnx",
    "*.onnx.data",
    "onnx/*",
)
FOLDERS = ("onnx",)  # sub-folders whose files may be published
# Files of a run, which only the run itself reads.
RUN_FILES: tuple[str, ...] = (
    "checkpoint-*",
    "training_state",
    "optimizer*",
    "scheduler*",
    "random_states*",
    "*.pkl",
    "*.pt",
    "*.bin",
)
RUN_FILES += ("trainer_state.json", "manifest.json", "data_report.json", "*.incomplete", "logs", "pictures", "runs")
SECRET_NAMES = ("*.pem", "*.key", "id_rsa*", "*credential*", "*secret*", "token", "token.*", "*_token", "*_token.*")
# Texts that give access to something: tokens of the Hub, of GitHub, of AWS, of OpenAI, private keys.
SECRETS = re.compile(
    rb"\bhf_[A-Za-z0-9]{30,}|\bgh[pousr]_[A-Za-z0-9]{30,}|\bAKIA[0-9A-Z]{16}\b|\bsk-[A-Za-z0-9_-]{32,}"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
SEARCHED = (".md", ".py", ".json", ".txt", "")  # endings of files that are searched for secrets
NOT_SEARCHED = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")  # any text may be a piece of a vocabulary
LARGEST_OTHER = 50_000_000  # bytes of a file that holds no weights
WEIGHTS_ENDINGS = (".safetensors", ".onnx", ".data", ".model")
# Kind of file that is not published, as it is printed.
HIDDEN, SECRET, TOO_BIG, OF_THE_RUN, OTHER = "hidden", "secret", "too big", "of the run alone", "not of the model"


@dataclass
class Selection:
    """What is published of a folder, and what is not.

    Attributes:
        files: Paths of the files that are published, in order.
        left_out: Kind of file -> names of those of the folder that are not; a folder's name ends with a slash.
        count: Number of files that are not published, those in folders included.
    """

    files: list[Path] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    count: int = 0

    def leave_out(self, path: Path, why: str) -> None:
        """Note a file or a folder that is not published."""
        self.left_out.setdefault(why, []).append(path.name + "/" * path.is_dir())
        self.count += sum(each.is_file() for each in path.rglob("*")) if path.is_dir() else 1


def select_files(folder: Path, card: str) -> Selection:
    """Sort the files of a folder, with the pictures its card shows, into what is published and what is not."""
    pictures = set(re.findall(r"!\[[^\]]*\]\(([^)/]+)\)", card))
    selection = Selection()
    parts = part_folders(folder)
    for path in _candidates(folder, parts):
        # The card of the whole says how to use its parts; theirs name no repository.
        is_of_part = path.parent in parts and path.name != CARD
        name = path.name if is_of_part else path.relative_to(folder).as_posix()
        why = _why_not(path, name, set() if is_of_part else pictures)
        if why is None:
            selection.files.append(path)
        else:
            selection.leave_out(path, why)
    return selection


def check_secrets(files: list[Path]) -> None:
    """Refuse to publish a text that holds a token or a private key.

    Raises:
        ValueError: A file holds one; the error says where, but not what.
    """
    found = []
    for path in files:
        if path.suffix in SEARCHED and path.name not in NOT_SEARCHED:
            match = SECRETS.search(content := path.read_bytes())
            if match is not None:
                line = content.count(b"\n", 0, match.start()) + 1
                found.append(f"{path.name}, line {line}, which begins with {match[0][:4].decode()!r}")
    if found:
        raise ValueError(
            f"a token or a private key would be published: {'; '.join(found)}. Take it out of the file, and revoke it if "
            "the file was ever shared."
        )


def part_folders(folder: Path) -> list[Path]:
    """The folders of the parts of a model of several kinds of data; none of other models."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return [folder / name for name in sorted(config.get("parts") or {}) if (folder / name).is_dir()]


def _candidates(folder: Path, parts: list[Path]) -> Iterator[Path]:
    """The files and folders at the top, and in place of folders that may be published what they hold."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (path.name in FOLDERS or path in parts):
            yield from sorted(path.iterdir())
        else:
            yield path


def _why_not(path: Path, name: str, pictures: set[str]) -> str | None:
    """The kind of file, where it is not published."""
    if path.name.startswith("."):
        return SECRET if path.name.startswith(".env") else HIDDEN
    if _matches(path.name.lower(), SECRET_NAMES):
        return SECRET
    if not path.is_file() or not (_matches(name, PUBLISHED) or name in pictures):
        return OF_THE_RUN if _matches(path.name, RUN_FILES) else OTHER
    if path.suffix not in WEIGHTS_ENDINGS and path.stat().st_size > LARGEST_OTHER:
        return TOO_BIG
    return None


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
