"""The command line: `hf-maskssl VERB ...`. A verb is a function that reads `sys.argv`; it is imported when it is called."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ..files import did_you_mean
from ..scripts import ONCE_MORE, end, run_script
from ..version import __version__

# Verb -> (module:function below the package, what it does), in the order of a project.
VERBS = {
    "recipes": ("commands.recipes:main", "list, show or copy the recipes of the package"),
    "data": ("commands.data:main", "prepare the papers' data sets from their releases"),
    "fields": ("commands.fields:main", "list the fields of a recipe: type, default, meaning"),
    "describe": ("commands.describe:main", "describe a recipe's data, and what its run will need"),
    "tokenizer": ("commands.tokenizer:main", "train a WordPiece tokenizer"),
    "tag": ("commands.tag:main", "tag words with their parts of speech"),
    "pseudo-label": ("commands.pseudo_label:main", "label pictures with depth and classes"),
    "pretrain": ("commands.pretrain:main", "pre-train an encoder"),
    "probe": ("commands.probe:main", "measure frozen encoders beside baselines"),
    "finetune": ("commands.finetune:main", "fine-tune an encoder over several seeds"),
    "segment": ("commands.finetune:segment", "fine-tune to name the class of every pixel"),
    "depth": ("commands.finetune:depth", "fine-tune to estimate the depth of every pixel"),
    "sweep": ("commands.sweep:main", "run a grid or a list of changes to a recipe"),
    "embed": ("commands.embed:main", "write the features of data, a row each"),
    "neighbors": ("commands.neighbors:main", "find the nearest rows of features"),
    "map": ("commands.map:main", "draw features as points, coloured by a column"),
    "impute": ("commands.impute:main", "fill in what is missing in a table or in series"),
    "masks": ("commands.masks:main", "draw the masks that an SMA chooses"),
    "predict": ("commands.predict:main", "draw what a MultiMAE sees and predicts"),
    "convert": ("hub.conversion:main", "convert a checkpoint of the methods' authors"),
    "export": ("commands.export:main", "export a checkpoint to ONNX, torch.export or a plain ViT"),
    "publish": ("hub.publish:main", "check a folder and put it on the Hub"),
    "doctor": ("commands.doctor:main", "print versions, device, extras and caches"),
}
# What to do after Ctrl-C or SIGTERM, where that is not to begin anew.
GOES_ON = f"{ONCE_MORE}, which goes on with what is written"
AFTER_SIGNAL = dict.fromkeys(("tag", "pseudo-label", "finetune", "segment", "depth", "sweep", "embed"), GOES_ON)
AFTER_SIGNAL["pretrain"] = f"{ONCE_MORE}, with --resume where checkpoints are written"
HELP = """hf-maskssl: masked self-supervised encoders for data of any kind.

usage: hf-maskssl VERB ...    (hf-maskssl VERB --help says more)

{verbs}

RECIPE is a YAML file or the name of a recipe of the package; --FIELD VALUE
changes any of its fields. On several GPUs or machines:
accelerate launch -m hf_maskssl pretrain RECIPE"""


def help_text() -> str:
    """The help page of the command, at most 80 columns wide."""
    width = max(len(verb) for verb in VERBS)  # no `map`, which is a module here once its verb has run
    return HELP.format(verbs="\n".join(f"  {verb:{width}}  {meaning}" for verb, (_, meaning) in VERBS.items()))


def function_of(verb: str) -> Callable[[], object]:
    """The function of a verb of `VERBS`, imported now."""
    module, _, name = VERBS[verb][0].partition(":")
    function: Callable[[], object] = getattr(import_module(f"hf_maskssl.{module}"), name)
    return function


def run(verb: str) -> None:
    """Run a verb on the words of `sys.argv`; a user's mistake, Ctrl-C or SIGTERM ends it with one line (`run_script`)."""

    def speak() -> None:
        # Here, as it imports datasets, which the page of help does not need, and takes long enough for a Ctrl-C.
        from ..terminal import log_to_terminal, one_voice

        log_to_terminal()
        with one_voice():
            function_of(verb)()

    run_script(speak, AFTER_SIGNAL.get(verb, ONCE_MORE))


def main() -> None:
    """Run the verb that the command line names."""
    word = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if word in ("-h", "--help", "help"):
        run_script(lambda: print(help_text()))
        return
    if word == "--version":
        run_script(lambda: print(f"hf_maskssl {__version__}"))
        return
    if word not in VERBS:
        end(f"VERB: no command {word!r}{did_you_mean(word, VERBS)}; `hf-maskssl --help` lists them")
    # argparse calls a program by the last part of its path.
    sys.argv = [str(Path(sys.argv[0]).with_name(f"hf-maskssl {word}")), *sys.argv[2:]]
    run(word)
