"""Kind "unified"."""

from typing import NoReturn

from transformers import PreTrainedConfig

from ...files import JsonObject
from ..arguments import DataArguments
from ..collators import BatchCollator
from ..kinds.base import Fitted, Kind, Summary
from ..processors import Processor
from ..tables.preparing import PreparedSplit, RawSplit
from ..tables.sources import AnyDataset
from .arguments import UnifiedArguments


class UnifiedKind(Kind[UnifiedArguments]):
    """Several kinds of data for one model. `prepare_data` prepares each part by the part's own kind and joins them."""

    name = "unified"
    modality = "unified"
    arguments = UnifiedArguments
    reads_builtin = False

    def check_model(self, args: UnifiedArguments, config: PreTrainedConfig, for_pretraining: bool = False) -> None:
        if config.model_type != "unified":
            raise ValueError(
                f"data.kind 'unified' goes with model.model_type 'unified', but model.model_type is '{config.model_type}'"
            )
        if sorted(args.parts) != config.part_names:
            raise ValueError(
                f"data.parts {sorted(args.parts)} and model.parts {config.part_names} must have the same names"
            )

    def part_data(
        self, args: UnifiedArguments, config: PreTrainedConfig
    ) -> dict[str, tuple[DataArguments, PreTrainedConfig]]:
        return {name: (section, config.part_config(name)) for name, section in args.sections().items()}

    def reads(self, config: PreTrainedConfig, processor: Processor) -> bool:
        return False

    def summary(self, args: UnifiedArguments, config: PreTrainedConfig | None) -> Summary:
        return [
            (f"part {name}", f"`{section.source}`, kind {section.kind}") for name, section in args.sections().items()
        ]

    def input_words(self, args: UnifiedArguments) -> str:
        return "those of the parts"

    def find_input(self, rows: AnyDataset, config: PreTrainedConfig, processor: Processor) -> JsonObject:
        self._refuse()

    def build_processor(self, args: UnifiedArguments, config: PreTrainedConfig, train_split: AnyDataset) -> Processor:
        self._refuse()

    def fitted_processor(
        self, processor: Processor, args: UnifiedArguments, config: PreTrainedConfig, train_split: AnyDataset
    ) -> Processor:
        self._refuse()

    def rows(self, split: RawSplit, args: UnifiedArguments, config: PreTrainedConfig, fitted: Fitted) -> PreparedSplit:
        self._refuse()

    def collator(self, args: UnifiedArguments, config: PreTrainedConfig, processor: Processor) -> BatchCollator:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError("rows of several kinds are prepared part by part (Kind.part_data)")
