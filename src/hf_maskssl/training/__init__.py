"""Pre-training through Accelerate: recipes, the loop, checkpoints."""

from ..extras import missing_extra

try:
    import matplotlib  # noqa: F401
    import scipy  # noqa: F401
    import sklearn  # noqa: F401
    import tqdm  # noqa: F401
except ImportError as error:
    raise missing_extra("Training", "train", error) from error

from .pretraining.arguments import PretrainingArguments, PretrainingRecipe, load_pretraining_recipe
from .pretraining.loop import Pretrainer, pretrain
from .pretraining.mask_ratio import with_mask_ratio
from .pretraining.state import NonFiniteLossError, RunState
from .pretraining.watching import OnlineProbe, Watcher, recipe_watchers

__all__ = [
    "NonFiniteLossError",
    "OnlineProbe",
    "Pretrainer",
    "PretrainingArguments",
    "PretrainingRecipe",
    "RunState",
    "Watcher",
    "load_pretraining_recipe",
    "pretrain",
    "recipe_watchers",
    "with_mask_ratio",
]
