"""Licences of models: their names on the Hub, and the question which one it is."""

from pathlib import Path

from ..files import write_whole
from ..recipes import nearest
from .card_headers import CARD, header_of

# The Hub's names of licences (huggingface.co/docs/hub/repositories-licenses).
LICENCES = (
    *("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "isc", "zlib", "unlicense"),
    *("mpl-2.0", "gpl", "gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "epl-1.0", "epl-2.0"),
    *("eupl-1.1", "eupl-1.2", "ecl-2.0", "afl-3.0", "artistic-2.0", "bsl-1.0", "osl-3.0", "ms-pl", "ncsa", "wtfpl"),
    *("cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
    *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "etalab-2.0", "pddl", "odc-by", "odbl", "gfdl"),
    *("cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "lppl-1.3c", "ofl-1.1", "postgresql"),
    *("openrail", "openrail++", "bigscience-openrail-m", "creativeml-openrail-m", "bigcode-openrail-m"),
    *("bigscience-bloom-rail-1.0", "openmdw-1.0", "unknown", "other"),
)
QUESTION = (
    "The card names no licence; without one nobody may use the model.\n"
    "Licence (apache-2.0, mit, cc-by-4.0, ...; empty for none): "
)
MANIFEST = "manifest.json"


def check_licence(name: str) -> str:
    """The licence, if the Hub knows it.

    Raises:
        ValueError: The Hub knows no such licence.
    """
    if name not in LICENCES:
        raise ValueError(
            f"licence: the Hub knows no {name!r}{nearest(name.lower(), LICENCES)}; take one such as 'apache-2.0', or 'other'"
        )
    return name


def licence_of(card: str) -> str | None:
    """The licence that a card's header names."""
    return header_of(card).license


def with_licence(card: str, name: str) -> str:
    """The card with the licence in its header, everything else as it was."""
    header, _, text = card.removeprefix("---\n").partition("\n---\n")
    lines = [line for line in header.splitlines() if not line.startswith("license:")]
    return "\n".join(["---", f"license: {name}", *lines, "---", text])


def ask_licence() -> str | None:
    """Ask on the terminal until the answer is one of the Hub's licences, or empty, or its end (Ctrl-D): None."""
    question = QUESTION
    while True:
        try:
            answer = input(question).strip()
        except EOFError:
            print()
            return None
        try:
            return check_licence(answer) if answer else None
        except ValueError as error:
            question = f"{error}\nLicence: "


def store_licence(folder: Path, name: str) -> bool:
    """Write the licence into the folder's own card, so that nobody is asked again.

    Returns:
        Whether it is there; the checkpoint of a run would count as damaged, and is left as it is.
    """
    if (folder / MANIFEST).is_file():
        return False
    text = with_licence((folder / CARD).read_text(encoding="utf-8"), name)
    write_whole(folder / CARD, lambda aside: aside.write_text(text, encoding="utf-8"))
    return True
