"""Kind "spectrogram": sounds, turned into log-mel pictures."""

import math
import statistics
import sys
from dataclasses import dataclass
from typing import ClassVar, Literal

from datasets import Dataset
from transformers import PreTrainedConfig

from ...checks import ABOVE_0, AT_LEAST_0, AT_LEAST_1, Range
from ...files import JsonObject
from ...models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from ..looking import file_column, file_like_columns
from ..processors import Processor
from ..tables.columns import is_column_of_files, undecoded
from ..tables.first_rows import first_rows
from ..tables.preparing import PreparedSplit, RawSplit
from ..tables.sound_windows import SoundWindows, tell_of_cut_sounds
from ..tables.sounds import native_waveform
from ..tables.sources import AnyDataset
from .base import Fitted, Summary
from .examples import Example, arrays
from .guesses import FILES, Guess, metamae, only_column
from .image import image_size
from .preparers import NumericInput, SampleProcessor, WaveformInput
from .tabular import require_one_channel
from .windowed import WindowArguments, WindowedKind


@dataclass
class SpectrogramArguments(WindowArguments):
    """Arguments of sounds. `input_column` is one column of sounds, paths or waveforms.

    Relative paths start at the folder of the table that holds them, or else at the current directory.

    Attributes:
        sampling_rate: Number of samples per second. Files with another rate are resampled.
        frame_length: Number of samples in a frame; None means 25 ms.
        hop_length: Number of samples between frames; None means 10 ms. The model's `image_size` is
            `[mel bands, frames]`, so it covers `(frames - 1) * hop_length + frame_length` samples: shorter
            sounds are padded (`padding`), longer ones read by windows (`window`), cropped at the end, of which a warning tells,
            or refused (`longer`).
        fft_length: Number of samples of a Fourier transform; None means the next power of two from `frame_length`.
        min_frequency: Lower edge of the lowest mel band, in Hz.
        max_frequency: Upper edge of the highest mel band; None means half the sampling rate.
        padding: Filling behind the end of a shorter sound: "silence", which the model reads and predicts, or "mask", by which
            nothing is there, as of missing values.
        longer: Rule for longer sounds without `window`: "cut" leaves out their end, "error" refuses them.
    """

    kind: str = "spectrogram"
    sampling_rate: int | None = None
    frame_length: int | None = None
    hop_length: int | None = None
    fft_length: int | None = None
    min_frequency: float = 0.0
    max_frequency: float | None = None
    padding: Literal["silence", "mask"] = "silence"
    longer: Literal["cut", "error"] = "cut"

    RANGES: ClassVar[dict[str, Range]] = {
        **WindowArguments.RANGES,
        **dict.fromkeys(("sampling_rate", "frame_length", "hop_length", "fft_length"), AT_LEAST_1),
        "min_frequency": AT_LEAST_0,
        "max_frequency": ABOVE_0,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampling_rate is None:
            raise ValueError("data.sampling_rate: kind 'spectrogram' needs the samples per second, such as 16000")

    @property
    def file_columns(self) -> list[str]:
        return self.input_columns()


SOUNDS_LOOKED_AT = 32


class SpectrogramKind(WindowedKind[SpectrogramArguments]):
    """Sounds."""

    name = "spectrogram"
    length_unit = "frames"
    modality = "image"
    arguments = SpectrogramArguments
    pipelines = ("audio-classification", None)
    input_name = "pixel_values"
    read_by = (SpectrogramFeatureExtractor,)

    def check_model(self, args: SpectrogramArguments, config: PreTrainedConfig, for_pretraining: bool = False) -> None:
        super().check_model(args, config, for_pretraining)
        require_one_channel(self.name, config)

    def unmeasured(
        self, args: SpectrogramArguments, config: PreTrainedConfig, train_split: AnyDataset
    ) -> SampleProcessor:
        height, width = image_size(config)
        return self._extractor(args, height, width, is_column_of_files(train_split, str(args.input_column)))

    @staticmethod
    def _extractor(
        args: SpectrogramArguments, bands: int, frames: int, unit_integers: bool
    ) -> SpectrogramFeatureExtractor:
        return SpectrogramFeatureExtractor(
            sampling_rate=args.sampling_rate or 0,
            num_mel_bins=bands,
            num_frames=frames,
            frame_length=args.frame_length,
            hop_length=args.hop_length,
            fft_length=args.fft_length,
            min_frequency=args.min_frequency,
            max_frequency=args.max_frequency,
            scale=args.scale,
            standardize=args.standardize,
            unit_integers=unit_integers,
            invalid_value=args.invalid_value,
            padding=args.padding,
        )

    def model_length(self, config: PreTrainedConfig) -> tuple[str, int]:
        return "image_size[1]", image_size(config)[1]

    def windows(self, args: SpectrogramArguments, processor: Processor) -> SoundWindows:
        """The cut into windows; without `window` a sound is one, so long as it may be."""
        if not isinstance(processor, SpectrogramFeatureExtractor):
            processor = self._extractor(args, 1, 1, False)  # for the sizes of its frames
        size = args.window or sys.maxsize
        return SoundWindows(
            tuple(args.input_columns()),
            size,
            args.stride or size,
            args.pool_windows,
            invalid_value=args.invalid_value,
            sampling_rate=args.sampling_rate or 0,
            wanted_rate=processor.sampling_rate,
            frame_length=processor.frame_length,
            hop_length=processor.hop_length,
            num_proc=args.num_proc,
        )

    def rows(
        self, split: RawSplit, args: SpectrogramArguments, config: PreTrainedConfig, fitted: Fitted
    ) -> PreparedSplit:
        """Sounds or their windows; where the model reads the beginning of longer sounds alone, a warning says so."""
        if args.window is None and args.longer == "cut" and isinstance(split.rows, Dataset):
            processor = fitted.processor
            assert isinstance(processor, SpectrogramFeatureExtractor)  # `fitted_processor` has checked it
            reader = self.windows(args, processor).reader(split.rows, split.name, split.numbers)
            cut = tell_of_cut_sounds(reader, processor.num_samples)
            if fitted.report is not None:
                fitted.report.splits[split.name].cut = cut
        return super().rows(split, args, config, fitted)

    def numeric_input(
        self, args: SpectrogramArguments, processor: SampleProcessor, train_split: AnyDataset
    ) -> NumericInput:
        return WaveformInput(
            self.input_name,
            tuple(args.input_columns()),
            processor,
            sampling_rate=args.sampling_rate or 0,
            missing=args.missing,
            refuses_longer=args.longer == "error",
        )

    def fields_of_processor(self, processor: Processor) -> JsonObject:
        assert isinstance(processor, SpectrogramFeatureExtractor)
        return {"sampling_rate": processor.sampling_rate}

    def find_input(self, rows: AnyDataset, config: PreTrainedConfig, processor: Processor) -> JsonObject:
        return {"input_column": only_column(file_like_columns(rows), rows, self.name, ("audio", "path", "file"))}

    def guess(self, rows: AnyDataset, label: str | None) -> Guess | None:
        """Sounds in files: mel bands and frames by their rate and their median length."""
        column = file_column(rows, "audiofolder")
        if column is None:
            return None
        found = first_rows(undecoded(rows, [column]), SOUNDS_LOOKED_AT)
        sounds = [native_waveform(row[column]) for row in found if row[column] is not None]
        if not sounds:
            return None
        rate = int(statistics.median(rate for _, rate in sounds))
        seconds = statistics.median(len(samples) / its_rate for samples, its_rate in sounds)
        # Powers of two near 32 ms and half of it; so many frames as cover most sounds, up to 128.
        frame = 2 ** round(math.log2(0.032 * rate))
        lengths = [len(samples) / its_rate for samples, its_rate in sounds]
        padding: JsonObject = {"padding": "mask"} if (max(lengths) - min(lengths)) * rate > frame else {}
        frames = int(min(128, max(32, 8 * round(seconds * rate / (frame // 2) / 8))))
        bands = 32 if rate <= 8000 else 64
        covered = (frames - 1) * (frame // 2) / rate
        size = {"image_size": [bands, frames], "num_channels": 1, "patch_size": [bands // 8, 4 if frames <= 64 else 8]}
        return Guess(
            FILES,
            f"sounds in {column!r}",
            {
                "input_column": column,
                "sampling_rate": rate,
                "frame_length": frame,
                "hop_length": frame // 2,
                **padding,
            },
            {"modality": self.modality, **size, **metamae(0.75)},
            batch_size=64,
            remarks=[
                f"sounds: {rate:,} Hz, {seconds:.2g} s by their median; the first {covered:.2g} s are read, all by "
                f"--data.window {frames}"
            ],
        )

    def sizes(self, processor: object, config: PreTrainedConfig) -> tuple[list[int], list[int]] | None:
        if not isinstance(processor, SpectrogramFeatureExtractor):
            return None
        return image_size(config), [processor.num_mel_bins, processor.num_frames]

    def summary(self, args: SpectrogramArguments, config: PreTrainedConfig | None) -> Summary:
        return [*super().summary(args, config), ("sampling rate", f"{args.sampling_rate:,} Hz")]

    def example(
        self, processor: Processor, config: PreTrainedConfig, args: SpectrogramArguments | None, task: str | None
    ) -> Example | None:
        if not isinstance(processor, SpectrogramFeatureExtractor):
            return super().example(processor, config, args, task)
        longest = processor.num_samples
        sample = f"waveforms = [np.random.uniform(-1, 1, length) for length in ({longest}, {max(1, longest // 2)})]"
        sample += f"  # mono, {processor.sampling_rate} samples per second"
        return arrays("waveforms", sample, "AutoFeatureExtractor")
