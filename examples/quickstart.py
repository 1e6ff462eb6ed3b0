"""Pre-train a small MetaMAE on handwritten digits, reload it in a fresh process, and measure it: `make quickstart`.

Writes outputs/quickstart/: result.json, reconstructions.png, curves.png and the checkpoint `metamae` (with `mae` and `untrained`
beside it for comparison). Nothing is downloaded.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from argparse import RawDescriptionHelpFormatter
from pathlib import Path

from accelerate.utils import set_seed
from transformers import AutoModelForPreTraining

from hf_maskssl.data import build_config, prepare_data
from hf_maskssl.data.arguments import DataArguments
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.evaluate_checkpoint import evaluate_checkpoint
from hf_maskssl.evaluation.reports import markdown_table
from hf_maskssl.files import write_json
from hf_maskssl.hub.cards import write_model_card
from hf_maskssl.recipes import load_recipe
from hf_maskssl.scripts import OneLineErrors, run_script
from hf_maskssl.terminal import duration, one_voice
from hf_maskssl.training import PretrainingRecipe, load_pretraining_recipe, pretrain

RECIPE = Path(__file__).resolve().parent / "recipes" / "digits.yaml"
OUTPUT = Path("outputs") / "quickstart"
# What is compared: the same encoder, data and number of steps. Changes to the recipe, after a title for the table.
METHODS = {
    "untrained": ("untrained encoder", []),
    "mae": ("MAE", ["--num_adaptation_steps", "0", "--contrastive_weight", "0.0"]),
    "metamae": ("MetaMAE", []),
}


def command() -> str | None:
    """The word of the command line: None, or "measure", which the script gives to itself; `--help` ends it here."""
    parser = OneLineErrors(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=["measure"], help="the second half alone: measure what is there")
    return parser.parse_args().command


def main() -> None:
    started = time.perf_counter()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    steps = 0
    for name, (title, changes) in METHODS.items():
        recipe = load_pretraining_recipe(RECIPE, [*changes, "--output_dir", str(OUTPUT / name)])
        if name == "untrained":
            with one_voice():
                save_untrained(recipe)
            continue
        print(f"\n{title}: {recipe.training.max_steps} steps", flush=True)
        state = pretrain(recipe, write_card=write_model_card)
        if state.interrupted:
            raise SystemExit(f"{title} was stopped at step {state.step}: start the script again, it begins anew.")
        steps = state.step
        print(f"loss {state.latest('train/loss'):.3f}, {duration(state.seconds)}", flush=True)
    pictures = OUTPUT / "metamae" / "pictures"
    shutil.copy2(max(pictures.glob("reconstruction-*.png")), OUTPUT / "reconstructions.png")
    shutil.copy2(pictures / "curves.png", OUTPUT / "curves.png")

    # A fresh process, as anyone would who has only the folders.
    subprocess.run([sys.executable, __file__, "measure"], check=True)
    result = json.loads((OUTPUT / "result.json").read_text())
    seconds = round(time.perf_counter() - started)
    write_json(OUTPUT / "result.json", {"steps": steps, "seconds": seconds, **result})
    titles = {name: title for name, (title, _) in METHODS.items()}
    titles |= {"raw_inputs": "no encoder: raw pixels", "majority": "no encoder: most frequent class"}
    rows = [
        [title, *(_shown(result[name].get(probe)) for probe in ("linear_probe", "knn"))]
        for name, title in titles.items()
    ]
    print("\nAccuracy (%) of frozen features on 360 held-out digits\n")
    print(markdown_table(rows, ["encoder", "linear probe", "kNN"]))
    print(f"\n{steps} steps each, {seconds} s in all. Pictures and checkpoint: {OUTPUT}/")


def _shown(score: float | None) -> str:
    return "–" if score is None else f"{score:.1f}"


def save_untrained(recipe: PretrainingRecipe) -> None:
    """The encoder that the other two start from."""
    config = build_config(recipe.model)
    set_seed(recipe.training.seed)
    AutoModelForPreTraining.from_config(config).save_pretrained(recipe.training.output_dir)
    processor = prepare_data(recipe.data, config).processor
    if processor is not None:
        processor.save_pretrained(recipe.training.output_dir)


def measure() -> None:
    """Linear-probe and kNN accuracy of every saved encoder."""
    sections = load_recipe(RECIPE, sections={"data": DataArguments, "probe": ProbeArguments})
    result = {}
    for name in METHODS:
        # What needs no encoder is the same for all, and the untrained one is measured anyway.
        probe = dataclasses.replace(sections["probe"], baselines=name == "metamae")
        with one_voice(quiet=True):
            scores = evaluate_checkpoint(str(OUTPUT / name), sections["data"], probe)
        for baseline in ("majority", "raw_inputs"):
            if baseline in scores["baselines"]:
                result[baseline] = {"linear_probe": 100 * scores["baselines"][baseline]["linear"][0]["accuracy"]}
        result[name] = {
            probe: 100 * scores[key][0]["accuracy"] for probe, key in (("linear_probe", "linear"), ("knn", "knn"))
        }
    write_json(OUTPUT / "result.json", result)


if __name__ == "__main__":
    run_script(lambda: measure() if command() == "measure" else main())
