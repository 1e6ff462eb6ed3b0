"""Options that are the fields of a dataclass."""

from typing import TypeVar

from transformers import HfArgumentParser

from ..files import did_you_mean
from ..scripts import OneLineErrors

Options = TypeVar("Options")


class DataclassParser(OneLineErrors, HfArgumentParser):
    """Parser of a dataclass's fields, whose mistakes are one line and whose help is a page: the document of the command.

    `hf-maskssl fields VERB` lists the options, which are too many for the page.

    Args:
        cls: Dataclass of the options.
        document: Text of the help page.
        verb: Name of the verb.
    """

    def __init__(self, cls: type, document: str, verb: str) -> None:
        super().__init__(cls, allow_abbrev=False)  # type: ignore[arg-type]
        self.document, self.verb = document, verb

    def format_help(self) -> str:
        """The document, and where the options are listed."""
        return f"{self.document.strip()}\n\n`hf-maskssl fields {self.verb}` lists all options.\n"

    def refuse_unknown(self, words: list[str]) -> None:
        """End the script at an option that is none, naming the one that it is nearest to.

        Before anything is parsed: a mistyped --output_dir would be reported as a missing one.
        """
        known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        for word in words:
            option = word.partition("=")[0]
            if option.startswith("--") and option not in known:
                ways = [name for name in known if "-" not in name[2:]]
                advice = did_you_mean(option, ways) or f"; known: {', '.join(ways)}"
                self.error(f"{option}: unknown option{advice}")
