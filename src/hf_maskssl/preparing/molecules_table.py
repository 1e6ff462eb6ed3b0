"""Records of MoleculeNet's tasks, which SMA fine-tunes on."""

from collections.abc import Mapping

from ..files import JsonObject
from .molecules import TOX21, table_of
from .record import PaperData, Use

MOLECULENET = "https://moleculenet.org/datasets-1"
FILES = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets"
REGRESSION = {"task": "regression"}
CUT: JsonObject = {"split": "scaffold"}  # what the recipe of pre-training says nothing of


def molecules(
    name: str,
    title: str,
    files: tuple[str, ...],
    rows: int,
    expected: str,
    *,
    label: str | None = None,
    labels: Mapping[str, str] | None = None,
    smiles: str = "smiles",
    is_class: bool = True,
    note: str = "",
) -> PaperData:
    """The record of a task.

    Args:
        name: Name of the task.
        title: What it asks.
        files: Names of its file, as it may be called.
        rows: Number of its molecules.
        expected: Number of the paper.
        label: Column of the label in the file, which becomes `label`.
        labels: Columns of several tasks, in place of one: name -> column of the file. Recipes take them together.
        smiles: Column of the SMILES in the file.
        is_class: Whether labels are classes and not measured numbers.
        note: What is to be known.
    """
    columns = dict(labels) if labels is not None else {"label": str(label)}
    data: JsonObject = {"train_split": "train", "input_column": "smiles", "label_column": "label"}
    metric = "roc_auc" if is_class else "rmse"
    if labels is not None:
        data |= {"label_column": list(columns), "task": "multi_label_classification"}
        metric = "mean_roc_auc"
    data |= {} if is_class else REGRESSION
    tuned = Use("finetune", "finetune_sma_molecules", expected, data, finetuning={"metric": metric})
    # SMA probes nothing; of several tasks a probe says what frozen features know of each.
    probed = Use("probe", "sma_guacamol", "no number of the paper", data | CUT)
    return PaperData(
        name=name,
        title=title,
        paper="SMA, Table 2" if len(columns) == 1 else "MoleculeNet",
        source=MOLECULENET,
        licence="see the source",
        layout=(
            f"{' or '.join(files)}: {smiles} and {', '.join(list(columns.values())[:2])}"
            + " ..." * (len(columns) > 2),
        ),
        documented=(MOLECULENET, "https://arxiv.org/abs/1703.00564"),
        splits="train: all molecules; the recipe cuts them by scaffolds",
        columns={"smiles": "string", **dict.fromkeys(columns, "int" if is_class else "float")},
        rows={"train": rows},
        labels=dict.fromkeys(columns, 2) if is_class else {},
        read=table_of(files, smiles, columns, is_class),
        uses=(tuned,) if labels is None else (tuned, probed),
        note=note,
        downloads=(f"{FILES}/{files[0]}",),
    )


MOLECULES = (
    molecules(
        "bbbp",
        "BBBP: passes the blood-brain barrier",
        ("BBBP.csv",),
        2_050,
        "75.0 % ROC-AUC (SMA, Table 2)",
        label="p_np",
    ),
    molecules(
        "bace",
        "BACE: inhibits beta-secretase 1",
        ("bace.csv",),
        1_513,
        "84.3 % ROC-AUC (SMA, Table 2)",
        label="Class",
        smiles="mol",
    ),
    molecules(
        "hiv",
        "HIV: inhibits the virus's replication",
        ("HIV.csv",),
        41_127,
        "78.9 % ROC-AUC (SMA, Table 2)",
        label="HIV_active",
    ),
    molecules(
        "tox21",
        "Tox21: 12 toxicity assays, with gaps",
        ("tox21.csv.gz", "tox21.csv"),
        7_831,
        "no number of the paper",
        labels={name: name for name in TOX21},
        note="A column for each assay, all learnt together; one alone: --label_column '[SR-p53]'.",
    ),
    molecules(
        "esol",
        "ESOL: solubility in water",
        ("delaney-processed.csv",),
        1_128,
        "RMSE 0.623 (SMA, Table 2)",
        label="measured log solubility in mols per litre",
        is_class=False,
    ),
    molecules(
        "freesolv",
        "FreeSolv: energy of hydration",
        ("SAMPL.csv",),
        642,
        "RMSE 1.09 (SMA, Table 2)",
        label="expt",
        is_class=False,
    ),
    molecules(
        "lipo",
        "Lipophilicity: octanol against water",
        ("Lipophilicity.csv",),
        4_200,
        "RMSE 0.609 (SMA, Table 2)",
        label="exp",
        is_class=False,
    ),
)
