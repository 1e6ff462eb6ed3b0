"""Sentences, words and tags as places in the text; the folder of tagged parts and what survives a kill.

A made-up tagger, which knows a few words and takes all others for nouns, stands in for NLTK's where its tags do not matter.
"""

import json
import logging
import os
import runpy
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import nltk.data
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nltk.tokenize import NLTKWordTokenizer

from hf_maskssl.annotation import tag_folder as tagged_folder
from hf_maskssl.annotation.tag_folder import TaggingArguments, tag_folder
from hf_maskssl.data.masked_text import pos_tagging
from hf_maskssl.data.masked_text.pos_tagging import (
    TaggerDataError,
    load_tagger,
    sentence_spans,
    tag_values,
    tag_words,
    tagger_digest,
    word_spans,
)
from hf_maskssl.data.masked_text.sentences import SentencePreparer
from hf_maskssl.data.text.tokenizers import build_byte_tokenizer
from hf_maskssl.models.configuration_pos_minimax_bert import PARTS_OF_SPEECH

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "run_tag_pos.py"
KNOWN = {"the": "DT", "The": "DT", "runs": "VBZ", ".": ".", "''": "''", "``": "``"}


def write_tagger(root: Path) -> Path:
    """A folder for NLTK_DATA."""
    name = pos_tagging.TAGGER_DATA
    folder = root / "taggers" / name
    folder.mkdir(parents=True)
    contents = {"weights": {"bias": {"NN": 1.0}}, "tagdict": KNOWN, "classes": sorted({*KNOWN.values(), "NN"})}
    for part, content in contents.items():
        (folder / f"{name}.{part}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def nltk_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The only folder in which NLTK looks for its data; empty."""
    folder = tmp_path / "nltk_data"
    folder.mkdir()
    monkeypatch.setenv("NLTK_DATA", str(folder))
    monkeypatch.setattr(nltk.data, "path", [])
    load_tagger.cache_clear()
    yield folder
    load_tagger.cache_clear()


@pytest.fixture
def real_tagger(nltk_folder: Path, shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLTK_DATA", str(shared_data("nltk_data")))


@pytest.fixture
def small_tagger(nltk_folder: Path) -> None:
    write_tagger(nltk_folder)


def pieces(text: str, spans: list[tuple[int, int]]) -> list[str]:
    return [text[start:end] for start, end in spans]


# Sentences and words


def test_sentences() -> None:
    text = (
        "Dr. J. Smith et al. came at 5 p.m. The U.S. team lost 3.5 to 2... or so. “It’s late.” “Is it?” He left!\n"
        "Heading without a period\n \r\n  it goes on, e.g. here;\nand here. "
    )
    assert pieces(text, sentence_spans(text)) == [
        "Dr. J. Smith et al. came at 5 p.m.",
        "The U.S. team lost 3.5 to 2... or so.",
        "“It’s late.”",
        "“Is it?”",
        "He left!",
        "Heading without a period",
        "it goes on, e.g. here;\nand here.",
    ]
    assert sentence_spans("") == sentence_spans(" \n\n\t") == sentence_spans("\ufeff") == []
    # A byte order mark in front, whatever follows it.
    assert sentence_spans("\ufeffThe end.") == [(1, 9)] and sentence_spans("\ufeff\n\nThe end.") == [(3, 11)]


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("He said \"no\" and ''yes'' (can't).", ["He", "said", '"', "no", '"', "and", "''", "yes", "''"]),
        ("``Why''\"?\"", ["``", "Why", "''", '"', "?", '"']),
        ("I don’t; cats’", ["I", "do", "n’t", ";", "cats", "’"]),
        ("  $3.88 -- cannot…\n", ["$", "3.88", "--", "can", "not", "…"]),
    ],
)
def test_words(sentence: str, words: list[str]) -> None:
    assert pieces(sentence, word_spans(sentence))[: len(words)] == words


def check_cover(text: str, spans: list[tuple[int, int]]) -> None:
    """In order, inside the text, without overlap, and nothing but blanks between them or at their edges."""
    point = 0
    for start, end in spans:
        assert point <= start < end <= len(text)
        assert not text[point:start].strip() and text[start:end] == text[start:end].strip()
        point = end
    assert not text[point:].strip()


TRICKY = ["\"'`“”‘’«»,.!?()[]<>-…:", " \t\n\r\x1c\x85\u2028\u3000", "aBé5漢\u0301\U0001f600\x00"]
SNIPPETS = ["''", "``", "'s", "n't", "cannot", "d'ye", " 'tis", "Mr.", "p.m. The ", "...", "\n\n", "--", "-LRB-"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(*(st.text(letters, min_size=1, max_size=4) for letters in TRICKY), st.sampled_from(SNIPPETS)),
        max_size=20,
    ).map("".join)
)
@example("\"''\"")
@example("'''\"``\"'' ''''")
@example("a.” ”\n\n” b")
def test_spans_hold_all_that_is_not_blank(text: str) -> None:
    check_cover(text, sentence_spans(text))
    spans = word_spans(text)
    check_cover(text, spans)
    assert not any(char.isspace() for word in pieces(text, spans) for char in word)
    # NLTK's own words, but for the quotes that it writes in another way.
    plain = pos_tagging._as_plain(text)
    for word, expected in zip(pieces(plain, spans), NLTKWordTokenizer().tokenize(plain), strict=True):
        assert word == expected or (word in ('"', "''", "``") and expected in ("''", "``"))


@pytest.mark.parametrize("words", [["He", "said", "yes"], ["He", "said"], TimeoutError("slow")])
def test_where_the_rules_fail_words_stand_between_blanks(words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def tokenize(self: NLTKWordTokenizer, text: str) -> list[str]:
        if isinstance(words, Exception):
            raise words
        return words

    monkeypatch.setattr(NLTKWordTokenizer, "tokenize", tokenize)
    assert pieces("He said no.", word_spans("He said no.")) == ["He", "said", "no."]


# Tags


def test_tags_of_the_real_tagger(real_tagger: None, shared_data: Callable[[str], Path]) -> None:
    text = "“Wow — dogs don’t bark,” she quickly told me… at 10:30 for $5 * 3 % [sic] “The"
    (sentence,) = tag_values([text])[0]
    assert sentence.text == text
    words = [text[start:end] for start, end in zip(sentence.starts, sentence.ends, strict=True)]
    tags = dict(zip(words, sentence.tags, strict=True))
    expected = {"“": "``", "—": ":", "do": "VBP", "n’t": "RB", "”": "''", "she": "PRP", "quickly": "RB", "…": ":"}
    expected |= {"at": "IN", "10:30": "CD", "$": "$", "5": "CD", "*": "SYM", "%": "SYM", "[": "(", "dogs": "NNS"}
    assert {word: tags[word] for word in expected} == expected
    # What tagging is for: most words get the part of speech that people gave them.
    rows = pq.read_table(shared_data("text") / "brown" / "test.parquet").slice(0, 200)
    found = [tag for tags in tag_words(rows["tokens"].to_pylist()) for tag in tags]
    gold = [tag for tags in rows["upos"].to_pylist() for tag in tags]
    part = pos_tagging.PART_OF_TAG
    assert np.mean([part[a] == part[b] for a, b in zip(found, gold, strict=True)]) > 0.9


def test_values_of_each_kind(small_tagger: None) -> None:
    assert tag_values(["\ufeffThe dog"])[0][0].text == "The dog"
    values = ['The dog runs. "5" ☺', "", ["The", " ", "", "dog-\n house", "."], [], [""], "\n"]
    tagged = tag_values(values)
    assert [len(sentences) for sentences in tagged] == [2, 0, 1, 0, 0, 0]
    assert tagged[0][0] == ("The dog runs.", [0, 4, 8, 12], [3, 7, 12, 13], ["DT", "NN", "VBZ", "."])
    assert tagged[0][1] == ('"5" ☺', [0, 1, 2, 4], [1, 2, 3, 5], ["``", "CD", "''", "SYM"])
    assert tagged[2][0] == ("The dog-\n house .", [0, 4, 16], [3, 15, 17], ["DT", "NN", "."])


def test_missing_data_names_the_command(nltk_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "python -m nltk.downloader averaged_perceptron_tagger_eng"
    with pytest.raises(TaggerDataError, match=f"is in none of .*nltk_data.*{command}"):
        tag_words([["dog"]])
    monkeypatch.delenv("NLTK_DATA")
    with pytest.raises(LookupError, match="NLTK_DATA is None"):
        load_tagger()
    # Set after NLTK was imported, and fetched after a failure.
    write_tagger(tmp_path / "elsewhere")
    monkeypatch.setenv("NLTK_DATA", os.pathsep.join(["/no/such/folder", str(tmp_path / "elsewhere")]))
    assert tag_words([["the", "dog"], []]) == [["DT", "NN"], []]


@pytest.mark.parametrize("broken", ["weights", "tagdict", "classes", "zip"])
@pytest.mark.parametrize("content", [None, "", '{"bias": {"N', "{}", "[1]"])
def test_broken_data_is_told(broken: str, content: str | None, nltk_folder: Path) -> None:
    folder = write_tagger(nltk_folder)
    file = folder / f"{folder.name}.{broken}.json"
    if broken == "zip":
        shutil.rmtree(folder)
        file = folder.with_suffix(".zip")
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_text(content)
    if (broken, content) == ("tagdict", "{}"):
        load_tagger()  # a tagger may know no word without thinking
        return
    with pytest.raises(TaggerDataError, match="nltk.downloader averaged_perceptron_tagger_eng"):
        load_tagger()
    if content is None or broken == "zip":
        with pytest.raises(TaggerDataError, match="nltk.downloader averaged_perceptron_tagger_eng"):
            tagger_digest()


def test_the_digest_is_that_of_the_content(nltk_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tagger(nltk_folder)
    digest = tagger_digest()
    shutil.make_archive(str(tmp_path / "elsewhere" / "taggers" / folder.name), "zip", folder.parent, folder.name)
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "elsewhere"))
    assert tagger_digest() == digest
    monkeypatch.setenv("NLTK_DATA", str(nltk_folder))
    (folder / f"{folder.name}.tagdict.json").write_text("{}")
    assert tagger_digest() != digest


# The folder


@pytest.fixture
def arguments(small_tagger: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., TaggingArguments]:
    """A text file of 7 lines in three documents, tagged into `folder`; the log is kept."""
    caplog.set_level(logging.INFO, logger="hf_maskssl")
    lines = ["The dog runs. The cat", "", "  ", "runs .", "the end", "", '"a" b']
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n")

    def make(folder: str = "tagged", **changes: Any) -> TaggingArguments:
        options = {"source": "text", "data_files": [str(tmp_path / "text.txt")], "rows_per_part": 2, **changes}
        return TaggingArguments(output_dir=str(tmp_path / folder), **options)

    return make


def read_rows(folder: str, split: str = "train") -> list[dict[str, Any]]:
    """The rows of all parts, read as a recipe reads them."""
    files = str(Path(folder) / split / "*.parquet")
    return datasets.load_dataset("parquet", data_files=files, split="train", batch_size=100).to_list()


def test_folder_of_a_text_file(arguments: Callable[..., TaggingArguments], caplog: pytest.LogCaptureFixture) -> None:
    args = arguments()
    report = tag_folder(args)
    rows = read_rows(args.output_dir)
    assert [row["text"] for row in rows] == ["The dog runs.", "The cat", "runs .", "the end", '"a" b']
    assert [row["row"] for row in rows] == [0, 0, 3, 4, 6]
    assert np.flatnonzero(np.diff([row["document"] for row in rows])).tolist() == [1, 3]
    assert rows[0]["tags"] == ["DT", "NN", "VBZ", "."] and rows[0]["word_starts"] == [0, 4, 8, 12]
    assert rows[0]["word_ends"] == [3, 7, 12, 13]
    counts = report["splits"]["train"]
    assert {name: counts[name] for name in ("rows", "empty_rows", "sentences", "words")} == {
        "rows": 7,
        "empty_rows": 3,
        "sentences": 5,
        "words": 14,
    }
    assert counts["parts_of_speech"] == {"noun": 5, "none": 4, "determiner": 3, "verb": 2}
    assert counts["tags"]["NN"] == 5 and counts["run"]["words"] == 14
    written = sorted(path.name for path in Path(args.output_dir).glob("**/*") if path.is_file())
    assert written == [*(f"part-0000{number}-of-00004.parquet" for number in range(4)), "tagging.json"]
    assert json.loads((Path(args.output_dir) / "tagging.json").read_text()) == report and report["complete"]
    assert "now tagged 5 sentences" in caplog.text and "sentences/s" in caplog.text
    # Finished: nothing is tagged again.
    stamps = {path: path.stat().st_mtime_ns for path in Path(args.output_dir).glob("train/*")}
    again = tag_folder(args)["splits"]["train"]
    assert {**again, "run": None} == {**counts, "run": None} and again["run"]["sentences"] == 0
    assert {path: path.stat().st_mtime_ns for path in Path(args.output_dir).glob("train/*")} == stamps


def run_and_die(args: TaggingArguments, files_before: int) -> int:
    """The exit status of a process that is killed between writing a file and giving it its name."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # threads do not survive a fork
        rename, count = os.replace, 0

        def replace(source: Any, target: Any) -> None:
            nonlocal count
            count += str(target).startswith(args.output_dir)
            if count > files_before:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)

        os.replace = replace  # type: ignore[assignment]
        try:
            tag_folder(args)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("files_before", [0, 1, 3, 5])
def test_killed_run_is_finished_by_two_processes(
    files_before: int, arguments: Callable[..., TaggingArguments], caplog: pytest.LogCaptureFixture
) -> None:
    """Killed before the report, at the first part, in the middle, at the last report."""
    whole, killed = arguments("whole"), arguments("killed", num_proc=2)
    expected = tag_folder(whole)
    assert run_and_die(arguments("killed"), files_before) == signal.SIGKILL
    root = Path(killed.output_dir)
    kept = {path: path.stat().st_mtime_ns for path in root.glob("train/part-*.parquet")}
    assert len(kept) == max(files_before - 1, 0) and len(list(root.glob("**/.*.partial"))) == 1
    caplog.clear()
    report = tag_folder(killed)
    assert f"7 rows in 4 parts, {len(kept)} of them tagged before" in caplog.text
    assert read_rows(killed.output_dir) == read_rows(whole.output_dir)
    timed = {"seconds": None, "run": None}
    assert report["splits"]["train"] | timed == expected["splits"]["train"] | timed
    assert not list(root.glob("**/.*")) and all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())


def test_broken_part_is_made_again(
    arguments: Callable[..., TaggingArguments], caplog: pytest.LogCaptureFixture
) -> None:
    args = arguments()
    tag_folder(args)
    expected = read_rows(args.output_dir)
    part, other = sorted((Path(args.output_dir) / "train").glob("*.parquet"))[1:3]
    part.write_bytes(part.read_bytes()[:-20])
    Dataset.from_dict({"text": ["not a part"]}).to_parquet(other)
    tag_folder(args)
    assert f"{part} cannot be read and is tagged again" in caplog.text and f"{other} cannot be read" in caplog.text
    assert "4 parts, 2 of them tagged before" in caplog.text and read_rows(args.output_dir) == expected


def test_another_text_needs_another_folder(arguments: Callable[..., TaggingArguments], tmp_path: Path) -> None:
    tag_folder(arguments())
    with pytest.raises(ValueError, match="other text or settings: rows_per_part was 2, is now 3. Take another folder"):
        tag_folder(arguments(rows_per_part=3))
    (tmp_path / "text.txt").write_text("The dog runs. The cat\n\n  \nruns .\nthe end\n\nchanged")
    with pytest.raises(ValueError, match=r"other text or settings: its rows differ\. Take"):
        tag_folder(arguments())
    (tmp_path / "tagged" / "tagging.json").unlink()
    with pytest.raises(ValueError, match="holds parts, but no tagging.json"):
        tag_folder(arguments())


def test_recipe_with_lists_of_words(
    arguments: Callable[..., TaggingArguments], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script, a recipe's splits and columns, rows that are null or empty, documents by a column."""
    words = [["The", "dog"], None, [], ["runs", ".", ""], ["the"], ["cat"]]
    Dataset.from_dict({"words": words, "file": ["a", "a", "b", "b", None, None]}).to_parquet(tmp_path / "t.parquet")
    Dataset.from_dict({"words": words[3:], "file": ["b", "a", "b"]}).to_parquet(tmp_path / "v.parquet")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {model_type: metamae}\n"
        "data:\n"
        "  source: parquet\n"
        f"  data_files: {{train: {tmp_path / 't.parquet'}, valid: {tmp_path / 'v.parquet'}}}\n"
        "  validation_split: valid\n"
        "  kind: masked_text\n"
        "  tokenizer: utf-8\n"
        "  tagger: nltk\n"
        "  input_column: words\n"
        "  document_column: file\n"
    )
    options = [str(recipe), "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    rows = read_rows(str(tmp_path / "out"))
    assert [row["text"] for row in rows] == ["The dog", "runs .", "the", "cat"]
    assert [row["row"] for row in rows] == [0, 3, 4, 5] and [row["document"] for row in rows] == [0, 1, 2, 2]
    assert len(read_rows(str(tmp_path / "out"), "validation")) == 3
    report = json.loads((tmp_path / "out" / "tagging.json").read_text())
    assert report["splits"]["train"]["empty_rows"] == 2 and report["settings"]["input_column"] == "words"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "text", "--ouput_dir=x"], "--ouput_dir: unknown option (did you mean '--output_dir'?)"),
        (["--output_dir", "x", "--out", "y"], "--out: unknown option"),
        (["r.yaml", "--output_dir", "x", "--recipe", "s.yaml"], "two recipes, r.yaml and that of --recipe"),
        (["--source", "text", "r.yaml", "--output_dir", "x"], "r.yaml: belongs to no option"),
    ],
)
def test_mistyped_options_are_named(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert message in capsys.readouterr().err


def test_wrapped_text_is_warned_of(
    arguments: Callable[..., TaggingArguments], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "text.txt").write_text("The dog\nruns \nthe\n\nend. \n \n“The end.”\n")
    tag_folder(arguments())
    told = "train split: 3 of 5 lines do not end a sentence: is the text wrapped? Put each paragraph on one line"
    assert caplog.text.count(told) == 1
    caplog.clear()
    (tmp_path / "text.txt").write_text("The dog\nruns.\n\nThe end.\nHeading\n")
    tag_folder(arguments("other"))
    assert "do not end a sentence" not in caplog.text


@pytest.mark.parametrize(
    ("count", "length", "processes", "expected"),
    [
        (1_000_000, 3_000, 32, 5000),  # articles
        (17_868, 370_000, 32, 54),  # books
        (17_868, 370_000, 1, 54),
        (200, 370_000, 32, 1),
        (64_000, 100, 8, 2000),  # sentences
        (100, 100, 8, 1000),
    ],
)
def test_parts_are_some_minutes_of_work_for_every_process(
    count: int, length: int, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tagged_folder, "mean_bytes", lambda rows, column: float(length))
    rows: Any = range(count)
    args = TaggingArguments(output_dir="x", source="text", num_proc=processes)
    assert tagged_folder._rows_per_part(rows, "text", args) == expected


def test_a_folder_keeps_its_size_of_parts(
    arguments: Callable[..., TaggingArguments], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tagged_folder, "PART_BYTES", (0, 1e9))
    args = arguments(rows_per_part=None)
    assert tag_folder(args)["part_rows"] == {"train": 1} and "7 rows in 7 parts, 0" in caplog.text
    expected = read_rows(args.output_dir)
    monkeypatch.setattr(tagged_folder, "PARTS_PER_PROCESS", 1)
    for part in sorted(Path(args.output_dir).glob("train/*"))[3:5]:
        part.unlink()
    tag_folder(arguments(rows_per_part=None, num_proc=2))
    assert "7 rows in 7 parts, 5 of them tagged before" in caplog.text and read_rows(args.output_dir) == expected
    other = arguments("other", rows_per_part=None)
    assert tag_folder(other)["part_rows"] == {"train": 7} and read_rows(other.output_dir) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": None}, "recipe and source are both missing"),
        ({"num_proc": 0}, "num_proc: expected at least 1, got 0"),
        ({"rows_per_part": 0}, "rows_per_part: expected at least 1"),
        ({"input_column": "words"}, r"no column 'words'; its columns are \['text'\]"),
        ({"document_column": "file"}, "data.document_column: the train split has no column 'file'"),
        ({"validation_split": "valid"}, "valid"),
    ],
)
def test_options_that_cannot_be(
    changes: dict[str, Any], message: str, arguments: Callable[..., TaggingArguments]
) -> None:
    with pytest.raises(ValueError, match=message):
        tag_folder(arguments(**changes))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 2], [3]], r"train split, row 0, column 'text': expected text or a list of words, got \[1, 2\]"),
        ([["a"], ["b", None]], "train split, row 1, column 'text': expected text or a list of words"),
        (["", None, " \n"], "the train split has no text: all 3 rows of column 'text' are empty"),
    ],
)
def test_rows_that_cannot_be(
    rows: Any, message: str, arguments: Callable[..., TaggingArguments], tmp_path: Path
) -> None:
    Dataset.from_dict({"text": rows}).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=message):
        tag_folder(arguments(source="parquet", data_files=[str(tmp_path / "rows.parquet")]))


def test_missing_tagger_is_told_before_any_data_is_read(nltk_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TaggerDataError):
        tag_folder(TaggingArguments(output_dir=str(tmp_path / "out"), source="no/such/source"))
    assert not (tmp_path / "out").exists() and tagged_folder.REPORT_FILE == "tagging.json"


def test_what_is_tagged_once_is_what_training_would_tag(
    arguments: Callable[..., TaggingArguments], tmp_path: Path
) -> None:
    """Pieces, their tasks and where words begin: read from the folder, and made from the raw text."""
    args = arguments()
    tag_folder(args)
    shared: dict[str, Any] = {"tasks": tuple(PARTS_OF_SPEECH), "room": 64, "tokenizer": build_byte_tokenizer(64)}
    raw = Dataset.from_dict({"text": (tmp_path / "text.txt").read_text().splitlines()})
    made = SentencePreparer("text", tagger="nltk", **shared)(raw[:], range(len(raw)))
    tagged = Dataset.from_list(read_rows(args.output_dir))
    read = SentencePreparer("text", tag_column="tags", has_spans=True, **shared)(tagged[:], range(len(tagged)))
    columns = ["input_ids", "tasks", "starts"]
    for name in columns:
        assert made[name].combine_chunks().flatten() == read[name].combine_chunks().flatten()
    assert len(made["lengths"].combine_chunks().flatten()) == len(read) == 5
    assert [len(lengths) for lengths in made["lengths"].to_pylist()] == np.bincount(
        tagged["row"][:], minlength=len(raw)
    ).tolist()
