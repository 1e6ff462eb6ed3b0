"""A small family of checkpoints, each pre-trained from a recipe, probed beside baselines and made ready to be published.

    python benchmarks/checkpoints.py [--only NAME ...] [--steps N] [--output FOLDER] [--threads N] [--tables_only]

Each becomes a folder OUTPUT/NAME with weights, code, processor, card (scores, cost, recipe) and ONNX, as `publish` wants it. What
was measured goes to benchmarks/results/checkpoints/NAME.json, the card to model_cards/NAME.md, the table to docs/checkpoints.md.
An interrupted call goes on where it stopped. `--steps 20` rehearses: all of it, results and cards too, lies below OUTPUT then.
"""

import argparse
import dataclasses
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from common import RECIPES, RESULTS, ROOT, device_name
from transformers import AutoModel

from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.evaluate_checkpoint import measure_and_report
from hf_maskssl.evaluation.reports import markdown_table
from hf_maskssl.files import incomplete_folder, remove_incomplete, write_json, write_whole
from hf_maskssl.hub.card_headers import CARD
from hf_maskssl.hub.card_results import few_labels, source_name, with_evaluation
from hf_maskssl.hub.cards import PLACEHOLDER, complete_card, write_model_card
from hf_maskssl.hub.loading import check_loading
from hf_maskssl.hub.publish import check_files
from hf_maskssl.hub.published_files import select_files
from hf_maskssl.scripts import OneLineErrors, run_script
from hf_maskssl.training import load_pretraining_recipe, pretrain

NAME = "checkpoints"
EXPORT = "hf_maskssl.hub.export"
SEEDS = {"seeds": [0, 1, 2, 3, 4]}
FEW = {"labels_per_class": 20, **SEEDS}
SHARED = "${HF_MASKSSL_SHARED}/data"
PAGE = """# Checkpoints

A small family, made by [benchmarks/checkpoints.py](../benchmarks/checkpoints.py) from packaged recipes on two CPU cores. The
encoder is frozen; a linear probe reads it (logistic or ridge regression), and the same probe reads an untrained encoder and the
raw inputs. Each checkpoint was pre-trained once: intervals are over draws of few labels, not over pre-training.

<!-- table:checkpoints/docs -->
<!-- /table:checkpoints/docs -->

What they are worth: the two MetaMAEs and multimae-scenes clearly beat an untrained encoder where labels are few. sma-smiles
and sma-proteins do so by kNN or by little; SMA's gain is in [fine-tuning](results.md#sma_molecules). pos-bert-brown does
not: after 48,000 sequences of a corpus of a million words it knows little more than how frequent words are (validation loss
of nouns 7.65, of guessing 8.99). It shows the way, not the method: a text encoder worth loading wants the papers' corpora
and hours of a GPU (`pos_bert_wikibooks`).
"""


@dataclass(frozen=True)
class Probed:
    """A data set that a frozen encoder is probed on.

    Attributes:
        title: Name of the data set.
        data: Fields of a recipe's data section; None takes the recipe's own.
        probe: Fields of a recipe's probe section.
    """

    title: str
    data: Mapping[str, Any] | None = None
    probe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A checkpoint.

    Attributes:
        recipe: Name of the recipe.
        title: Name of the data it is pre-trained on.
        settings: Overrides of the recipe, which the claims have found good.
        probed: Data sets that it is probed on.
        minutes: Time that two cores take, roughly: steps by the seconds of a step in benchmarks/results, and the probes.
    """

    recipe: str
    title: str
    settings: Mapping[str, object]
    probed: Sequence[Probed]
    minutes: int


def parquet(folder: str, **fields: Any) -> dict[str, Any]:
    """The data section of a folder of the small real sets."""
    return {"source": "parquet", "data_dir": f"{SHARED}/{folder}", **fields}


def molecules(name: str, task: str) -> dict[str, Any]:
    """The data section of a task of MoleculeNet, cut by scaffolds."""
    return parquet(
        "moleculenet",
        data_files={"train": f"{name}.parquet"},
        split="scaffold",
        kind="tokens",
        input_column="smiles",
        label_column="label",
        task=task,
        tokenizer="utf-8",
    )


def sentences(name: str, **fields: Any) -> dict[str, Any]:
    """The data section of a task of GLUE."""
    return parquet(
        f"text/{name}",
        data_files={"train": "train.parquet", "dev": "dev.parquet"},
        test_split="dev",
        validation_fraction=0.1,
        max_train_samples=4000,
        kind="tokens",
        label_column="label",
        **fields,
    )


FLUORESCENCE = parquet(
    "proteins/fluorescence",
    data_files={"train": "train.parquet", "valid": "valid.parquet", "test": "test.parquet"},
    validation_split="valid",
    test_split="test",
    max_train_samples=4000,
    max_validation_samples=1000,
    max_test_samples=4000,
    kind="tokens",
    input_column="primary",
    label_column="log_fluorescence",
    task="regression",
    alphabet="XARNDCQEGHILKMFPSTWYVUOBZJ*",
)
ON_DEVICE = {"training.data_on_device": True}
PLANS = {
    # Claim metamae_components: steps and learning rate are those of its runs, on training rows less the validation.
    "metamae-spoken-digits": Plan(
        "spoken_digits",
        "the Free Spoken Digit Dataset",
        {"training.max_steps": 5000, "training.warmup_steps": 500, "training.learning_rate": 3e-3, **ON_DEVICE},
        [Probed("Free Spoken Digit Dataset"), Probed("Free Spoken Digit Dataset", None, FEW)],
        30,
    ),
    "metamae-sensors": Plan(
        "basic_motions",
        "BasicMotions, six channels of a watch",
        {"training.max_steps": 2500, "training.warmup_steps": 250, "training.learning_rate": 1e-3, **ON_DEVICE},
        [Probed("BasicMotions"), Probed("BasicMotions", None, {**FEW, "labels_per_class": 5})],
        4,
    ),
    # Claim sma_molecules: its width and batch; fewer steps than its 20,000, which a GPU has taken.
    "sma-smiles": Plan(
        "sma_smiles_corpus",
        "70,527 molecules as SMILES",
        {
            "model.hidden_size": 128,
            "model.intermediate_size": 256,
            "training.max_steps": 8000,
            "training.warmup_steps": 500,
            **ON_DEVICE,
        },
        [
            Probed("MoleculeNet BBBP, scaffold split", molecules("bbbp", "classification")),
            Probed("MoleculeNet BACE, scaffold split", molecules("bace", "classification")),
            Probed("MoleculeNet ESOL, scaffold split", molecules("esol", "regression")),
        ],
        32,
    ),
    "sma-proteins": Plan(
        "sma_protein_corpus",
        "9,712 protein sequences",
        {"training.max_steps": 5000, "training.warmup_steps": 500, **ON_DEVICE},
        [Probed("TAPE fluorescence", FLUORESCENCE)],
        12,
    ),
    "multimae-scenes": Plan(
        "multimae_scenes",
        "rendered scenes with depth and layout",
        {"training.max_steps": 3000, "training.warmup_steps": 300, "training.picture_steps": 0},
        [Probed("the solid that covers most of a scene"), Probed("the solid that covers most of a scene", None, FEW)],
        16,
    ),
    # Claim minimax_words: its learning rate, batch and dropout; fewer steps than its 10,000.
    "pos-bert-brown": Plan(
        "pos_bert_brown",
        "the Brown corpus",
        {
            "model.hidden_dropout_prob": 0.0,
            "model.attention_probs_dropout_prob": 0.0,
            "training.batch_size": 16,
            "training.learning_rate": 6e-4,
            "training.max_steps": 3000,
        },
        [Probed("GLUE SST-2", sentences("sst2", input_column="sentence"))],
        35,
    ),
}


@dataclass(frozen=True)
class Places:
    """The folders that a call writes to.

    Attributes:
        output: Folder of the checkpoints.
        results: Folder of what was measured.
        cards: Folder of the cards.
        page: Path of the page with the table.
    """

    output: Path
    results: Path = RESULTS
    cards: Path = ROOT / "model_cards"
    page: Path = ROOT / "docs" / "checkpoints.md"

    @classmethod
    def of_rehearsal(cls, output: Path) -> "Places":
        """All of it below one folder."""
        return cls(output, output / "results", output / "model_cards", output / "docs" / "checkpoints.md")


def make(name: str, plan: Plan, places: Places, steps: int | None = None) -> None:
    """Pre-train, probe and assemble one checkpoint, as far as that is not done."""
    run = places.output / "work" / name  # the last part is the model's name in tables
    settings = dict(plan.settings) | ({} if steps is None else _shortened(steps))
    check_plan(run.with_name(f"{name}.json"), settings, plan)
    words = [word for field_name, value in settings.items() for word in (f"--{field_name}", json.dumps(value))]
    words += ["--training.output_dir", str(run)] + (["--resume"] if run.is_dir() else [])
    recipe = load_pretraining_recipe(RECIPES / f"{plan.recipe}.yaml", words)
    state = pretrain(recipe, write_card=write_model_card)
    if state.interrupted:
        raise SystemExit(f"{name}: stopped at step {state.step}; the same command goes on from there.")
    reports = [probed(run, number, each, dataclasses.asdict(recipe.data)) for number, each in enumerate(plan.probed)]
    record = {
        "name": name,
        "title": plan.title,
        "recipe": plan.recipe,
        "settings": settings,
        "steps": state.step,
        "seed": recipe.training.seed,
        "seconds": round(state.seconds, 1),
        "energy_kwh": state.energy_kwh,
        "device": device_name("cpu", torch.get_num_threads()),
        "parameters": AutoModel.from_pretrained(run).num_parameters(),
        "reports": reports,
    }
    card = (run / CARD).read_text(encoding="utf-8").replace(source_name(recipe.data), plan.title)
    card = with_evaluation(card, *reports)
    assemble(run, places.output / name, card)
    write_json(places.results / NAME / f"{name}.json", record)
    text = card_of(card, name)
    write_whole(places.cards / f"{name}.md", lambda aside: aside.write_text(text, encoding="utf-8"))


def check_plan(path: Path, settings: Mapping[str, object], plan: Plan) -> None:
    """Note what a folder is made from, or refuse one that was made from something else.

    Raises:
        ValueError: It was.
    """
    wanted = json.loads(json.dumps({"settings": settings, "plan": dataclasses.asdict(plan)}))
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != wanted:
        raise ValueError(
            f"{path} says that {path.with_suffix('')} was begun by another plan: remove what begins with that name there, or "
            "name another --output."
        )
    write_json(path, wanted)


def _shortened(steps: int) -> dict[str, object]:
    return {"training.max_steps": steps, "training.warmup_steps": 0, "training.eval_steps": 0, "probe.every_steps": 0}


def probed(run: Path, number: int, wanted: Probed, own_data: Mapping[str, Any]) -> dict[str, Any]:
    """What a probe has measured, now or in an earlier call; without paths of this machine."""
    output = run.with_name(f"{run.name}-probes") / str(number)
    data = own_data if wanted.data is None else wanted.data
    probe = ProbeArguments(**wanted.probe)
    report = output / "result.json"
    if not report.is_file():
        output.mkdir(parents=True, exist_ok=True)
        options = argparse.Namespace(output=output, device="cpu", keep_features=False)
        measure_and_report([str(run)], data_arguments(**data), probe, options, wanted.title)
    text = report.read_text(encoding="utf-8").replace(str(run), run.name)
    return json.loads(text) | {"title": wanted.title}


def assemble(run: Path, final: Path, card: str) -> None:
    """Write the folder that `publish` takes, whole or not at all."""
    final.parent.mkdir(parents=True, exist_ok=True)
    remove_incomplete(final.parent)
    folder = incomplete_folder(final)
    for path in select_files(run, card).files:
        shutil.copy2(path, folder / path.name)
    (folder / CARD).write_text(card, encoding="utf-8")
    check_files(folder)
    check_loading(folder)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(folder, final)
    export_onnx(final)


def export_onnx(folder: Path) -> None:
    """Write the encoder as ONNX beside the weights, where the packages for that are installed."""
    if find_spec(EXPORT) is None:
        print(f"{folder.name}: no ONNX, which this version cannot write", flush=True)
        return
    exporting = import_module(EXPORT)
    try:
        exporting.export(str(folder), folder / "onnx", exporting.ExportOptions(head="encoder"))
    except ImportError as error:
        print(f"{folder.name}: no ONNX: {error}", flush=True)


def card_of(card: str, name: str) -> str:
    """The card as model_cards keeps it: with the model's own name, and an organisation still to be named."""
    without_picture = re.sub(r"!\[[^\]]*\]\(curves\.png\)\n\n", "", card)
    return complete_card(without_picture, f"{PLACEHOLDER.partition('/')[0]}/{name}")


def read_records(results: Path) -> list[dict[str, Any]]:
    """What was measured of each checkpoint, in the order of the plans."""
    paths = [results / NAME / f"{name}.json" for name in PLANS]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]


def table(records: Sequence[Mapping[str, Any]], cards: str) -> dict[str, Any]:
    """One row for each data set that a checkpoint was probed on; `cards` is the path of the cards from the page."""
    columns = ["checkpoint", "pre-trained on", "encoder", "probed on", "score", "frozen", "untrained", "raw inputs"]
    columns.append("minutes")
    rows = []
    for record in records:
        name = record["name"]
        for number, report in enumerate(record["reports"]):
            scores = [row[1] for row in report["table"]["rows"]]
            parameters = f"{record['parameters'] / 1e6:.2f} M"
            first = [f"[{name}]({cards}/{name}.md)", record["title"], parameters] if number == 0 else ["", "", ""]
            minutes = f"{record['seconds'] / 60:.0f}" if number == 0 else ""
            metric = report["results"][0]["metric"]
            on = report["title"] + few_labels(report)
            rows.append([*first, on, f"{metric} (%)", *scores[:3], minutes])
    return {"columns": columns, "rows": rows}


def write_tables(places: Places) -> None:
    """The combined results, and the page with its table."""
    records = read_records(places.results)
    tables = {"docs": table(records, "../model_cards"), "readme": table(records, "model_cards")}
    what = (
        "scores in per cent of linear probes on frozen encoders; intervals are 95 % intervals over draws of few labels"
    )
    write_json(places.results / f"{NAME}.json", {"what": what, "table": tables["docs"], "tables": tables})
    text = page_of(tables["docs"])
    write_whole(places.page, lambda aside: aside.write_text(text, encoding="utf-8"))


def page_of(shown: Mapping[str, Any]) -> str:
    """The page with its table filled in."""
    opening = "<!-- table:checkpoints/docs -->\n"
    return PAGE.replace(opening, f"{opening}{markdown_table(shown['rows'], shown['columns'])}\n")


def problems(places: Places) -> list[str]:
    """What does not agree among results, cards and page."""
    found = []
    records = read_records(places.results)
    for record in records:
        path = places.cards / f"{record['name']}.md"
        text = path.read_text(encoding="utf-8") if path.is_file() else None
        if text is None:
            found.append(f"{path.name}: there is no such card")
        elif with_evaluation(text, *record["reports"]) != text:
            found.append(f"{path.name}: its evaluation is not that of the results")
        elif f"| optimiser steps | {record['steps']:,} |" not in text:
            found.append(f"{path.name}: it is of another number of steps than the results")
    if records and (
        not places.page.is_file()
        or places.page.read_text(encoding="utf-8") != page_of(table(records, "../model_cards"))
    ):
        found.append(f"{places.page.name}: its table is not that of the results")
    return found


def main() -> None:
    parser = OneLineErrors(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PLANS), default=list(PLANS), help="default: all")
    parser.add_argument("--steps", type=int, help="of a rehearsal; without it the plans' own")
    parser.add_argument("--output", type=Path, help="default: outputs/checkpoints, of a rehearsal outputs/rehearsal")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--tables_only", action="store_true", help="write the table of what has been measured")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.basicConfig(format="%(message)s")
    os.environ.setdefault("HF_MASKSSL_SHARED", str(ROOT.parent / "shared"))
    rehearses = options.steps is not None
    output = options.output or Path("outputs") / ("rehearsal" if rehearses else NAME)
    places = Places.of_rehearsal(output) if rehearses else Places(output)
    planned = {name: PLANS[name] for name in options.only}
    if not options.tables_only:
        if not rehearses:
            print(f"About {sum(plan.minutes for plan in planned.values())} minutes in all.", flush=True)
        for name, plan in planned.items():
            started = time.perf_counter()
            make(name, plan, places, options.steps)
            print(f"{name}: {places.output / name}, {(time.perf_counter() - started) / 60:.1f} minutes", flush=True)
    write_tables(places)


if __name__ == "__main__":
    run_script(main)
