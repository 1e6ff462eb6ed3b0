"""Train a WordPiece tokenizer, BERT's kind, on the training texts of a recipe
or of a data source.

    hf-maskssl tokenizer RECIPE --vocab_size 30000 --output_dir FOLDER
    hf-maskssl tokenizer --source text --data_files corpus.txt
        --vocab_size 30000 --output_dir FOLDER

A recipe then names FOLDER in data.tokenizer, and AutoTokenizer.from_pretrained
opens it. The same texts always give the same pieces. For a tokenizer of its
own, a recipe of kind masked_text can also just set data.wordpiece_size.
"""

import argparse
import tempfile
from pathlib import Path

from ..data import DataArguments, build_bert_tokenizer, load_recipe, load_splits
from ..data.masked_text.arguments import MaskedTextArguments
from ..data.tables.columns import require_columns
from ..data.text.tokenizers import train_wordpiece_on
from ..files import refuse_full_folder, whole_folder
from ..scripts import OneLineErrors


def main() -> None:
    parser = OneLineErrors(
        description=__doc__,
        usage="%(prog)s [RECIPE] --vocab_size N --output_dir FOLDER [...]",
        epilog="Any other option is a field of the recipe's data section, such as\n--input_column (default: text).",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--recipe", help="recipe, the same as RECIPE in front")
    parser.add_argument(
        "--vocab_size",
        type=int,
        help="number of pieces, special tokens included; default: the recipe's",
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to write, new or empty")
    parser.add_argument("--cased", action="store_true", help="whether to keep capitals and accents")
    parser.add_argument("--max_length", type=int, default=512, help="number of tokens that truncation leaves at most")
    options, words = parser.parse_known_args()
    # What is no option of this script, nor a field with its value, can only stand in front.
    recipe = words.pop(0) if words and not words[0].startswith("-") else None
    if recipe is not None and options.recipe is not None:
        parser.error(f"two recipes, {recipe} and --recipe {options.recipe}: keep one of them")
    data = read_data_section(recipe or options.recipe, words)
    size = options.vocab_size or (data.wordpiece_size if isinstance(data, MaskedTextArguments) else None)
    if size is None or not isinstance(data.input_column, str):
        parser.error(f"--vocab_size and one --input_column are needed, got {size} and {data.input_column}")
    refuse_full_folder(options.output_dir, "--output_dir")
    train = load_splits(data)["train"]
    require_columns(train, [("input_column", data.input_column)], "training")
    vocabulary = train_wordpiece_on(train, data.input_column, size, lowercase=not options.cased)
    tokenizer = build_bert_tokenizer(vocabulary, options.max_length, lowercase=not options.cased)
    with whole_folder(options.output_dir, "--output_dir") as folder:
        tokenizer.save_pretrained(folder)
        (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    print(f"{len(vocabulary)} pieces: {options.output_dir}")


def read_data_section(recipe: str | None, overrides: list[str]) -> DataArguments:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "options.yaml"
        path.write_text("data: {kind: tokens, input_column: text}")
        section: DataArguments = load_recipe(recipe or path, overrides, {"data": DataArguments})["data"]
        return section
