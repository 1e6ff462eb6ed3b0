"""Records of sensors and of tables of numbers."""

from . import sensors, tables
from .record import PaperData, Use

DABS = "https://github.com/alextamkin/dabs/tree/main/src/datasets"
METAMAE = "https://github.com/alinlab/MetaMAE/tree/main/data"
UCI = "https://archive.ics.uci.edu"
PROBE = {"train_split": "probe", "test_split": "test"}

NUMBERS = (
    PaperData(
        name="pamap2",
        title="PAMAP2: wearable sensors, 12 activities",
        paper="MetaMAE, Table 1",
        source=f"{UCI}/dataset/231/pamap2+physical+activity+monitoring",
        licence="CC BY 4.0",
        layout=("Protocol/subject101.dat to subject109.dat: 54 columns, blanks between them, no header",),
        documented=(f"{UCI}/dataset/231/pamap2+physical+activity+monitoring", f"{METAMAE}/timeseries.py"),
        splits="train: windows of subjects 101-104 and 107-109; test: of 105 and 106",
        columns={"series": "series", "label": "int"},
        rows={"train": 50_000, "test": 10_000},
        labels={"label": 12},
        read=sensors.pamap2,
        uses=(
            Use(
                "pretrain", "metamae_pamap2", "89.3 % accuracy of the probe (MetaMAE, Table 1)", {"test_split": "test"}
            ),
            Use("probe", "metamae_pamap2", "89.3 % accuracy (MetaMAE, Table 1)", {"test_split": "test"}),
        ),
        note="The authors draw windows anew in every epoch; here they are drawn once. Values in front of a sensor's first one "
        "are filled with it.",
        downloads=(f"{UCI}/ml/machine-learning-databases/00231/PAMAP2_Dataset.zip",),
    ),
    PaperData(
        name="higgs",
        title="HIGGS: 28 features of simulated collisions, the cut of DABS",
        paper="MetaMAE, Table 1",
        source=f"{UCI}/dataset/280/higgs",
        licence="CC BY 4.0",
        layout=("HIGGS.csv.gz or HIGGS.csv: the class and 28 features, no header",),
        documented=(f"{UCI}/dataset/280/higgs", f"{DABS}/particle_physics/higgs.py"),
        splits="train: 90 % of the first 9.9 million rows; probe and test: the last 1.1 million, 90 / 10",
        columns={"inputs": "floats", "label": "int"},
        rows={"train": 8_910_000, "probe": 990_000, "test": 110_000},
        labels={"label": 2},
        read=tables.higgs,
        uses=(
            Use(
                "pretrain", "metamae_higgs", "71.5 % accuracy of the probe (MetaMAE, Table 1)", {"test_split": "test"}
            ),
            Use("probe", "metamae_higgs", "71.5 % accuracy (MetaMAE, Table 1)", PROBE),
        ),
        note="DABS reads the rows in the order of TensorFlow Datasets, here they are in the file's.",
        downloads=(f"{UCI}/ml/machine-learning-databases/00280/HIGGS.csv.gz",),
        hub="jxie/higgs (another cut)",
    ),
    PaperData(
        name="higgs_sma",
        title="HIGGS: 28 features of simulated collisions, the release's cut",
        paper="SMA, Table 3a",
        source=f"{UCI}/dataset/280/higgs",
        licence="CC BY 4.0",
        layout=("HIGGS.csv.gz or HIGGS.csv: the class and 28 features, no header",),
        documented=(f"{UCI}/dataset/280/higgs",),
        splits="train: the first 10.5 million rows; test: the last 500,000",
        columns={"inputs": "floats", "label": "int"},
        rows={"train": 10_500_000, "test": 500_000},
        labels={"label": 2},
        read=tables.higgs_sma,
        uses=(
            Use("pretrain", "sma_higgs", "69.47 % accuracy after 1,000 labels (SMA, Table 3a)"),
            Use("finetune", "finetune_sma_higgs", "69.47 % accuracy (SMA, Table 3a)", {"test_split": "test"}),
        ),
        downloads=(f"{UCI}/ml/machine-learning-databases/00280/HIGGS.csv.gz",),
        hub="jxie/higgs (another test)",
    ),
    PaperData(
        name="year",
        title="YearPredictionMSD: the year of a song from 90 features of its sound",
        paper="SMA, Table 6",
        source=f"{UCI}/dataset/203/yearpredictionmsd",
        licence="CC BY 4.0",
        layout=("YearPredictionMSD.txt: the year and 90 features, commas between them, no header",),
        documented=(f"{UCI}/dataset/203/yearpredictionmsd",),
        splits="train and valid: the first 463,715 rows, as Gorishniy et al. 2021; test: the last 51,630",
        columns={"year": "int", **{f"timbre_{number:02}": "float" for number in range(1, tables.YEAR_FEATURES + 1)}},
        rows={"train": 370_972, "valid": 92_743, "test": 51_630},
        labels={},
        read=tables.year,
        uses=(
            Use("pretrain", "sma_year", "RMSE 8.695 years after fine-tuning (SMA, Table 6)"),
            Use("finetune", "finetune_sma_year", "RMSE 8.695 years (SMA, Table 6)"),
        ),
        note="Which rows validate is not Gorishniy et al.'s choice, only how many.",
        downloads=(f"{UCI}/ml/machine-learning-databases/00203/YearPredictionMSD.txt.zip",),
    ),
)
