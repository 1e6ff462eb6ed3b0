"""The `probe` section of a recipe."""

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from ..checks import ABOVE_0, AT_LEAST_0, AT_LEAST_1, SEED, Range, check_numbers, check_seeds
from ..extras import missing_extra
from ..recipes import coerce

Protocol = Literal["standard", "paper"]
Solver = Literal["adam", "exact"]
# Supervised baselines of fine-tuning (`library_baselines`).
LibraryModel = Literal[
    "mlp", "hist_gradient_boosting", "random_forest", "xgboost", "resnet", "ft_transformer", "tabnet"
]
Settings: TypeAlias = Mapping[str, float]  # hyper-parameters of one, by their names in its library; whole ones are int
# Those of the extra `baselines`, and the packages that they are from.
PACKAGES: dict[LibraryModel, str] = {
    "xgboost": "xgboost",
    "resnet": "rtdl_revisiting_models",
    "ft_transformer": "rtdl_revisiting_models",
    "tabnet": "pytorch_tabnet",
}
MetricName = Literal["accuracy", "weighted_f1", "mean_roc_auc", "spearman", "token_accuracy"]
# MetaMAE paper, appendix A; the batch size is the data set's (Table 16).
PAPER_PROTOCOL = {"solver": "adam", "num_epochs": 100, "learning_rate": 1e-4, "weight_decay": 1e-4}
METRICS_OF_TASK: dict[str, tuple[MetricName, ...]] = {
    "classification": ("accuracy", "weighted_f1"),
    "multi_label_classification": ("mean_roc_auc",),
    "regression": ("spearman",),
    "token_classification": ("token_accuracy",),
}


def check_library_models(names: Iterable[LibraryModel]) -> None:
    """See that the packages of some models are installed.

    Raises:
        ImportError: One is not; the error names the extra that brings it.
    """
    for name in names:
        package = PACKAGES.get(name)
        if package is not None and importlib.util.find_spec(package) is None:
            raise missing_extra(f"The baseline {name}", "baselines", ImportError(name=package))


@dataclass
class ProbeArguments:
    """Settings of the probes that measure frozen features.

    Attributes:
        protocol: Name of the way to train probes. "standard" finds the optimum of a regularised linear model on standardised
            features (logistic regression by L-BFGS, ridge regression): it has no learning rate and no epochs. "paper" is the
            MetaMAE paper's protocol (appendix A): torch.optim.Adam on the features as they are, 100 epochs, learning rate 1e-4,
            weight decay 1e-4, which need not have converged by then.
        solver: Name of the solver: "exact" is that of "standard"; "adam" under "standard" is the paper's with the values of the
            next three fields. None means the protocol's.
        num_epochs: Number of passes of "adam" over the training features (paper, appendix A: 100).
        learning_rate: Learning rate of "adam" (paper, appendix A: 1e-4).
        weight_decay: Weight decay of "adam", added to the gradient as torch.optim.Adam does (paper, appendix A: 1e-4).
        batch_size: Number of rows per step of "adam", and of samples per forward pass of the encoder (paper, Table 16: 64, 128
            or 256).
        k: Number of neighbours that vote in the kNN probe (20, as DINO, Caron et al. 2021, found best).
        knn_max_samples: Largest number of training rows among which neighbours are looked up; of more rows the seed draws these
            (ours: per-token features run into millions of rows).
        labels_per_class: Number of labelled rows of each class that the probes are trained on, drawn with the seed; None means
            all.
        metric: Name of the metric that tables and plots show and that chooses the regularisation: "accuracy" or "weighted_f1"
            for classification, "mean_roc_auc" for multi-label classification, "spearman" for regression, "token_accuracy" for
            token classification; None means the first of these.
        seeds: Seeds of the runs, one run each; they draw the probe's initial weights, its batches and the few labels. The first
            also draws the weights of the untrained encoder that a checkpoint is compared with.
        baselines: Whether to measure a checkpoint's baselines too: the untrained encoder of its configuration, a
            linear model on the raw inputs, and the most frequent class or the mean. They take longer than the checkpoint itself.
        every_steps: Number of steps between two online probes during pre-training; 0 means never.
        max_samples: Number of training rows, and largest number of held-out rows, that the online probe looks at. At token level
            it looks at ten times as many tokens.
    """

    protocol: Protocol = "standard"
    solver: Solver | None = None
    num_epochs: int = 100
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    batch_size: int = 256
    k: int = 20
    knn_max_samples: int = 100_000
    labels_per_class: int | None = None
    metric: MetricName | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    baselines: bool = True
    every_steps: int = 0
    max_samples: int = 2000

    RANGES: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("num_epochs", "batch_size", "k", "knn_max_samples"), AT_LEAST_1),
        **dict.fromkeys(("labels_per_class", "max_samples"), AT_LEAST_1),
        **dict.fromkeys(("weight_decay", "every_steps"), AT_LEAST_0),
        "learning_rate": ABOVE_0,
        "seeds": SEED,
    }

    def __post_init__(self) -> None:
        """Refuse values that no probe can work with.

        Raises:
            ValueError: A value cannot work; the error names field, expectation and value.
        """
        coerce(self.protocol, Protocol, "probe.protocol")
        coerce(self.solver, Solver | None, "probe.solver")
        coerce(self.metric, MetricName | None, "probe.metric")
        check_seeds("probe.seeds", self.seeds)
        check_numbers("probe.", self, self.RANGES)
        if self.protocol == "paper":
            for name, paper in PAPER_PROTOCOL.items():
                value = getattr(self, name)  # the fields are named in a table
                if value not in (None, paper):
                    raise ValueError(
                        f"probe.{name}: expected {paper!r} or nothing under probe.protocol 'paper', got "
                        f"{value!r}; for a protocol of your own set probe.protocol to 'standard'"
                        + ("" if name == "solver" else " and probe.solver to 'adam'")
                    )

    @property
    def linear_solver(self) -> Solver:
        """The solver of the linear probe: `solver`, or what `protocol` says where it is None."""
        return self.solver or ("adam" if self.protocol == "paper" else "exact")

    def headline_metric(self, task: str) -> MetricName:
        """Name of the metric that tables show for `task`.

        Raises:
            ValueError: The task is unknown, or `metric` does not measure it.
        """
        if task not in METRICS_OF_TASK:
            raise ValueError(f"task: expected one of {list(METRICS_OF_TASK)}, got {task!r}")
        if self.metric is None:
            return METRICS_OF_TASK[task][0]
        if self.metric not in METRICS_OF_TASK[task]:
            raise ValueError(
                f"probe.metric: {self.metric!r} does not measure a {task} task; "
                f"expected one of {list(METRICS_OF_TASK[task])} or nothing"
            )
        return self.metric
