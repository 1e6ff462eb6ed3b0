"""What a recipe's `data` section may say."""

import os
from dataclasses import dataclass, field
from typing import Any, Literal

LOCAL_SOURCES = ("parquet", "csv", "json", "text", "numpy", "imagefolder", "audiofolder")

Kind = Literal["tokens", "series", "tabular", "image", "spectrogram", "vision_language", "multimodal", "masked_text"]
Task = Literal["classification", "regression", "token_classification", "semantic_segmentation", "depth_estimation"]
# Tasks whose label is a map as large as the picture.
DENSE_TASKS = ("semantic_segmentation", "depth_estimation")
DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)
DEFAULT_NUM_SCENES = {"train": 4000, "validation": 500, "test": 1000}
# What only kind "masked_text" reads, and what it is when left out.
MASKED_TEXT_DEFAULTS: dict[str, Any] = {
    "tag_column": None,
    "tagger": None,
    "document_column": None,
    "mlm_probability": 0.15,
    "mask_sampling": "proportional",
    "num_maskings": 10,
    "sequence_length": None,
    "short_sequence_probability": 0.1,
    "wordpiece_size": None,
}


@dataclass
class DataArguments:
    """Where rows come from, which columns matter and how they become model inputs.

    Attributes:
        source: `"digits"` (scikit-learn's 8x8 handwritten digits: columns `image`, `label`; splits `train` of 1,437
            and `test` of 360 rows), `"scenes"` (rooms with textured solids, rendered here: columns `rgb`, `depth` in
            millimetres, `normals`, `semseg`, `layout`, its classes with all solids as one, and `label`, the solid that
            covers most pixels; splits `train`, `validation`, `test`), `"pydoc"` (the help topics that Python brings
            along, `help("topics")`: columns `topic`, `text`; split `train`), a kind of local file (`"parquet"`, `"csv"`,
            `"json"`, `"text"`, `"numpy"`, `"imagefolder"`, `"audiofolder"`), `"multimodal_folder"` (`data_dir` with files
            `modality/class/name.png`, or `split/modality/class/name.png`), a folder written by
            `Dataset.save_to_disk`, or any Hub data set or local path that `datasets.load_dataset` takes.
        config_name: The data set's configuration (`name` of `load_dataset`).
        revision: Branch, tag or commit of a Hub data set.
        data_dir: Folder to read. For local sources, relative paths start at the current directory.
        data_files: File, list of files or `{split: file or files}`. Environment variables such as `${HOME}` are
            expanded here, in `data_dir` and in `source`. For `"numpy"`: one or more `.npz` files whose arrays are the
            columns, or `.npy` files, one a column, named by their file name (`image.npy`, `label.npy`).
        streaming: Read rows as they come (`IterableDataset`) instead of downloading and caching them first.
        train_split: Name of the training split.
        validation_split: Name of the validation split, or None.
        test_split: Name of the test split, or None.
        validation_fraction: Part of the training split, in [0, 1), set aside when there is no validation split.
        split_seed: Seed of that cut, of `split` and of the choice of rows under `max_*_samples`.
        split: `"given"`: the splits named above. Otherwise all three are cut out of the training split: `"random"` by
            `split_seed`; `"scaffold"` keeps molecules of one Bemis-Murcko scaffold together, the most common scaffolds
            first into training (deepchem's rule, without chance); `"scaffold_random"` deals the scaffolds out in an
            order drawn from `split_seed`, those with more rows than half a validation or test split first. SMILES
            that RDKit cannot read are left out with a warning. Scaffolds need RDKit: `pip install hf_maskssl[chem]`.
        split_fractions: Parts of training, validation and test rows under such a `split`, together 1; 0 leaves out
            validation or test.
        split_column: Scaffold splits: the column of the SMILES, None for the input column. `"random"`: rows with an
            equal value here stay together, None for each row by itself.
        kind: What a row is. `"tokens"`: a string or a list of ids. `"series"`: channels x time steps. `"tabular"`: one
            number per feature. `"image"`: an image or array with any number of channels. `"spectrogram"`: a waveform,
            turned into a log-mel picture. `"vision_language"`: an image and a text. `"multimodal"`: several aligned
            pictures of one scene, such as colours, depth and classes. `"masked_text"`: pre-training of PoS-BERT, texts
            whose words are masked by their part of speech.
        input_column: Column that holds the input. `"series"` also takes a list of columns, one per channel;
            `"tabular"` a list of columns, one per feature, or None for every numeric column but those of the label and
            of `split_column`; `"tokens"` a list of two columns, a sentence pair. A text may be a list of words, which
            blanks then join. The digits and pydoc need no name. `"multimodal"`: `{modality: column}`, which may leave some of the
            model's modalities out; one name alone is the column of rgb; None: columns named as the modalities.
        text_column: `"vision_language"`: the column of the text.
        label_column: Column of the label, or None: nothing labelled is needed for pre-training. Dense tasks: the column
            of the class map or depth map.
        label_mask_column: Token labels: a list as long as the labels, whose zeros mark labels to ignore (-100).
        drop_missing_labels: Leave out rows whose label is null or NaN, with a warning that counts them. Otherwise
            they are an error.
        task: What the labels are: classes, one real number, one class per token, or (kind `"multimodal"`) one class or
            one depth per pixel.
        label_names: `"semantic_segmentation"`: names of the classes by their id. None: the scenes' own, or numbers up to
            the largest id in the training split.
        label_scale: `"depth_estimation"`: label maps are multiplied by this, such as 0.001 for 16-bit millimetres, which
            is also the scenes' default. None elsewhere: 1.
        label_invalid_value: `"depth_estimation"`: pixels of this raw value have no known depth, as those have whose value
            is not a number, or not above 0.
        standardize: Subtract the mean and divide by the standard deviation: `"dataset"` takes both, per channel
            (tabular: per feature), from the training split; `"sample"` from the sample itself; `"none"` leaves values.
        scale: Raw values are multiplied by this first (1/255 for bytes, 1/32768 for 16-bit waveforms in a column;
            waveforms in WAV files are in [-1, 1) already).
        modality_options: `"multimodal"`: modality -> how its pictures become inputs, the fields `scale`, `standardize`,
            `mean`, `std`, `resample`, `flips_x` and `invalid_value` of `MultiMAEImageProcessor`; `standardize: dataset`
            without `mean` measures both on the training split, and is the default of every modality but rgb, depth
            and normals, which have their own. In depth, 0 is a hole (`invalid_value: 0`). What is given here also
            replaces what a checkpoint's processor has.
        augment: `"multimodal"`: training rows are cropped and mirrored at random, all modalities and label maps alike,
            anew in every epoch; `cache` then has no meaning for them. What is drawn depends on `split_seed`, the run's
            seed, the epoch and the row alone, so a resumed run draws the same. Of a stream it is drawn from torch's random
            numbers.
        crop_scale: Share of the picture's area that a random crop has, lowest and highest.
        crop_ratio: Its width over its height, where 1 is the ratio of the model's `image_size`.
        flip_probability: How often it is mirrored.
        crop_fraction: `"multimodal"`, without `augment` and in validation and test: None resizes the whole picture,
            whatever its aspect ratio; a number in (0, 1] takes the largest box of the model's aspect ratio out of the
            middle, its sides multiplied by this.
        allow_missing: `"multimodal"`: rows may lack a modality (a null, a file that is not there), which the model then
            neither sees nor predicts. Otherwise they are an error.
        verify_images: `"multimodal"`: open every picture once before anything else; `num_proc` processes share the
            work. Rows with unreadable ones are left out with a warning that names them; more than 1 % of the rows stop the
            run.
        scene_size: `"scenes"`: pixels, one number for a square or [height, width].
        num_scenes: `"scenes"`: how many each split has.
        scenes_seed: `"scenes"`: decides all of them.
        tokenizer: Hub name or folder of a tokenizer, for text; a BERT `vocab.txt`, one piece a line; or `"utf-8"`, the
            built-in tokenizer of bytes: [PAD] 0, [BOS] 1, [EOS] 2, [MASK] 3, [CLS] 4, [SEP] 5, byte b at b + 6, so
            `vocab_size` is 262. Its texts end with [SEP].
        alphabet: Characters of a one-token-per-character tokenizer, built here and saved with the checkpoint. Ids:
            [PAD] 0, [UNK] 1, [MASK] 2, then the alphabet in this order, so `vocab_size` is its length + 3.
        pack: Pre-training on texts: lay them end to end, each followed by the tokenizer's separator, and cut sequences
            of exactly the model's `max_position_embeddings`. Every 1,000 texts the rest that fills no sequence is
            dropped. `max_*_samples` count texts, and `index` is the text in which a sequence begins.
        tag_column: `"masked_text"`: the column of the words' parts of speech, Penn Treebank or universal tags (strings, or
            numbers of a ClassLabel), one for each word of a list; of a string, whose row is one sentence, the columns
            `word_starts` and `word_ends` say where its words are (what `examples/run_tag_pos.py` writes).
        tagger: `"masked_text"`: `"nltk"` tags the words here, once, with NLTK's averaged perceptron. It is for English;
            other languages come with a `tag_column` of universal tags.
        document_column: `"masked_text"`: neighbouring rows with an equal value here are one document. None: every row is
            one; of `"text"` files (a paragraph a line, not wrapped), the lines between two blank ones.
        mlm_probability: `"masked_text"`: share of the pieces that is masked.
        mask_sampling: `"masked_text"`: masked words come from the tasks as they occur, or from all of a sequence's tasks
            equally.
        num_maskings: `"masked_text"`: so many different maskings, which epochs take in turn; 0: anew in every epoch.
        sequence_length: `"masked_text"`: pieces in a sequence, [CLS] and [SEP] included. None: as many as the model takes.
        short_sequence_probability: `"masked_text"`: share of the sequences that get a random shorter length.
        wordpiece_size: `"masked_text"`: train an uncased WordPiece tokenizer of so many pieces on the training split, saved
            with the checkpoint. Instead of `tokenizer`. It lower-cases and drops accents; `examples/train_tokenizer.py
            --cased` keeps them.
        sampling_rate: Spectrograms: samples per second. Files with another rate are resampled.
        frame_length: Spectrograms: samples in a frame; None means 25 ms.
        hop_length: Spectrograms: samples between frames; None means 10 ms. The model's `image_size` is
            `[mel bands, frames]`, so it covers `(frames - 1) * hop_length + frame_length` samples: shorter
            sounds are padded with silence, longer ones cropped at the end.
        fft_length: Spectrograms: None means the next power of two from `frame_length`.
        min_frequency: Spectrograms: lower edge of the lowest mel band, in Hz.
        max_frequency: Spectrograms: upper edge of the highest mel band; None means half the sampling rate.
        max_train_samples: Keep so many training rows, chosen by `split_seed` (a stream: the first; `"masked_text"`: the
            beginnings of documents, for which blank lines of text files do not count).
        max_validation_samples: The same for validation.
        max_test_samples: The same for the test split.
        num_proc: Processes that prepare the rows; None means this one.
        cache: Prepare every row once and keep the result in the datasets cache. False prepares rows each time they are
            read, for sets whose prepared form is too large for the disk. None is false for kind `"multimodal"`, whose
            pictures take far less room than what is made of them, and true for all others.
    """

    source: str = "digits"
    config_name: str | None = None
    revision: str | None = None
    data_dir: str | None = None
    data_files: str | list[str] | dict[str, str | list[str]] | None = None
    streaming: bool = False
    train_split: str = "train"
    validation_split: str | None = None
    test_split: str | None = None
    validation_fraction: float = 0.0
    split_seed: int = 0
    split: Literal["given", "random", "scaffold", "scaffold_random"] = "given"
    split_fractions: list[float] = field(default_factory=lambda: list(DEFAULT_FRACTIONS))
    split_column: str | None = None
    kind: Kind = "image"
    input_column: str | list[str] | dict[str, str] | None = None
    text_column: str | None = None
    label_column: str | None = None
    label_mask_column: str | None = None
    drop_missing_labels: bool = False
    task: Task = "classification"
    label_names: list[str] | None = None
    label_scale: float | None = None
    label_invalid_value: float | None = None
    standardize: Literal["dataset", "sample", "none"] = "dataset"
    scale: float = 1.0
    modality_options: dict[str, dict[str, Any]] | None = None
    augment: bool = False
    crop_scale: list[float] = field(default_factory=lambda: [0.2, 1.0])
    crop_ratio: list[float] = field(default_factory=lambda: [0.75, 4 / 3])
    flip_probability: float = 0.5
    crop_fraction: float | None = None
    allow_missing: bool = False
    verify_images: bool = True
    scene_size: int | list[int] = 64
    num_scenes: dict[str, int] = field(default_factory=lambda: dict(DEFAULT_NUM_SCENES))
    scenes_seed: int = 0
    tokenizer: str | None = None
    alphabet: str | None = None
    pack: bool = False
    tag_column: str | None = None
    tagger: Literal["nltk"] | None = None
    document_column: str | None = None
    mlm_probability: float = 0.15
    mask_sampling: Literal["proportional", "balanced"] = "proportional"
    num_maskings: int = 10
    sequence_length: int | None = None
    short_sequence_probability: float = 0.1
    wordpiece_size: int | None = None
    sampling_rate: int | None = None
    frame_length: int | None = None
    hop_length: int | None = None
    fft_length: int | None = None
    min_frequency: float = 0.0
    max_frequency: float | None = None
    max_train_samples: int | None = None
    max_validation_samples: int | None = None
    max_test_samples: int | None = None
    num_proc: int | None = None
    cache: bool | None = None

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work.

        Raises:
            ValueError: Naming the fields, what was expected and what came.
        """
        if self.source == "digits" and self.input_column is None:
            self.input_column = "image"
        if self.source == "pydoc" and self.input_column is None:
            self.input_column = "text"
        if self.source == "scenes" and self.label_scale is None and self.task == "depth_estimation":
            self.label_scale = 0.001
        if self.cache is None:
            self.cache = self.kind != "multimodal"
        self._check_splits()
        self._check_cut()
        self._check_columns()
        self._check_tokens()
        self._check_pack()
        self._check_masked_text()
        self._check_multimodal()
        self._check_scenes()
        if self.kind == "spectrogram" and self.sampling_rate is None:
            raise ValueError("data.sampling_rate: kind 'spectrogram' needs the samples per second, such as 16000")
        if self.scale == 0.0:
            raise ValueError("data.scale: expected a number other than 0, which would erase the input")

    def _check_splits(self) -> None:
        if not 0.0 <= self.validation_fraction < 1.0:
            raise ValueError(f"data.validation_fraction: expected a number in [0, 1), got {self.validation_fraction}")
        if self.validation_fraction and self.validation_split is not None:
            raise ValueError(
                f"data.validation_fraction is {self.validation_fraction} although data.validation_split is "
                f"{self.validation_split!r}: keep one of them"
            )
        if self.validation_fraction and self.streaming:
            raise ValueError(
                "data.validation_fraction: a stream cannot be cut the same way under every number of workers; "
                "name a data.validation_split or set data.streaming to false"
            )
        for name in ("max_train_samples", "max_validation_samples", "max_test_samples", "num_proc"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"data.{name}: expected at least 1 or nothing, got {value}")
        if self.source in LOCAL_SOURCES and self.data_files is None and self.data_dir is None:
            raise ValueError(f"data.source {self.source!r} needs data.data_files or data.data_dir: the files to read")
        if self.source == "numpy" and self.data_files is None:
            raise ValueError("data.source 'numpy' needs data.data_files: the .npz or .npy files of each split")
        if self.source == "multimodal_folder" and self.data_dir is None:
            raise ValueError(
                "data.source 'multimodal_folder' needs data.data_dir: the folder of the modalities' folders"
            )

    def _check_cut(self) -> None:
        if self.split == "given":
            for name, default in (("split_fractions", list(DEFAULT_FRACTIONS)), ("split_column", None)):
                if getattr(self, name) != default:
                    raise ValueError(
                        f"data.{name} is {getattr(self, name)}, which data.split 'given' does not use: set data.split "
                        "to 'random', 'scaffold' or 'scaffold_random', or remove it"
                    )
            return
        for name in ("validation_split", "test_split", "validation_fraction", "streaming"):
            if getattr(self, name):
                raise ValueError(
                    f"data.{name} is {getattr(self, name)!r} although data.split {self.split!r} cuts all splits out of "
                    "the whole training split: keep one of them"
                )
        fractions = self.split_fractions
        if len(fractions) != 3 or min(fractions) < 0.0 or fractions[0] == 0.0 or abs(sum(fractions) - 1.0) > 1e-6:
            raise ValueError(
                "data.split_fractions: expected three numbers for training (above 0), validation and test, together "
                f"1, got {fractions}"
            )
        if self.split != "random" and self.split_column is None and not isinstance(self.input_column, str):
            raise ValueError(
                f"data.split_column: split {self.split!r} needs the column of the SMILES; data.input_column is "
                f"{self.input_column}"
            )

    def _check_columns(self) -> None:
        if self.input_column is None and self.kind not in ("tabular", "multimodal"):
            raise ValueError(
                f"data.input_column: kind {self.kind!r} needs the name of the column that holds the input"
            )
        inputs: list[str | None] = [*self.input_columns()]
        for name in ("label_column", "label_mask_column"):
            column = getattr(self, name)
            if column is not None and column in [*inputs, self.text_column]:
                raise ValueError(
                    f"data.{name}: {column!r} is also an input column ({[*inputs, self.text_column]}), so the model would "
                    "read the answer: take it out of the input columns"
                )
        if isinstance(self.input_column, dict) != (self.kind == "multimodal") and isinstance(
            self.input_column, (dict, list)
        ):
            raise ValueError(
                f"data.input_column: kind {self.kind!r} takes "
                + ("{modality: column}" if self.kind == "multimodal" else "no {modality: column}")
                + f", got {self.input_column}"
            )
        if isinstance(self.input_column, list) and self.kind not in ("tabular", "series"):
            if self.kind != "tokens":
                raise ValueError(f"data.input_column: kind {self.kind!r} takes one column, got {self.input_column}")
            if len(self.input_column) != 2:
                raise ValueError(
                    "data.input_column: kind 'tokens' takes one column, or two for sentence pairs, got "
                    f"{self.input_column}"
                )
            if self.task == "token_classification":
                raise ValueError(f"data.input_column {self.input_column}: sentence pairs have no labels per token")
        if (self.text_column is None) == (self.kind == "vision_language"):
            raise ValueError(
                f"data.text_column is {self.text_column!r} with kind {self.kind!r}: "
                "'vision_language' needs the column of the text, no other kind has one"
            )
        if self.label_mask_column is not None and self.task != "token_classification":
            raise ValueError(
                f"data.label_mask_column is {self.label_mask_column!r}, which only task 'token_classification' uses; "
                f"task is {self.task!r}"
            )
        if self.task == "token_classification" and self.kind != "tokens":
            raise ValueError(f"data.task 'token_classification' needs kind 'tokens', got {self.kind!r}")
        if self.drop_missing_labels and (self.streaming or self.label_column is None):
            raise ValueError(
                f"data.drop_missing_labels is true with data.label_column {self.label_column!r} and data.streaming "
                f"{self.streaming}: it needs a label column, and rows that can be counted beforehand (streaming false)"
            )

    def input_columns(self) -> list[str]:
        """The columns that `input_column` names; empty for None."""
        if isinstance(self.input_column, dict):
            return list(self.input_column.values())
        return [self.input_column] if isinstance(self.input_column, str) else list(self.input_column or [])

    def _check_multimodal(self) -> None:
        if self.kind == "multimodal":
            for name, unset in (("standardize", "dataset"), ("scale", 1.0)):
                if getattr(self, name) != unset:
                    raise ValueError(
                        f"data.{name} is {getattr(self, name)!r}; kind 'multimodal' sets it for each modality by itself, "
                        "in data.modality_options"
                    )
        elif self.task in DENSE_TASKS:
            raise ValueError(f"data.task {self.task!r} needs kind 'multimodal', got {self.kind!r}")
        else:
            for name in ("modality_options", "augment", "crop_fraction", "allow_missing"):
                if getattr(self, name) not in (None, False):
                    raise ValueError(f"data.{name} is for kind 'multimodal'; kind is {self.kind!r}: remove it")
        dense = {"label_names": "semantic_segmentation"}
        dense |= {"label_scale": "depth_estimation", "label_invalid_value": "depth_estimation"}
        for name, task in dense.items():
            if getattr(self, name) is not None and self.task != task:
                raise ValueError(f"data.{name} is for task {task!r}; task is {self.task!r}: remove it")
        if self.label_scale is not None and self.label_scale <= 0.0:
            raise ValueError(f"data.label_scale: expected a positive number, got {self.label_scale}")

    def _check_scenes(self) -> None:
        size = [self.scene_size] * 2 if isinstance(self.scene_size, int) else self.scene_size
        if len(size) != 2 or min(size) < 8:
            raise ValueError(f"data.scene_size: expected one number or [height, width], at least 8, got {size}")
        if set(self.num_scenes) - set(DEFAULT_NUM_SCENES) or min(self.num_scenes.values(), default=1) < 1:
            raise ValueError(
                f"data.num_scenes: expected positive numbers for some of {list(DEFAULT_NUM_SCENES)}, got {self.num_scenes}"
            )

    def _check_tokens(self) -> None:
        if self.tokenizer is not None and self.alphabet is not None:
            raise ValueError("data.tokenizer and data.alphabet are both set: keep the one that reads the text")
        has_text = self.kind in ("tokens", "vision_language", "masked_text")
        for name in ("tokenizer", "alphabet"):
            if getattr(self, name) is not None and not has_text:
                raise ValueError(f"data.{name}: kind {self.kind!r} has no text; remove it")
        if self.alphabet is not None and len(set(self.alphabet)) != len(self.alphabet):
            repeated = sorted({letter for letter in self.alphabet if self.alphabet.count(letter) > 1})
            raise ValueError(f"data.alphabet: these characters occur twice: {repeated}")
        if self.alphabet == "":
            raise ValueError("data.alphabet: expected at least one character, got an empty string")

    def _check_pack(self) -> None:
        if not self.pack:
            return
        unfit = {
            "kind": self.kind != "tokens",
            "input_column": isinstance(self.input_column, list),
            "label_column": self.label_column is not None,
            "cache": not self.cache and not self.streaming,
        }
        for name, is_unfit in unfit.items():
            if is_unfit:
                raise ValueError(
                    f"data.pack: data.{name} is {getattr(self, name)!r}, but packing needs kind 'tokens', one text "
                    "column, no labels, and rows that are cached or streamed"
                )

    def _check_masked_text(self) -> None:
        if self.kind != "masked_text":
            for name, default in MASKED_TEXT_DEFAULTS.items():
                if getattr(self, name) != default:
                    raise ValueError(
                        f"data.{name} is {getattr(self, name)!r}, which only kind 'masked_text' uses; kind is {self.kind!r}: "
                        "remove it"
                    )
            return
        unfit = {
            "streaming": (self.streaming, "sentences are counted and cached beforehand: set it to false"),
            "cache": (not self.cache, "sentences are cached: leave it out"),
            "alphabet": (
                self.alphabet is not None,
                "its tokenizer has no [CLS] and [SEP]: set data.tokenizer instead",
            ),
            "label_column": (self.label_column is not None, "it is for pre-training; fine-tune with kind 'tokens'"),
        }
        for name, (is_unfit, reason) in unfit.items():
            if is_unfit:
                raise ValueError(f"data.{name} is {getattr(self, name)!r} with kind 'masked_text': {reason}")
        if (self.tokenizer is None) == (self.wordpiece_size is None):
            raise ValueError(
                f"data.tokenizer is {self.tokenizer!r} and data.wordpiece_size {self.wordpiece_size}: kind 'masked_text' "
                "needs one of them, a tokenizer by name, folder or vocab.txt, or the size of one to train"
            )
        if self.tag_column is not None and self.tagger is not None:
            raise ValueError(
                f"data.tag_column {self.tag_column!r} and data.tagger {self.tagger!r} are both set: keep the one to believe"
            )
        self._check_whole_documents()
        for name, lowest in (("num_maskings", 0), ("wordpiece_size", 1), ("sequence_length", 5)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"data.{name}: expected at least {lowest}, got {value}")
        if not 0.0 < self.mlm_probability < 1.0:
            raise ValueError(f"data.mlm_probability: expected a number in (0, 1), got {self.mlm_probability}")
        if not 0.0 <= self.short_sequence_probability <= 1.0:
            raise ValueError(
                f"data.short_sequence_probability: expected a number in [0, 1], got {self.short_sequence_probability}"
            )

    def _check_whole_documents(self) -> None:
        """Documents of several rows are not torn apart by cuts."""
        if self.validation_fraction == 0.0 and self.split == "given":
            return
        if self.document_column is None and self.source != "text":
            return
        if self.split == "random" and self.split_column is not None:
            return
        raise ValueError(
            f"data.validation_fraction {self.validation_fraction} and data.split {self.split!r} would tear documents apart: "
            "name a data.validation_split"
            + (
                f", or set data.split to 'random' and data.split_column to {self.document_column!r}"
                if self.document_column is not None
                else ""
            )
        )


def expand_variables(text: str, field_name: str) -> str:
    """Replace `$NAME`, `${NAME}` and a leading `~`.

    Args:
        text: A path or pattern as written in the recipe.
        field_name: For the error, such as `"data.data_files"`.

    Raises:
        ValueError: When a variable is not set, naming it.
    """
    expanded = os.path.expanduser(os.path.expandvars(text))
    if "$" in expanded:
        start = expanded.index("$")
        name = expanded[start:].split("/")[0]
        raise ValueError(
            f"{field_name}: the environment variable {name} in {text!r} is not set; export it or write the path out"
        )
    return expanded
