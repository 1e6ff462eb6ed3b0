"""Depth and class maps for pictures that have none, by published networks: MultiMAE's training data (its section 3.4)."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import datasets
import numpy as np
import torch
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from PIL import Image
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForDepthEstimation,
    AutoModelForUniversalSegmentation,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.auto_factory import _BaseAutoModelClass
from transformers.utils import ModelOutput

from ..checks import AT_LEAST_0, AT_LEAST_1, Range, check_numbers
from ..data.arguments import expand_variables
from ..data.kinds.image import ImageArguments
from ..data.tables.file_paths import with_whole_paths
from ..data.tables.raw_files import with_files
from ..data.tables.sources import read_split
from ..files import write_whole
from ..launch import launched_state
from ..locks import FolderLock
from ..terminal import VOICE, MovingLine, one_voice
from .picture_files import NAMED_PICTURES, Picture, name_pictures, open_picture, put_file
from .resumable import ResumableFolder

logger = logging.getLogger(__name__)

# Files in the order of writing: a picture whose `rgb` exists is done.
MODALITIES = ("depth", "semseg", "rgb")
REPORT_FILE = "pseudo_labels.json"
MAX_UNREADABLE = 0.01
MAX_CLASSES = 255  # limit of an 8-bit map, whose 255 is "no class"
DEPTH_LEVELS = 65535
WRITERS = 4
# Any: image processors have no common class for post-processing.
PostProcess: TypeAlias = Callable[[Any, ModelOutput, list[tuple[int, int]]], list[np.ndarray]]
NEUTRAL = ("output_dir", "batch_size", "mixed_precision", "num_workers", "copy_rgb")


@dataclass
class PseudoLabelArguments:
    """The pictures to label, the networks and the output folder."""

    output_dir: str = field(
        metadata={"help": "folder to write, used for nothing else; a call with the same folder and options continues"}
    )
    source: str = field(
        default="imagefolder",
        metadata={"help": "source of the pictures, as data.source: imagefolder, parquet, a Hub name"},
    )
    data_dir: str | None = field(default=None, metadata={"help": "folder with the pictures"})
    data_files: list[str] | None = field(default=None, metadata={"help": "files of the source"})
    config_name: str | None = field(default=None, metadata={"help": "configuration of a Hub data set"})
    revision: str | None = field(default=None, metadata={"help": "branch, tag or commit of a Hub data set"})
    split: str = field(
        default="train", metadata={"help": "name of the split to label; give each split a folder of its own"}
    )
    input_column: str = field(default="image", metadata={"help": "name of the column that holds the pictures"})
    label_column: str = field(
        default="label", metadata={"help": "name of the column that holds the class folders' names; it may be absent"}
    )
    depth_model: str = field(
        default="Intel/dpt-hybrid-midas", metadata={"help": "Hub name or folder for AutoModelForDepthEstimation"}
    )
    segmentation_model: str = field(
        default="facebook/mask2former-swin-small-coco-panoptic",
        metadata={"help": "Hub name or folder for AutoModelForUniversalSegmentation"},
    )
    depth_format: Literal["png", "npy"] = field(
        default="png",
        metadata={"help": "png: 16 bit, each picture's range spread over 1 to 65535; npy: float32 as predicted"},
    )
    flip_depth: bool = field(
        default=False,
        metadata={
            "help": "whether to turn near and far round: MiDaS gives inverse depth (near is large), sensors give depth"
        },
    )
    max_side: int | None = field(
        default=None, metadata={"help": "longer side that larger pictures are shrunk to, the rgb copy too"}
    )
    copy_rgb: bool = field(
        default=False, metadata={"help": "whether to copy picture files instead of hard-linking them"}
    )
    batch_size: int = field(default=8, metadata={"help": "number of pictures at once, per process"})
    mixed_precision: Literal["no", "fp16", "bf16"] = field(
        default="no", metadata={"help": "type that both networks compute in (autocast)"}
    )
    num_workers: int = field(
        default=0, metadata={"help": "number of processes that read pictures, for each process of the launch"}
    )

    RANGES: ClassVar[dict[str, Range]] = {
        "batch_size": AT_LEAST_1,
        "num_workers": AT_LEAST_0,
        "max_side": AT_LEAST_1,
    }

    def __post_init__(self) -> None:
        check_numbers("", self, self.RANGES)
        self._check_folders()

    def _check_folders(self) -> None:
        """Refuse an output folder whose files a continued run would find among the pictures."""
        if self.data_dir is None:
            return
        output = Path(self.output_dir).resolve()
        pictures = Path(expand_variables(self.data_dir, "data_dir")).resolve()
        if output.is_relative_to(pictures) or pictures.is_relative_to(output):
            raise ValueError(
                f"output_dir {self.output_dir} and data_dir {self.data_dir}: one lies in the other, so that a continued run "
                "would take labels for pictures: name an output_dir beside data_dir"
            )


@dataclass
class PseudoLabelReport:
    """Counts of the pictures, over all processes.

    Attributes:
        pictures: Number of pictures in the split.
        done_before: Number that an earlier run had labelled.
        written: Number that this run labelled.
        unreadable: "name: reason" of each that was left out.
    """

    pictures: int
    done_before: int
    written: int
    unreadable: list[str]


@dataclass
class ReadPicture:
    """A picture in the networks' form: `pixels` (C, h, w) per modality, its own `size` (H, W), and its file."""

    picture: Picture
    size: tuple[int, int]
    pixels: dict[str, torch.Tensor]
    rgb: Path | bytes
    suffix: str


class Unreadable(NamedTuple):
    """A picture that could not be read, and why."""

    picture: Picture
    reason: str


def make_pseudo_labels(args: PseudoLabelArguments) -> PseudoLabelReport:
    """Label every picture of a split with depth and classes, for `data.source: multimodal_folder`.

    Writes, under `output_dir`:
        rgb/<class>/<name>.jpg (.png, ...): the picture's own file, hard-linked where the file system can, else copied.
            A picture that had to be turned (by its EXIF entry) or shrunk is a PNG of its own.
        depth/<class>/<name>.png: 16 bit, (H, W): the network's output, bicubic at the picture's size, its own minimum at
            1 and its maximum at 65535. Scale and shift are lost, which MultiMAE's robust standardisation per sample would
            take out anyway; 0 stays free for "no depth", as sensors write it. Or, .npy: float32 as predicted.
        semseg/<class>/<name>.png: 8 bit, (H, W): the likeliest class of every pixel; 255 does not occur.
        pseudo_labels.json: the settings, the names of the classes, the pictures left out.

    Every file is written under another name and then renamed, rgb last, so that a killed run leaves no half and the same
    call continues. Under `accelerate launch` each process labels its share of the rest.

    Args:
        args: Options, one a field.

    Returns:
        The counts over all processes.

    Raises:
        ValueError: No such split or column, a streamed or empty split, more than 1 % of the pictures unreadable, a
            folder with other settings or without its report, more classes than a map of 8 bit holds, depth that is not
            finite, or processes that do not know of each other.
        FileNotFoundError, OSError: No such data or network.
    """
    state = launched_state()
    with one_voice(), FolderLock(Path(args.output_dir), "output_dir", state):
        return _make_pseudo_labels(args, state)


def _make_pseudo_labels(args: PseudoLabelArguments, state: PartialState) -> PseudoLabelReport:
    with state.main_process_first():
        rows = _read_rows(args)
    pictures = name_pictures(rows, args.input_column, args.label_column)
    folder = ResumableFolder(args.output_dir, REPORT_FILE, "depth/*/*", "depth maps")
    if state.is_main_process:
        folder.begin(_settings(args), classes={"semseg": _class_names(args)})
    left = _pictures_left(folder.root, pictures, state)
    report = PseudoLabelReport(len(pictures), len(pictures) - len(left), 0, [])
    if state.is_main_process:
        logger.info("%d pictures, %d of them labelled before, %d to do", len(pictures), report.done_before, len(left))
    mine = left[state.process_index :: state.num_processes]
    del pictures
    if left:
        _label_all(args, rows, mine, report, state)
    report = _add_up(report, state)
    if state.is_main_process:
        labelled = report.done_before + report.written
        folder.complete(pictures=report.pictures, labelled=labelled, unreadable=report.unreadable)
        logger.info(
            "%s: %d pictures labelled now, %d before, %d unreadable",
            *(args.output_dir, report.written, report.done_before, len(report.unreadable)),
        )
    _check_unreadable(report)
    return report


# Pictures to label


def _read_rows(args: PseudoLabelArguments) -> Dataset:
    """The split, its pictures left undecoded."""
    data_args = ImageArguments(
        source=args.source,
        config_name=args.config_name,
        revision=args.revision,
        data_dir=args.data_dir,
        data_files=args.data_files,
        input_column=args.input_column,
    )
    rows = with_whole_paths(read_split(data_args, args.split), data_args, args.split)
    assert isinstance(rows, Dataset)  # `streaming` is off
    if args.input_column not in rows.column_names:
        raise ValueError(f"input_column {args.input_column!r}: the data has the columns {rows.column_names}")
    if len(rows) == 0:
        raise ValueError(f"source {args.source!r}: split {args.split!r} has no rows")
    if isinstance(rows.features[args.input_column], datasets.Image):
        rows = rows.cast_column(args.input_column, datasets.Image(decode=False))
    return rows


def _class_names(args: PseudoLabelArguments) -> list[str]:
    """The class names of the segmentation network, by number."""
    config = AutoConfig.from_pretrained(args.segmentation_model, trust_remote_code=False)
    if config.num_labels > MAX_CLASSES:
        raise ValueError(
            f"segmentation_model {args.segmentation_model} has {config.num_labels} classes; class maps are written with "
            f"8 bit and hold {MAX_CLASSES}"
        )
    return [config.id2label[number] for number in range(config.num_labels)]


def _settings(args: PseudoLabelArguments) -> dict[str, Any]:
    """The settings that decide the labels."""
    return {name: value for name, value in asdict(args).items() if name not in NEUTRAL}


def _pictures_left(root: Path, pictures: Sequence[Picture], state: PartialState) -> list[Picture]:
    """The pictures without all three files; the main process looks, because others may look when some are written."""
    left: list[list[int]] = [[]]
    if state.is_main_process:
        done = set.intersection(*(_stems(root / modality) for modality in MODALITIES))
        left = [[place for place, picture in enumerate(pictures) if picture[1:] not in done]]
    broadcast_object_list(left)
    return [pictures[place] for place in left[0]]


def _stems(folder: Path) -> set[tuple[str, str]]:
    """(class folder, stem) of every file."""
    return {(file.parent.name, file.stem) for file in folder.glob("*/*") if not file.name.startswith(".")}


# Reading


class PictureReader(torch.utils.data.Dataset[ReadPicture | Unreadable]):
    """Opens pictures and prepares them for every network: a `ReadPicture` or an `Unreadable` each."""

    def __init__(
        self,
        rows: Dataset,
        pictures: Sequence[Picture],
        column: str,
        processors: Mapping[str, BaseImageProcessor],
        max_side: int | None,
    ) -> None:
        self.rows, self.pictures, self.column = rows.select_columns([column]), pictures, column
        self.processors, self.max_side = processors, max_side

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: int) -> ReadPicture | Unreadable:
        picture = self.pictures[place]
        value = self.rows[picture.row][self.column]
        try:
            image, rgb, suffix = open_picture(value, self.max_side)
        except ValueError as error:
            return Unreadable(picture, with_files(error, [value]))
        # Pictures are processed one at a time: a processor that keeps proportions would pad a batch, and the maps with it.
        pixels = {
            name: processor(image, return_tensors="pt")["pixel_values"][0]
            for name, processor in self.processors.items()
        }
        return ReadPicture(picture, (image.height, image.width), pixels, rgb, suffix)


# Labelling


class Labeller:
    """A network and its processor.

    Args:
        name: Hub name or folder of the network.
        kind: Auto class that opens it.
        post_process: Function (processor, outputs, sizes) -> a map (H, W) per picture.
        device: Device of the network.
        mixed_precision: "no", "fp16" or "bf16".
    """

    def __init__(
        self,
        name: str,
        kind: type[_BaseAutoModelClass],
        post_process: PostProcess,
        device: torch.device,
        mixed_precision: str,
    ) -> None:
        self.processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        self.model = kind.from_pretrained(name, trust_remote_code=False).to(device).eval()
        self.post_process, self.device = post_process, device
        self.dtype = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}[mixed_precision]

    @torch.inference_mode()
    def __call__(self, pixels: Sequence[torch.Tensor], sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Maps of pictures (C, h, w), at their own sizes; pictures of one shape go through the network together."""
        groups: dict[torch.Size, list[int]] = {}
        for place, values in enumerate(pixels):
            groups.setdefault(values.shape, []).append(place)
        maps: dict[int, np.ndarray] = {}
        for places in groups.values():
            batch = torch.stack([pixels[place] for place in places]).to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                outputs = self.model(pixel_values=batch)
            found = self.post_process(self.processor, outputs, [sizes[place] for place in places])
            maps.update(zip(places, found, strict=True))
        return [maps[place] for place in range(len(pixels))]


def depth_maps(processor: Any, outputs: ModelOutput, sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    """(H, W) float32 of every picture."""
    outputs["predicted_depth"] = outputs["predicted_depth"].float()
    maps = processor.post_process_depth_estimation(outputs, target_sizes=sizes)
    return [found["predicted_depth"].cpu().numpy().reshape(size) for found, size in zip(maps, sizes, strict=True)]


def class_maps(processor: Any, outputs: ModelOutput, sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    """(H, W) uint8 of every picture: the class with the largest sum over queries of class and mask probability."""
    for name in ("class_queries_logits", "masks_queries_logits"):
        outputs[name] = outputs[name].float()
    maps = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
    return [found.to(torch.uint8).cpu().numpy() for found in maps]


def encode_depth(depth: np.ndarray) -> np.ndarray:
    """Spread a depth map (H, W) over uint16: its minimum becomes 1, its maximum 65535; 0 stays free."""
    low, high = float(depth.min()), float(depth.max())
    share = (depth.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
    return np.round(1 + share * (DEPTH_LEVELS - 1)).astype(np.uint16)


def _load_labellers(args: PseudoLabelArguments, state: PartialState) -> dict[str, Labeller]:
    options = (state.device, args.mixed_precision)
    with state.main_process_first():
        return {
            "depth": Labeller(args.depth_model, AutoModelForDepthEstimation, depth_maps, *options),
            "semseg": Labeller(args.segmentation_model, AutoModelForUniversalSegmentation, class_maps, *options),
        }


def _label_all(
    args: PseudoLabelArguments,
    rows: Dataset,
    pictures: Sequence[Picture],
    report: PseudoLabelReport,
    state: PartialState,
) -> None:
    """Label this process's pictures; adds to `report`."""
    labellers = _load_labellers(args, state)
    processors = {name: labeller.processor for name, labeller in labellers.items()}
    reader = PictureReader(rows, pictures, args.input_column, processors, args.max_side)
    loader = DataLoader(reader, batch_size=args.batch_size, num_workers=args.num_workers, collate_fn=list)
    VOICE.shares_rows = True
    with MovingLine("picture", len(pictures)) as line, ThreadPoolExecutor(WRITERS) as pool:
        pending: list[Future[None]] = []
        for batch in loader:
            found = [sample for sample in batch if isinstance(sample, ReadPicture)]
            for sample in batch:
                if isinstance(sample, Unreadable):
                    logger.warning("%s is left out: %s", sample.picture.name, sample.reason)
                    report.unreadable.append(f"{sample.picture.name}: {sample.reason}")
            _check_unreadable(report)
            sizes = [sample.size for sample in found]
            maps = {
                name: labeller([sample.pixels[name] for sample in found], sizes)
                for name, labeller in labellers.items()
            }
            # The last batch is written while this one was computed.
            _wait(pending)
            pending = [
                pool.submit(_write_picture, args, sample, depth, classes)
                for sample, depth, classes in zip(found, maps["depth"], maps["semseg"], strict=True)
            ]
            report.written += len(found)
            line.update(len(batch))
        _wait(pending)


def _wait(pending: Sequence["Future[None]"]) -> None:
    for job in pending:
        job.result()


def _check_unreadable(report: PseudoLabelReport) -> None:
    if len(report.unreadable) > MAX_UNREADABLE * report.pictures:
        raise ValueError(
            f"{len(report.unreadable)} of {report.pictures} pictures cannot be read, more than {MAX_UNREADABLE:.0%}: "
            f"repair them or take them out; the first: {'; '.join(report.unreadable[:NAMED_PICTURES])}"
        )


# Writing


def _write_picture(args: PseudoLabelArguments, sample: ReadPicture, depth: np.ndarray, classes: np.ndarray) -> None:
    if not np.isfinite(depth).all():
        raise ValueError(
            f"{sample.picture.name}: depth_model {args.depth_model} gave values that are not finite with "
            f"mixed_precision {args.mixed_precision!r}: take 'bf16' or 'no'"
        )
    depth = -depth if args.flip_depth else depth

    def place(modality: str, suffix: str) -> Path:
        return Path(args.output_dir) / modality / sample.picture.folder / (sample.picture.stem + suffix)

    def save_depth(path: Path) -> None:
        if args.depth_format == "png":
            Image.fromarray(encode_depth(depth)).save(path, "PNG")
        else:
            with path.open("wb") as file:  # np.save would add a suffix to a name
                np.save(file, depth)

    write_whole(place("depth", f".{args.depth_format}"), save_depth)
    write_whole(place("semseg", ".png"), lambda path: Image.fromarray(classes).save(path, "PNG"))
    write_whole(place("rgb", sample.suffix), lambda path: put_file(sample.rgb, path, args.copy_rgb))


def _add_up(report: PseudoLabelReport, state: PartialState) -> PseudoLabelReport:
    """The counts of all processes."""
    parts = gather_object([(report.written, report.unreadable)])
    written = sum(part[0] for part in parts)
    unreadable = sorted(name for part in parts for name in part[1])
    return PseudoLabelReport(report.pictures, report.done_before, written, unreadable)
