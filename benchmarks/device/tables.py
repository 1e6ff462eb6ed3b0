"""benchmarks/results/device.json, the tables of what GPU machines measured, from results/device/*/speed.json.

python benchmarks/device/tables.py
"""

import json
from pathlib import Path
from typing import Any

from hf_maskssl.files import write_json

RESULTS = Path(__file__).resolve().parents[1] / "results"
TITLES = {
    "metamae/pamap2/metamae": "MetaMAE, PAMAP2",
    "metamae/pamap2/mae": "MAE, PAMAP2",
    "metamae/pfam/metamae": "MetaMAE, Pfam",
    "metamae/pfam/mae": "MAE, Pfam",
    "metamae/eurosat/metamae": "MetaMAE, EuroSAT",
    "metamae/eurosat/mae": "MAE, EuroSAT",
    "sma/pfam/guided": "SMA guided, Pfam",
    "sma/pfam/random": "SMA random, Pfam",
    "sma/imagenet100/guided": "SMA guided, ImageNet-100",
    "multimae/imagenet1k/none": "MultiMAE-B, ImageNet-1K",
    "multimae/imagenet1k/minimax": "MM-MAE (minimax), ImageNet-1K",
    "pos_bert/length128/minimax": "PoS-BERT-base, 128 pieces",
    "pos_bert/length128/bert": "transformers' BertForMaskedLM, 128 pieces",
    "pos_bert/length512/minimax": "PoS-BERT-base, 512 pieces",
    "pos_bert/length512/bert": "transformers' BertForMaskedLM, 512 pieces",
    "vit_b16/ours": "MAE ViT-B/16, 224 x 224",
    "vit_b16/transformers": "transformers' ViTMAE ViT-B/16, 224 x 224",
    "recipe/spoken_digits": "MetaMAE, recipe spoken_digits",
    "recipe/sma_smiles_corpus": "SMA, recipe sma_smiles_corpus",
    "recipe/pos_bert_brown": "PoS-BERT, recipe pos_bert_brown",
    "recipe/multimae_scenes": "MultiMAE, recipe multimae_scenes",
}


def read_all() -> list[tuple[str, dict[str, Any]]]:
    """(card, record) of every line of every run, a later run of the same combination in place of an earlier one."""
    newest: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    for path in sorted((RESULTS / "device").glob("*/speed.json")):
        machine = json.loads((path.parent / "machine.json").read_text(encoding="utf-8"))[-1]
        for record in json.loads(path.read_text(encoding="utf-8")):
            key = json.dumps(
                [record.get(name) for name in ("stage", "name", "workers", "graphs", "multi_process_service")]
            )
            if "skipped" not in record:
                newest[machine["card"], key] = (machine["card"], record)
    return list(newest.values())


def steps(records: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Time, memory and utilisation of a step."""
    rows: list[list[Any]] = []
    for card, record in records:
        if "milliseconds" not in record:
            continue
        times = record["milliseconds"]
        rows.append(
            [
                TITLES.get(record["model"], record["model"]),
                f"{record['precision']}, {record['mode']}",
                record["rows"],
                f"{times['median']:.1f} ({times['lower_quartile']:.1f}–{times['upper_quartile']:.1f})",
                round(record["samples_per_second"]),
                round(record["peak_mib"]),
                100 * record["utilisation"],
                record["host_waits"]["count"],
                card,
            ]
        )
    columns = [
        "model",
        "precision, mode",
        "batch",
        "step, ms",
        "samples/s",
        "peak, MiB",
        "MFU, %",
        "host waits",
        "card",
    ]
    return {"columns": columns, "rows": rows}


def concurrency(records: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Steps a second of several small runs together."""
    rows = [
        [
            record["workers"],
            "CUDA graphs" if record["graphs"] else "eager",
            record["multi_process_service"],
            round(record["steps_per_second"]),
            card,
        ]
        for card, record in records
        if record["stage"] == "concurrency"
    ]
    columns = ["runs at a time", "mode", "multi-process service", "steps/s of all together", "card"]
    return {"columns": columns, "rows": rows}


def peaks(records: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The denominators of the utilisation."""
    rows = [
        [card, *(record["teraflop_per_second"][name] for name in ("bf16", "tf32", "float32"))]
        for card, record in records
        if "teraflop_per_second" in record
        if record["name"] == "matrix product"
    ]
    return {"columns": ["card", "bf16, TFLOP/s", "TF32, TFLOP/s", "float32, TFLOP/s"], "rows": rows}


def main() -> None:
    records = read_all()
    tables = {"steps": steps(records), "concurrency": concurrency(records), "peaks": peaks(records)}
    write_json(RESULTS / "device.json", {"what": "measured by benchmarks/device/run.sh", "tables": tables})


if __name__ == "__main__":
    main()
