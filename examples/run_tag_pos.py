"""Tag the words of a text with their parts of speech, once, to pre-train PoS-BERT on them.

    python examples/run_tag_pos.py RECIPE.yaml --output_dir FOLDER [--num_proc 8]
    python examples/run_tag_pos.py --source text --data_files corpus.txt --output_dir FOLDER

Text is split into sentences and words by NLTK's rules and tagged by its averaged perceptron, whose data has to be fetched
once: python -m nltk.downloader averaged_perceptron_tagger_eng. The tagger is for English; texts of other languages come with
a `tag_column` of universal tags. Of text files every line is a paragraph, so they must not be wrapped.

Writes FOLDER/train/part-00000-of-00040.parquet and so on, of validation and test too where the recipe or the options name
them, and FOLDER/tagging.json with the counts. A recipe reads it with `source: parquet`, `data_dir: FOLDER`,
`data_files: {train: train/*.parquet}`, `input_column: text`, `tag_column: tags` and `document_column: document`.

After an interruption, give the same command again: parts that are there are kept.
"""

import dataclasses
import logging
import sys

from transformers import HfArgumentParser

from hf_maskssl.annotation.tag_folder import TaggingArguments, tag_folder
from hf_maskssl.files import did_you_mean
from hf_maskssl.scripts import OneLineErrors, run_script


class Parser(OneLineErrors, HfArgumentParser):
    """Options of a dataclass, whose mistakes are told in one line."""


def main() -> None:
    parser = Parser(
        TaggingArguments,  # type: ignore[arg-type]
        description=__doc__.partition("\n")[0],
        usage="%(prog)s [RECIPE.yaml] --output_dir FOLDER [options]",
        allow_abbrev=False,
    )
    words = sys.argv[1:]
    # Before anything is parsed: a mistyped --output_dir would be told as a missing one.
    for word in words:
        refuse_unknown_option(parser, word)
    if words and not words[0].startswith("-"):
        if any(word.partition("=")[0] == "--recipe" for word in words):
            parser.error(f"two recipes, {words[0]} and that of --recipe: keep one of them")
        words = ["--recipe", *words]
    args, rest = parser.parse_args_into_dataclasses(words, return_remaining_strings=True)
    if rest:
        parser.error(f"{' '.join(rest)}: belongs to no option; a recipe stands in front of all options")
    tag_folder(args)


def refuse_unknown_option(parser: HfArgumentParser, word: str) -> None:
    """Name the option that a mistyped one is nearest to."""
    option = word.partition("=")[0]
    known = ["--help", *(f"--{field.name}" for field in dataclasses.fields(TaggingArguments))]
    if option.startswith("--") and option.replace("-", "_") not in [name.replace("-", "_") for name in known]:
        advice = did_you_mean(option, known) or f"; known: {', '.join(known)}"
        parser.error(f"{option}: unknown option{advice}")


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_maskssl").setLevel(logging.INFO)
    run_script(main)
