"""The deep supervised models that SMA's Tables 3 and 6 put beside a pre-trained encoder: ResNet, FT-Transformer and TabNet.

The first two are those of Gorishniy et al. 2021 (https://arxiv.org/abs/2106.11959), from their authors' package
rtdl_revisiting_models: FT-Transformer with its defaults, ResNet with the sizes and the learning rate of the package's example.
TabNet (Arik and Pfister 2021, https://arxiv.org/abs/1908.07442) is the network of pytorch_tabnet with that package's sizes,
learning rate, weight of sparsity and clipping. All are trained here, in batches by the number of rows, until 16 epochs in a row
have not improved the score of held-out rows; settings, such as those of a search, take the place of the defaults.
"""

import copy
import importlib
import warnings
from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..extras import missing_extra
from .arguments import PACKAGES, Settings, check_library_models

try:
    from sklearn.exceptions import ConvergenceWarning
except ImportError as error:
    raise missing_extra("A baseline", "train", error) from error

NetworkName = Literal["resnet", "ft_transformer", "tabnet"]
HeldOut: TypeAlias = tuple[np.ndarray, np.ndarray]  # (n, D) inputs, (n,) labels
TITLES = {"resnet": "ResNet", "ft_transformer": "FT-Transformer", "tabnet": "TabNet"}
RESNET = {"n_blocks": 2, "d_block": 192, "d_hidden_multiplier": 2.0, "dropout1": 0.3, "dropout2": 0.0}
BLOCKS = 3  # FT-Transformer's default; widths and dropout follow from it
TABNET = {"n_d": 8, "n_steps": 3, "gamma": 1.3}  # n_d is also n_a, as Arik and Pfister advise
SPARSITY = 1e-3  # weight of the entropy of TabNet's masks
LARGEST_GRADIENT = 1.0  # l2 norm to which TabNet's is clipped
LEARNING_RATES = {"resnet": 3e-4, "ft_transformer": 1e-4, "tabnet": 2e-2}
WEIGHT_DECAYS = {"resnet": 1e-5, "ft_transformer": 1e-5, "tabnet": 0.0}
TRAINING = ("learning_rate", "weight_decay", "lambda_sparse")  # settings that are none of a network's
PATIENCE = 16
MAX_EPOCHS = 300
EPOCHS_WITHOUT_SCORES = 100  # epochs where there are too few rows to hold some out
# Batches by rows, up to so many; 256, 512 and 1,024 as in Gorishniy et al., the smaller ones ours.
BATCH_SIZES = ((1_000, 32), (10_000, 128), (50_000, 256), (200_000, 512))
LARGEST_BATCH = 1024
# A column is a token of FT-Transformer, and each attends to all; TabNet's package holds a matrix of columns by columns.
MOST_COLUMNS = {"ft_transformer": 1_000, "tabnet": 5_000}
SCORED_ROWS = 1024


class TabularNetwork:
    """A network on columns of numbers, with `fit`, `predict` and `predict_proba` as scikit-learn's estimators have them.

    Args:
        name: Name of the network.
        task: "classification" or "regression".
        seed: Seed of initial weights, of the order of the rows and of dropout.
        device: Device of the network.
        settings: Hyper-parameters that take the place of the defaults: arguments of the package's network (of "tabnet" `n_d`,
            which `n_a` follows, `n_steps` and `gamma`), `learning_rate`, `weight_decay`, and of "tabnet" `lambda_sparse`.

    Raises:
        ImportError: The network's package is not installed.
    """

    def __init__(
        self,
        name: NetworkName,
        task: str,
        seed: int,
        device: str | torch.device,
        settings: Settings | None = None,
    ) -> None:
        check_library_models([name])
        self.package = importlib.import_module(PACKAGES[name] + (".tab_network" if name == "tabnet" else ""))
        self.name, self.seed, self.device = name, seed, torch.device(device)
        self.is_regression = task == "regression"
        self.settings: Mapping[str, float] = settings or {}
        self.sparsity = self.settings.get("lambda_sparse", SPARSITY)

    def fit(self, inputs: np.ndarray, labels: np.ndarray, held_out: HeldOut | None) -> "TabularNetwork":
        """Train on rows.

        Args:
            inputs: (n, D) float32.
            labels: (n,) classes or values.
            held_out: Rows whose accuracy, or root mean squared error, says when to stop, and which epoch's weights to keep;
                None trains for `EPOCHS_WITHOUT_SCORES` epochs.

        Raises:
            ValueError: More columns than FT-Transformer can attend to, or TabNet can hold in a square.
        """
        most = MOST_COLUMNS.get(self.name)
        if most is not None and inputs.shape[1] > most:
            raise ValueError(
                f"{self.name} holds a number for every two columns, and {inputs.shape[1]:,} are too many (at most {most:,}): "
                "take resnet"
            )
        self.classes = np.unique(labels)
        num_outputs = 1 if self.is_regression else len(self.classes)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # the caller's random numbers stay the same
            torch.manual_seed(self.seed)
            self.network = self._build(inputs.shape[1], num_outputs).to(self.device)
            self._train(inputs, labels, held_out)
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """(n,) values or classes."""
        outputs = self._outputs(inputs)
        return outputs[:, 0].numpy() if self.is_regression else self.classes[outputs.argmax(1).numpy()]

    def predict_proba(self, inputs: np.ndarray) -> np.ndarray:
        """(n, classes) probabilities, of the classes that there were in training, in rising order."""
        return self._outputs(inputs).double().softmax(1).numpy()

    def _build(self, num_columns: int, num_outputs: int) -> nn.Module:
        chosen = {name: value for name, value in self.settings.items() if name not in TRAINING}
        if self.name == "resnet":
            resnet: nn.Module = self.package.ResNet(d_in=num_columns, d_out=num_outputs, **RESNET | chosen)
            return resnet
        if self.name == "tabnet":
            sizes = TABNET | chosen
            groups = torch.eye(num_columns, device=self.device)  # every column is one of its own
            tabnet: nn.Module = self.package.TabNet(
                num_columns, num_outputs, n_a=sizes["n_d"], group_attention_matrix=groups, **sizes
            )
            return tabnet
        defaults = self.package.FTTransformer.get_default_kwargs(BLOCKS)
        transformer: nn.Module = self.package.FTTransformer(
            n_cont_features=num_columns, cat_cardinalities=[], d_out=num_outputs, **defaults | chosen
        )
        return transformer

    def _optimizer(self) -> torch.optim.Optimizer:
        """FT-Transformer's own spares biases, norms and embeddings the decay."""
        if self.name == "ft_transformer":
            groups = self.network.make_parameter_groups()  # type: ignore[operator]
        else:
            groups = self.network.parameters()
        rate = self.settings.get("learning_rate", LEARNING_RATES[self.name])
        decay = self.settings.get("weight_decay", WEIGHT_DECAYS[self.name])
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)

    def _train(self, inputs: np.ndarray, labels: np.ndarray, held_out: HeldOut | None) -> None:
        columns = torch.from_numpy(inputs).float().to(self.device)
        targets = torch.from_numpy(labels).float() if self.is_regression else self._numbers(labels)
        targets = targets.to(self.device)
        optimizer = self._optimizer()
        size = next((batch for rows, batch in BATCH_SIZES if len(inputs) <= rows), LARGEST_BATCH)
        best, since, kept = -np.inf, 0, copy.deepcopy(self.network.state_dict())
        for _ in range(EPOCHS_WITHOUT_SCORES if held_out is None else MAX_EPOCHS):
            self.network.train()
            for rows in torch.randperm(len(inputs)).split(size):
                if len(rows) == 1 < len(inputs):  # a batch norm has no variance of one row
                    continue
                self._loss(columns[rows], targets[rows]).backward()
                if self.name == "tabnet":
                    nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
                optimizer.step()
                optimizer.zero_grad()
            if held_out is None:
                continue
            score, since = self._score(*held_out), since + 1
            if score > best:
                best, since, kept = score, 0, copy.deepcopy(self.network.state_dict())
            elif since >= PATIENCE:
                break
        else:
            if held_out is not None:
                warnings.warn(
                    f"{self.name} still improved after {MAX_EPOCHS} epochs", ConvergenceWarning, stacklevel=2
                )
        if held_out is not None:
            self.network.load_state_dict(kept)

    def _numbers(self, labels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.searchsorted(self.classes, labels))

    def _forward(self, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(n, outputs), and of TabNet the mean of the sum of m log m over a mask's entries m: minus its entropy."""
        if self.name == "tabnet":
            outputs, negative_entropy = self.network(columns)
            return outputs, negative_entropy
        given = (columns,) if self.name == "resnet" else (columns, None)
        return self.network(*given), None

    def _loss(self, columns: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        outputs, negative_entropy = self._forward(columns)
        loss = F.mse_loss(outputs[:, 0], targets) if self.is_regression else F.cross_entropy(outputs, targets)
        return loss if negative_entropy is None else loss - self.sparsity * negative_entropy

    def _score(self, inputs: np.ndarray, labels: np.ndarray) -> float:
        said = self.predict(inputs)
        return -float(np.sqrt(np.mean((said - labels) ** 2))) if self.is_regression else float(np.mean(said == labels))

    @torch.no_grad()
    def _outputs(self, inputs: np.ndarray) -> torch.Tensor:
        """(n, outputs) float32 on the CPU."""
        self.network.eval()
        blocks = torch.from_numpy(inputs).float().split(SCORED_ROWS)
        return torch.cat([self._forward(block.to(self.device))[0].float().cpu() for block in blocks])
