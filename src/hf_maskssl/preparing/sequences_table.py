"""Records of bases and proteins."""

from ..files import JsonView
from . import genomics, proteins
from .numbers_table import DABS, METAMAE, PROBE
from .record import PaperData, Use

TAPE = "https://github.com/songlab-cal/tape"
TAPE_FILES = "https://s3.amazonaws.com/songlabdata/proteindata/data_raw_pytorch"
GENOMICS = "https://github.com/google-research/google-research/tree/master/genomics_ood"
CATALOG = "https://www.tensorflow.org/datasets/catalog/genomics_ood"
VALID: JsonView = {"validation_split": None, "test_split": "valid"}
REGRESSION: JsonView = {**VALID, "task": "regression"}
SPEARMAN = {"metric": "spearman"}
FINETUNED: JsonView = {"validation_split": "valid", "test_split": "test"}
SCORED = "MetaMAE's authors score the validation file, and so does the probe; SMA's score the test file. "

SEQUENCES = (
    PaperData(
        name="genomics",
        title="Genomics: 250 bases of bacteria, 10 classes",
        paper="MetaMAE, Table 1",
        source=GENOMICS,
        licence="see the source",
        layout=(
            "before_2011_in_tr/*.tfrecord and between_2011-2016_in_val/*.tfrecord: x (numbers 0 to 3) and y",
            "or what TensorFlow Datasets has prepared: genomics_ood-train.tfrecord* and -validation.tfrecord*",
        ),
        documented=(f"{GENOMICS}/utils.py", CATALOG, f"{DABS}/genomics/genomics.py"),
        splits="train: 90 % of the split train; probe and test: the split validation, 90 / 10",
        columns={"sequence": "string", "label": "int"},
        rows={"train": 900_000, "probe": 90_000, "test": 10_000},
        labels={"label": 10},
        read=genomics.genomics,
        uses=(
            Use("pretrain", "metamae_genomics", "69.4 % accuracy of the probe (MetaMAE, Table 1)"),
            Use("probe", "metamae_genomics", "69.4 % accuracy (MetaMAE, Table 1)", PROBE),
        ),
        note="Of the release's files the first 100,000 and 10,000 rows of each class are taken, as many as TensorFlow Datasets "
        "has. DABS reads the rows in its order.",
    ),
    PaperData(
        name="genomics_ood",
        title="Genomics-OOD: 250 bases of bacteria, 60 classes that no training row has",
        paper="MetaMAE, Table 2",
        source=GENOMICS,
        licence="see the source",
        layout=(
            "between_2011-2016_ood_val/*.tfrecord: x (numbers 0 to 3) and y",
            "or what TensorFlow Datasets has prepared: genomics_ood-validation_ood.tfrecord*",
        ),
        documented=(f"{GENOMICS}/utils.py", CATALOG, f"{DABS}/genomics/genomics.py"),
        splits="probe and test: the split validation_ood, 90 / 10",
        columns={"sequence": "string", "label": "int"},
        rows={"probe": 540_000, "test": 60_000},
        labels={"label": 60},
        read=genomics.genomics_ood,
        uses=(Use("probe", "metamae_genomics", "37.2 % accuracy (MetaMAE, Table 2)", PROBE, {"batch_size": 32}),),
        note="Of the release's files the first 10,000 rows of each class are taken, as many as TensorFlow Datasets has.",
    ),
    PaperData(
        name="pfam",
        title="Pfam: protein domains, 623 clans",
        paper="MetaMAE, Table 1; SMA, Table 1",
        source=TAPE,
        licence="CC0 (Pfam); see the source",
        layout=("pfam/pfam_train.json and pfam_valid.json: records with primary and clan",),
        documented=(f"{TAPE}#raw-data", f"{DABS}/proteins/pfam.py"),
        splits="train: pfam_train; probe and test: 200,000 random records of pfam_valid, 90 / 10",
        columns={"primary": "string", "clan": "int"},
        rows={"train": 32_207_059, "probe": 180_000, "test": 20_000},
        labels={"clan": 623},
        read=proteins.pfam,
        uses=(
            Use("pretrain", "metamae_pfam", "62.3 % accuracy of the probe (MetaMAE, Table 1)"),
            Use("probe", "metamae_pfam", "62.3 % accuracy (MetaMAE, Table 1)", PROBE),
        ),
        downloads=(f"{TAPE_FILES}/pfam.tar.gz",),
        hub="jxie/pfam (sequences alone)",
    ),
    PaperData(
        name="scop",
        title="SCOP: folds of proteins, remote homology",
        paper="MetaMAE, Table 2; SMA, Table 1",
        source=TAPE,
        licence="see the source",
        layout=(
            "remote_homology/remote_homology_train.json, _valid.json, _test_fold_holdout.json: primary, fold_label",
        ),
        documented=(f"{TAPE}#raw-data", f"{DABS}/proteins/scop.py"),
        splits="train, valid, test: the files of that name",
        columns={"primary": "string", "fold_label": "int"},
        rows={"train": 12_312, "valid": 736, "test": 718},
        labels={"fold_label": 1195},
        read=proteins.scop,
        uses=(
            Use(
                "probe",
                "metamae_pfam",
                "11.8 % accuracy (MetaMAE, Table 2)",
                {**VALID, "train_split": "train", "label_column": "fold_label"},
            ),
            Use(
                "finetune",
                "finetune_sma_proteins",
                "23 % accuracy (SMA, Table 1)",
                {**FINETUNED, "label_column": "fold_label", "task": "classification"},
                finetuning={"metric": "accuracy", "batch_size": 512},
            ),
        ),
        note=SCORED
        + "DABS's code names the validation file as the training file, too; here the training file trains. With it "
        "SMA sets --drop_path_rate 0.1.",
        downloads=(f"{TAPE_FILES}/remote_homology.tar.gz",),
        hub="jxie/scop",
    ),
    PaperData(
        name="secondary_structure",
        title="Secondary Structure: helix, strand or other, residue by residue",
        paper="MetaMAE, Table 2",
        source=TAPE,
        licence="see the source",
        layout=(
            "secondary_structure/secondary_structure_train.json, _valid.json, _cb513.json: primary, ss3, valid_mask",
        ),
        documented=(f"{TAPE}#raw-data", f"{METAMAE}/token.py"),
        splits="train, valid: the files of that name; test: CB513",
        columns={"primary": "string", "ss3": "ints", "mask": "ints", "padded": "string", "ss4": "ints"},
        rows={"train": 8_678, "valid": 2_170, "test": 513},
        labels={},
        read=proteins.secondary_structure,
        uses=(
            Use(
                "probe",
                "metamae_pfam",
                "65.9 % accuracy of 4 classes (MetaMAE, Table 2)",
                {
                    **VALID,
                    "train_split": "train",
                    "input_column": "padded",
                    "label_column": "ss4",
                    "task": "token_classification",
                },
            ),
            Use(
                "probe",
                "metamae_pfam",
                "no number of the paper: padding does not count",
                {
                    **VALID,
                    "train_split": "train",
                    "label_column": "ss3",
                    "label_mask_column": "mask",
                    "task": "token_classification",
                },
                name="probe_residues",
            ),
        ),
        note=SCORED + "Table 16 has 4 classes: the fourth is padding, letters X up to 128, which DABS scores as well.",
        downloads=(f"{TAPE_FILES}/secondary_structure.tar.gz",),
    ),
    PaperData(
        name="stability",
        title="Stability: of small designed proteins, a number",
        paper="MetaMAE, Table 2; SMA, Table 1",
        source=TAPE,
        licence="see the source",
        layout=("stability/stability_train.json, _valid.json, _test.json: primary, stability_score (a list of one)",),
        documented=(f"{TAPE}#raw-data", f"{METAMAE}/token.py"),
        splits="train, valid, test: the files of that name",
        columns={"primary": "string", "stability_score": "float"},
        rows={"train": 53_614, "valid": 2_512, "test": 12_851},
        labels={},
        read=proteins.stability,
        uses=(
            Use(
                "probe",
                "metamae_pfam",
                "0.53 Spearman (MetaMAE, Table 2)",
                {**REGRESSION, "train_split": "train", "label_column": "stability_score"},
                SPEARMAN,
            ),
            Use(
                "finetune",
                "finetune_sma_proteins",
                "0.80 Spearman (SMA, Table 1)",
                {**FINETUNED, "label_column": "stability_score"},
                finetuning={"batch_size": 128},
            ),
        ),
        note=SCORED.rstrip(),
        downloads=(f"{TAPE_FILES}/stability.tar.gz",),
        hub="jxie/stability",
    ),
    PaperData(
        name="fluorescence",
        title="Fluorescence: brightness of variants of avGFP, a number",
        paper="MetaMAE, Table 2; SMA, Table 1",
        source=TAPE,
        licence="see the source",
        layout=(
            "fluorescence/fluorescence_train.json, _valid.json, _test.json: primary, log_fluorescence (a list of one)",
        ),
        documented=(f"{TAPE}#raw-data", f"{METAMAE}/token.py"),
        splits="train, valid, test: the files of that name",
        columns={"primary": "string", "log_fluorescence": "float"},
        rows={"train": 21_446, "valid": 5_362, "test": 27_217},
        labels={},
        read=proteins.fluorescence,
        uses=(
            Use(
                "probe",
                "metamae_pfam",
                "0.31 Spearman (MetaMAE, Table 2)",
                {**REGRESSION, "train_split": "train", "label_column": "log_fluorescence"},
                SPEARMAN,
            ),
            Use("finetune", "finetune_sma_proteins", "0.68 Spearman (SMA, Table 1)", FINETUNED),
        ),
        note=SCORED.rstrip(),
        downloads=(f"{TAPE_FILES}/fluorescence.tar.gz",),
        hub="jxie/fluorescence",
    ),
)
