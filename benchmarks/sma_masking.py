"""Appendix D of the SMA paper: what choosing masks costs, and how far the queries' choices overlap.

    python benchmarks/sma_masking.py [--sizes 16 24 32 48 64] [--pretraining_steps N] [--device cpu|cuda] [--tables_only]

The costs, guided masking with one top-k beside the exact, iterative procedure, are those of `benchmarks/step_time.py --method
sma`, which has to run first; this script makes their table. The overlap (Figure 4) is measured here, on photographs of clothes at
several sizes, with the model of examples/recipes/sma_clothing64.yaml, untrained and briefly pre-trained with random masks.
Also measured here: the time of the choice alone at the image size of Table 11 against the number of queries, over which the
exact procedure's top-k run one after the other. Each size is written to benchmarks/results/sma_masking/DEVICE-SIZE.json as it
ends, the times to DEVICE-queries.json. The data is found through HF_MASKSSL_SHARED.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from common import RECIPES, RESULTS, ROOT, device_name, interval, read_runs, synchronize
from matplotlib.figure import Figure
from step_time import METHODS, read_results

from hf_maskssl.data import build_config
from hf_maskssl.evaluation.reports import markdown_table
from hf_maskssl.files import write_json
from hf_maskssl.models.guided_masking import top_attention_overlap
from hf_maskssl.models.modeling_sma import ChosenQueries, SMAForMaskedModeling
from hf_maskssl.pictures.figures import grouped_bars
from hf_maskssl.training import Pretrainer, load_pretraining_recipe

NAME = "sma_masking"
RECIPE = "sma_clothing64"
# What every query would mask: |R| of them together mask the ratio, whatever the number of inputs.
NUM_QUERIES = 12
IMAGES = 128
DRAWS = 5  # sets R for each picture
QUERY_COUNTS = [16, 48, 144, 432]  # at image size, where 48 is what the authors' default of 576 masked a query gives
TIMED = 5  # choices of each
PAPER_STEPS_PER_SECOND = {"guided": 3.58, "iterative": 1.13}


# The overlap (Figure 4).


def overlap_of_size(size: int, steps: int, device: str, threads: int) -> dict[str, Any]:
    """The result of one file: overlaps at `size` x `size` inputs, untrained and after `steps` of pre-training."""
    mask_ratio = 0.75
    changes = ["--image_size", f"[{size}, {size}]", "--masking", "random", "--mask_schedule", "none"]
    changes += ["--num_masked_per_query", str(max(1, round(size * size * mask_ratio / NUM_QUERIES)))]
    changes += ["--mask_ratio", str(mask_ratio), "--training.save_steps", "0", "--training.max_steps", str(steps)]
    changes += ["--training.warmup_steps", str(steps // 10)]
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_pretraining_recipe(RECIPES / f"{RECIPE}.yaml", [*changes, "--training.output_dir", folder])
        trainer = Pretrainer(recipe)
        started = time.perf_counter()
        trainer.run()
        seconds = time.perf_counter() - started
        validation: Any = trainer.prepared.validation
        rows = [validation[number] for number in range(IMAGES)]
        pixels = trainer.prepared.collator(rows)["pixel_values"].to(device)
        config = trainer.model.config
        torch.manual_seed(recipe.training.seed)
        models = {"untrained": SMAForMaskedModeling(config), "pretrained": trainer.model}
        found = {name: overlaps(model.to(device), pixels) for name, model in models.items()}
    return {
        "size": size,
        "inputs": size * size,
        "queries": NUM_QUERIES,
        "masked_per_query": config.num_masked_per_query,
        "mask_ratio": mask_ratio,
        "pretraining_steps": steps,
        "seconds": round(seconds, 1),
        "images": IMAGES,
        "draws": DRAWS,
        "overlap": found,
        "device_name": device_name(device, threads),
        "torch": torch.__version__,
    }


@torch.no_grad()
def overlaps(model: SMAForMaskedModeling, pixels: torch.Tensor) -> list[float]:
    """Mean overlap over the pictures, once for every draw of R."""
    model.eval()
    values = []
    for draw in range(DRAWS):
        torch.manual_seed(draw)
        parts = []
        for batch in pixels.split(16):
            tokens = model.sma.embeddings.tokenize(None, None, batch, None)
            chosen = draw_queries(model, len(batch))
            attention = model.sma.attention_to_inputs(tokens, chosen, per_query=True)
            parts.append(top_attention_overlap(attention, model.config.num_masked_per_query))
        values.append(float(torch.cat(parts).mean()))
    return values


def draw_queries(model: SMAForMaskedModeling, batch_size: int) -> ChosenQueries:
    """`NUM_QUERIES` of the latents for each picture, every head counting alike."""
    config = model.config
    draws = torch.rand(batch_size, config.num_latents, device=model.device)
    ids = draws.topk(NUM_QUERIES, dim=1).indices
    heads = model.sma.input_layer.attention.num_heads
    weights = torch.full((batch_size, heads, NUM_QUERIES), 1 / heads, device=model.device)
    mask = torch.zeros_like(draws, dtype=torch.bool).scatter_(1, ids, True)
    return ChosenQueries(ids, weights, mask, is_ragged=False)


# The choice alone, against the number of queries.


def times_of_choices(device: str, threads: int) -> dict[str, Any]:
    """Seconds of `sample_mask` on one picture of 192 x 192 pixels for both procedures and several sizes of R."""
    seconds: dict[str, dict[str, list[float]]] = {"guided": {}, "iterative": {}}
    pixels = torch.rand(1, 3, 192, 192, device=device)
    for count in QUERY_COUNTS:
        models = {}
        for masking in seconds:
            recipe = load_pretraining_recipe(RECIPES / "sma_imagenet100.yaml", ["--masking", masking])
            per_query = round(pixels[0, 0].numel() * recipe.model["mask_ratio"] / count)
            config = build_config(recipe.model | {"num_masked_per_query": per_query})
            models[masking] = SMAForMaskedModeling(config).to(device)  # type: ignore[arg-type]
        for turn in range(
            TIMED + 1
        ):  # in turns, so that whatever else the machine does meets both; the first warms up
            for masking, model in models.items():
                synchronize(device)
                started = time.perf_counter()
                model.sample_mask(pixel_values=pixels)
                synchronize(device)
                if turn:
                    seconds[masking].setdefault(str(count), []).append(time.perf_counter() - started)
    return {"seconds": seconds, "device_name": device_name(device, threads), "torch": torch.__version__}


# Tables and plots.


def queries_table(result: dict[str, Any]) -> dict[str, Any]:
    """Median milliseconds of a choice."""
    rows = []
    for count in QUERY_COUNTS:
        guided, iterative = (
            1e3 * float(np.median(result["seconds"][name][str(count)])) for name in ("guided", "iterative")
        )
        rows.append([count, round(36864 * 0.75 / count), guided, iterative, iterative / guided])
    columns = ["queries", "masked by each", "one top-k, ms", "iterative, ms", "times faster"]
    return {"columns": columns, "rows": rows}


def cost_table() -> dict[str, Any] | None:
    """Steps per second with one top-k and with one for each query; None before `step_time.py --method sma` has run."""
    method = METHODS["sma"]
    results = read_results(method, RESULTS / method.results_name)
    rows: list[list[Any]] = []
    for result in results:
        medians = {
            name: entry["seconds"]["median"] for name, entry in result["variants"].items() if "seconds" in entry
        }
        if not {"guided", "iterative"} <= medians.keys():
            continue
        shares = [result["variants"][name]["selection_share"]["median"] for name in ("guided", "iterative")]
        where = f"{result['device_name']}, {method.shapes[result['shape']]} × {result['batch_size']}"
        rates = [f"{1 / medians[name]:.3g}" for name in ("guided", "iterative")]
        rows.append(
            [
                f"{where}, {result['precision']}, {result['mode']}",
                *rates,
                medians["iterative"] / medians["guided"],
                *(100 * share for share in shares),
            ]
        )
    if not rows:
        return None
    paper = PAPER_STEPS_PER_SECOND
    rows.append(
        [
            "paper, images",
            *(f"{paper[name]:.3g}" for name in ("guided", "iterative")),
            paper["guided"] / paper["iterative"],
            "below 2",
            None,
        ]
    )
    columns = ["setting", "one top-k, steps/s", "iterative, steps/s", "times faster"]
    return {"columns": [*columns, "choosing the mask, %", "choosing it iteratively, %"], "rows": rows}


def overlap_table(runs: list[dict[str, Any]]) -> dict[str, Any]:
    rows = []
    for result in runs:
        cells = [interval(result["overlap"].get(name, [])) for name in ("untrained", "pretrained")]
        rows.append([result["inputs"], result["masked_per_query"], *cells])
    chance = f"{NUM_QUERIES} queries"
    return {"columns": [f"inputs ({chance})", "top tokens of a query", "untrained, %", "pre-trained, %"], "rows": rows}


def write_tables(folder: Path) -> None:
    """sma_masking.json and .png beside `folder`, from whatever has been measured."""
    results = read_runs(folder)
    runs = sorted((result for result in results if "inputs" in result), key=lambda result: result["inputs"])
    tables = {name: table for name, table in (("cost", cost_table()), ("overlap", overlap_table(runs))) if table}
    timed = [result for result in results if "seconds" in result and "inputs" not in result]
    if timed:
        tables["queries"] = queries_table(timed[0])
    write_json(
        folder.with_suffix(".json"),
        {
            "what": "cost of choosing masks with one top-k and iteratively; overlap of the top attentions of the queries of R",
            "overlap": "1 - |union of the queries' top tokens| / their number, mean and 95 % interval over draws of R",
            "tables": tables,
            "overlaps": runs,
        },
    )
    draw(tables.get("cost"), runs, folder.with_suffix(".png"))
    for table in tables.values():
        print(markdown_table(table["rows"], table["columns"]), end="\n\n")


def draw(cost: dict[str, Any] | None, runs: list[dict[str, Any]], path: Path) -> None:
    """Figure 4 to the left, the costs to the right."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in ("untrained", "pretrained"):
        points = [
            (result["inputs"], interval(result["overlap"][name])) for result in runs if name in result["overlap"]
        ]
        cells = [(inputs, cell) for inputs, cell in points if cell is not None]
        errors = [cell["half_width"] or 0.0 for _, cell in cells]
        means = [cell["mean"] for _, cell in cells]
        left.errorbar([inputs for inputs, _ in cells], means, errors, marker="o", capsize=3, label=name)
    left.set_xlabel("number of inputs (pixels)")
    left.set_ylabel("overlap of the queries' top tokens (%)")
    left.set_xscale("log", base=2)
    left.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    if cost is not None:
        labels = [row[0].replace(", ", "\n") for row in cost["rows"]]
        bars = {
            title: [{"mean": float(row[place]), "half_width": None} for row in cost["rows"]]
            for place, title in ((1, "one top-k"), (2, "iterative"))
        }
        grouped_bars(right, labels, bars)
        right.tick_params(axis="x", labelsize=6)
        right.set_yscale("log")
        right.set_ylabel("training steps per second")
        right.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=[16, 24, 32, 48, 64], help="pixels of a picture's side"
    )
    parser.add_argument("--pretraining_steps", type=int, default=300, help="at least 1")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of a CPU")
    parser.add_argument("--output", type=Path, default=RESULTS / NAME, help="folder of the measurements")
    parser.add_argument("--tables_only", action="store_true", help="make the tables and the plot of what was measured")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    datasets.disable_progress_bars()
    os.environ.setdefault("HF_MASKSSL_SHARED", str(ROOT.parent / "shared"))
    for size in [] if options.tables_only else options.sizes:
        path = options.output / f"{options.device}-{size}.json"
        if not path.exists():
            result = overlap_of_size(size, options.pretraining_steps, options.device, options.threads)
            write_json(path, result)
            print(f"{path.stem}: {result['overlap']} ({result['seconds']} s)", flush=True)
    path = options.output / f"{options.device}-queries.json"
    if not options.tables_only and not path.exists():
        write_json(path, times_of_choices(options.device, options.threads))
    write_tables(options.output)


if __name__ == "__main__":
    main()
