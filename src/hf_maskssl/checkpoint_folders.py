"""Finding the folder of a checkpoint that a user names, on this machine or on the Hub, and seeing what a model misses in it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open

from .files import nearest_path
from .terminal import no_load_report

if TYPE_CHECKING:  # naming a folder takes no model
    from transformers import PreTrainedConfig, PreTrainedModel

CONFIG, ADAPTER = "config.json", "adapter_config.json"
RECIPE_FILE = "recipe.yaml"  # name of the recipe in the output_dir of a run


def checkpoint_folder(model: str, field: str = "MODEL") -> Path:
    """The folder of a checkpoint: `model` itself, or where the Hub's repository of that name was downloaded to.

    Args:
        model: A folder that `save_pretrained` wrote, or a Hub name.
        field: Who asked for it, for errors: "finetuning.checkpoint".

    Raises:
        FileNotFoundError: There is neither.
        ValueError: The folder is no checkpoint, or its weights are damaged.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        check_checkpoint(path, field)
        return path
    expected = f"{field} {model!r}: expected a checkpoint folder or the name of a Hub repository"
    if path.is_file():
        raise FileNotFoundError(f"{expected}, got a file: name the folder that holds it, {str(path.parent)!r}")
    hint = nearest_path(path)
    try:
        return Path(snapshot_download(model))
    except HFValidationError as error:
        raise FileNotFoundError(f"{expected}; there is no such folder{hint}") from error
    except RepositoryNotFoundError as error:
        reason = "the Hub has no such repository, or shows it to others only"
        raise FileNotFoundError(f"{expected}; there is no such folder{hint}, and {reason}") from error
    # The Hub's library has many errors for a name that it cannot look up: offline, no connection, a time limit.
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = f"the Hub was not asked or gave no answer ({type(error).__name__})"
        raise FileNotFoundError(f"{expected}; there is no such folder{hint}, and {reason}") from error


def check_checkpoint(folder: Path, field: str) -> None:
    """See that a folder holds a configuration, and that its weights can be read.

    Raises:
        ValueError: Naming what is missing or damaged, and folders inside that may be meant.
    """
    if not (folder / CONFIG).is_file():
        inside = sorted(str(path.parent) for path in folder.glob(f"*/{CONFIG}"))
        advice = (
            f"did you mean {inside[-1]!r}?" if inside else "give the output folder of a run, or one of its checkpoints"
        )
        raise ValueError(f"{field} {str(folder)!r}: the folder holds no {CONFIG}, so it is no checkpoint; {advice}")
    weights = sorted(folder.glob("model*.safetensors"))
    if not weights and (folder / ADAPTER).is_file():
        raise ValueError(
            f"{field} {str(folder)!r}: the folder holds an adapter alone, without its encoder; fine-tune again with "
            "finetuning.merge_adapter, which saves the whole model, and repeats no run"
        )
    try:
        json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{field} {str(folder)!r}: {CONFIG} is damaged ({error}); take another checkpoint, or save it again"
        ) from error
    for file in weights:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{field} {str(folder)!r}: {file.name} is damaged ({error}); take another checkpoint, or save it again"
            ) from error


@dataclass(frozen=True)
class Loaded:
    """A model from a checkpoint, and what the checkpoint did not give it.

    Attributes:
        model: Model in float32.
        missing: Names of weights that the checkpoint lacks, sorted; they are new.
        reshaped: Names of weights that it has in another shape, sorted; they are new, too.
    """

    model: "PreTrainedModel"
    missing: list[str]
    reshaped: list[str]


def load_listed(kind: Any, folder: str | Path, config: "PreTrainedConfig | None" = None) -> Loaded:
    """Open a checkpoint, and list the weights that are new instead of printing a report of them.

    Args:
        kind: Model class, or an Auto class.
        folder: Checkpoint folder.
        config: Configuration of the model; None is the checkpoint's own, which its weights must fit.

    Raises:
        RuntimeError: Weights do not fit the checkpoint's own configuration.
    """
    fields = {} if config is None else {"config": config, "ignore_mismatched_sizes": True}
    with no_load_report():
        model, info = kind.from_pretrained(
            folder, dtype="float32", output_loading_info=True, trust_remote_code=False, **fields
        )
    reshaped = [key if isinstance(key, str) else str(key[0]) for key in info["mismatched_keys"]]
    return Loaded(model, sorted(map(str, info["missing_keys"])), sorted(reshaped))
