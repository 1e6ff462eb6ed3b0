"""Tag the words of a text with their parts of speech, once, to pre-train
PoS-BERT on them.

    hf-maskssl tag RECIPE --output_dir FOLDER [--num_proc 8]
    hf-maskssl tag --source text --data_files corpus.txt --output_dir FOLDER

Text is split into sentences and words by NLTK's rules and tagged by its
averaged perceptron, whose data has to be fetched once:
python -m nltk.downloader averaged_perceptron_tagger_eng. The tagger is for
English; texts of other languages come with a tag_column of universal tags. In
text files every line is a paragraph, so they must not be wrapped.

Writes FOLDER/train/part-00000-of-00040.parquet and so on, of validation and
test too where the recipe or the options name them, and FOLDER/tagging.json with
the counts. A recipe reads it with source: parquet, data_dir: FOLDER,
data_files: {train: train/*.parquet}, input_column: text, tag_column: tags and
document_column: document.

After an interruption, give the same command again: parts that are there stay.
"""

import sys

from ..annotation.tag_folder import TaggingArguments, tag_folder
from .options import DataclassParser


def main() -> None:
    """Read the command line, and tag."""
    parser = DataclassParser(TaggingArguments, __doc__, "tag")
    words = sys.argv[1:]
    parser.refuse_unknown(words)
    if words and not words[0].startswith("-"):
        if any(word.partition("=")[0] == "--recipe" for word in words):
            parser.error(f"two recipes, {words[0]} and that of --recipe: keep one of them")
        words = ["--recipe", *words]
    args, rest = parser.parse_args_into_dataclasses(words, return_remaining_strings=True)
    if rest:
        parser.error(f"{' '.join(rest)}: belongs to no option; a recipe stands in front of all options")
    tag_folder(args)
