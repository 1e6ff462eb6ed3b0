"""Tag the words of a text with their parts of speech, once, to pre-train PoS-BERT on them.

    python examples/run_tag_pos.py --recipe RECIPE.yaml --output_dir FOLDER [--num_proc 8]
    python examples/run_tag_pos.py --source text --data_files corpus.txt --output_dir FOLDER

Text is split into sentences and words by NLTK's rules and tagged by its averaged perceptron, whose data has to be fetched
once: python -m nltk.downloader averaged_perceptron_tagger_eng. Writes FOLDER/train/part-00000-of-00040.parquet and so on, of
validation and test too where the recipe or the options name them, and FOLDER/tagging.json with the counts. A recipe reads it
with `source: parquet`, `data_dir: FOLDER`, `data_files: {train: train/*.parquet}`, `input_column: text`, `tag_column: tags`
and `document_column: document`.

After an interruption, give the same command again: parts that are there are kept.
"""

import logging

from transformers import HfArgumentParser

from hf_maskssl.data.tagged_folder import TaggingArguments, tag_folder


def main() -> None:
    parser = HfArgumentParser(TaggingArguments, description=__doc__.partition("\n")[0])  # type: ignore[arg-type]
    (args,) = parser.parse_args_into_dataclasses()
    tag_folder(args)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_maskssl").setLevel(logging.INFO)
    main()
