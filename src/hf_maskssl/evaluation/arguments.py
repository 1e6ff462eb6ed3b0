"""The `probe` section of a recipe."""

from dataclasses import dataclass, field
from typing import Literal, get_args

Protocol = Literal["standard", "paper"]
Solver = Literal["adam", "exact"]
MetricName = Literal["accuracy", "weighted_f1", "spearman", "token_accuracy"]
# MetaMAE paper, appendix A; the batch size is the data set's (Table 16).
PAPER_PROTOCOL = {"solver": "adam", "num_epochs": 100, "learning_rate": 1e-4, "weight_decay": 1e-4}
METRICS_OF_TASK: dict[str, tuple[MetricName, ...]] = {
    "classification": ("accuracy", "weighted_f1"),
    "regression": ("spearman",),
    "token_classification": ("token_accuracy",),
}


@dataclass
class ProbeArguments:
    """How frozen features are measured.

    Attributes:
        protocol: "standard" finds the optimum of a regularised linear model on standardised features (logistic
            regression by L-BFGS, ridge regression): it has no learning rate and no epochs. "paper" is the MetaMAE
            paper's protocol (appendix A): torch.optim.Adam on the features as they are, 100 epochs, learning rate 1e-4,
            weight decay 1e-4, which need not have converged by then.
        solver: None takes the protocol's. "exact" is that of "standard"; "adam" under "standard" is the paper's with
            the values of the next three fields.
        num_epochs: passes of "adam" over the training features (paper, appendix A: 100).
        learning_rate: of "adam" (paper, appendix A: 1e-4).
        weight_decay: of "adam", added to the gradient as torch.optim.Adam does (paper, appendix A: 1e-4).
        batch_size: rows per step of "adam", and samples per forward pass of the encoder (paper, Table 16: 64, 128 or
            256).
        k: neighbours that vote in the kNN probe (20, as DINO, Caron et al. 2021, found best).
        knn_max_samples: a larger training set is thinned out to so many rows, drawn with the seed, before neighbours
            are looked up; per-token features run into millions of rows (ours).
        labels_per_class: train the probes on so many labelled rows of each class, drawn with the seed; None uses all
            rows.
        metric: the headline, shown in tables and plots and used to choose the regularisation: "accuracy" or
            "weighted_f1" for classification, "spearman" for regression, "token_accuracy" for token classification;
            None takes the first of these.
        seeds: one run for each; they draw the probe's initial weights, its batches and the few labels. The first also
            draws the weights of the untrained encoder that a checkpoint is compared with.
        baselines: measure beside a checkpoint what it has to beat: the untrained encoder of its configuration, a linear
            model on the raw inputs, and the most frequent class or the mean. They take longer than the checkpoint
            itself.
        every_steps: run the online probe during pre-training every so many steps; 0 never.
        max_samples: training rows, and as many held-out rows, that the online probe looks at. At token level ten times
            as many tokens are looked at.
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

    def __post_init__(self) -> None:
        """Refuse values that no probe can work with.

        Raises:
            ValueError: Naming the field, what was expected and what came.
        """
        choices_of: dict[str, tuple[str | None, ...]] = {
            "protocol": get_args(Protocol),
            "solver": (None, *get_args(Solver)),
            "metric": (None, *get_args(MetricName)),
        }
        given = vars(self)
        for name, choices in choices_of.items():
            if given[name] not in choices:
                raise ValueError(f"probe.{name}: expected one of {list(choices)}, got {given[name]!r}")
        for name in ("num_epochs", "batch_size", "k", "knn_max_samples", "max_samples"):
            if given[name] < 1:
                raise ValueError(f"probe.{name}: expected at least 1, got {given[name]}")
        if self.labels_per_class is not None and self.labels_per_class < 1:
            raise ValueError(
                f"probe.labels_per_class: expected at least 1, or nothing for all labels, got {self.labels_per_class}"
            )
        if self.learning_rate <= 0:
            raise ValueError(f"probe.learning_rate: expected a number above 0, got {self.learning_rate}")
        for name in ("weight_decay", "every_steps"):
            if given[name] < 0:
                raise ValueError(f"probe.{name}: expected 0 or more, got {given[name]}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"probe.seeds: expected different integers, 0 or more, at least one, got {self.seeds}")

        if self.protocol == "paper":
            for name, paper in PAPER_PROTOCOL.items():
                if given[name] not in (None, paper):
                    raise ValueError(
                        f"probe.{name}: expected {paper!r} or nothing under probe.protocol 'paper', got "
                        f"{given[name]!r}; for a protocol of your own set probe.protocol to 'standard'"
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
