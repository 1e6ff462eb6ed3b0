"""Records of pictures, with and without texts."""

from collections.abc import Mapping

from . import captions, pictures, wafers
from .numbers_table import DABS, METAMAE, PROBE
from .record import ColumnKind, PaperData, Use

COCO = "https://cocodataset.org/#download"
COCO_FILES = "https://s3.amazonaws.com/images.cocodataset.org"
TEST = {"train_split": "train", "test_split": "test"}
CAPTIONS: Mapping[str, ColumnKind] = {"image": "image", "caption": "string", "label": "int"}
COCO_LAYOUT = (
    "annotations/captions_train2017.json, captions_val2017.json, instances_train2017.json, instances_val2017.json",
    "train2017/NUMBER.jpg and val2017/NUMBER.jpg",
)
COCO_DOWNLOADS = tuple(
    f"{COCO_FILES}/{name}.zip" for name in ("annotations/annotations_trainval2017", "zips/train2017", "zips/val2017")
)


def small_use(number: str) -> Use:
    """The probe of a set of pictures at 32 x 32 pixels."""
    return Use("probe", "metamae_imagenet32", f"{number} % accuracy (MetaMAE, Table 2)", TEST)


PICTURES = (
    PaperData(
        name="eurosat",
        title="EuroSAT: satellite pictures with 13 bands, 10 kinds of land use",
        paper="MetaMAE, Table 1",
        source="https://github.com/phelber/EuroSAT",
        licence="MIT",
        layout=("CLASS/CLASS_NUMBER.tif, the release of all bands (EuroSATallBands.zip)",),
        documented=("https://github.com/phelber/EuroSAT", f"{DABS}/satellite_images/eurosat.py"),
        splits="train: 90 % of nine tenths of the pictures; probe and test: the last tenth, 90 / 10",
        columns={"image": "bands", "label": "string"},
        rows={"train": 21_870, "probe": 2_430, "test": 270},
        labels={"label": 10},
        read=pictures.eurosat,
        uses=(
            Use("pretrain", "metamae_eurosat", "88.5 % accuracy of the probe (MetaMAE, Table 1)", TEST),
            Use("probe", "metamae_eurosat", "88.5 % accuracy (MetaMAE, Table 1)", PROBE),
        ),
        note="DABS shuffles the pictures in the order of TensorFlow Datasets, here in that of their names.",
        downloads=("https://madm.dfki.de/files/sentinel/EuroSATallBands.zip",),
        hub="blanchon/EuroSAT_MSI (another cut)",
    ),
    PaperData(
        name="wafer_map",
        title="WaferMap: maps of defects on silicon wafers, 9 classes",
        paper="MetaMAE, Table 1",
        source="http://mirlab.org/dataSet/public/",
        licence="not stated",
        layout=("MATLAB/WM811K.mat: data with failureType and waferMap (MATLAB 7.3)",),
        documented=(
            "https://www.mathworks.com/help/deeplearning/ug/classify-anomalies-on-wafer-defect-maps-using-deep-learning.html",
            f"{DABS}/semiconductors/wafer_map.py",
        ),
        splits="train: 90 % of the wafers without a failure type; probe and test: those with one, 90 / 10",
        columns={"image": "image", "label": "string"},
        rows={"train": 574_657, "probe": 155_655, "test": 17_295},
        labels={"label": 9},
        read=wafers.wafer_map,
        uses=(
            Use("pretrain", "metamae_wafermap", "95.5 % weighted F1 of the probe (MetaMAE, Table 1)"),
            Use(
                "probe",
                "metamae_wafermap",
                "95.5 % weighted F1 (MetaMAE, Table 1)",
                {**PROBE, "label_column": "label"},
            ),
        ),
    ),
    PaperData(
        name="imagenet32",
        title="ImageNet32: ImageNet-1k at 32 x 32 pixels",
        paper="MetaMAE, Table 2",
        source="https://image-net.org/download-images",
        licence="ImageNet's terms: research, with an account",
        layout=(
            "train_data_batch_1.npz to train_data_batch_10.npz and val_data.npz (the NumPy version): data, labels",
        ),
        documented=("https://arxiv.org/abs/1707.08819", "https://github.com/PatrykChrabaszcz/Imagenet32_Scripts"),
        splits="train and validation: the release's",
        columns={"image": "image", "label": "int"},
        rows={"train": 1_281_167, "validation": 50_000},
        labels={"label": 1000},
        read=pictures.imagenet32,
        uses=(Use("pretrain", "metamae_imagenet32", "59.2 % accuracy of the probe on CIFAR-10 (MetaMAE, Table 2)"),),
        note="The authors shrink the full ImageNet with torchvision instead.",
        hub="benjamin-paine/imagenet-1k-32x32",
    ),
    PaperData(
        name="cifar10",
        title="CIFAR-10: pictures of 32 x 32 pixels, 10 classes",
        paper="MetaMAE, Table 2",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="not stated",
        layout=("cifar-10-batches-bin/data_batch_1.bin to data_batch_5.bin and test_batch.bin (the binary version)",),
        documented=("https://www.cs.toronto.edu/~kriz/cifar.html",),
        splits="train and test: the release's",
        columns={"image": "image", "label": "string"},
        rows={"train": 50_000, "test": 10_000},
        labels={"label": 10},
        read=pictures.cifar10,
        uses=(small_use("59.2"),),
        downloads=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
        hub="uoft-cs/cifar10",
    ),
    PaperData(
        name="cub",
        title="CUB-200-2011: 200 kinds of birds",
        paper="MetaMAE, Table 2",
        source="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        licence="research, not commercial",
        layout=(
            "CUB_200_2011/images.txt, image_class_labels.txt, train_test_split.txt: number and value a line",
            "CUB_200_2011/images/CLASS/NAME.jpg",
        ),
        documented=("https://www.vision.caltech.edu/datasets/cub_200_2011/", f"{METAMAE}/rgbimage.py"),
        splits="train and test: train_test_split.txt",
        columns={"image": "image", "label": "int", "name": "string"},
        rows={"train": 5_994, "test": 5_794},
        labels={"label": 200},
        read=pictures.cub,
        uses=(small_use("6.3"),),
        downloads=("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",),
    ),
    PaperData(
        name="vgg_flowers",
        title="VGG Flowers: 102 kinds of flowers",
        paper="MetaMAE, Table 2",
        source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        licence="not stated",
        layout=("jpg/image_00001.jpg to image_08189.jpg (102flowers.tgz)", "imagelabels.mat"),
        documented=("https://www.robots.ox.ac.uk/~vgg/data/flowers/102/", f"{DABS}/natural_images/vgg_flower.py"),
        splits="train and test: 80 / 20 of each class, the cut of DABS",
        columns={"image": "image", "label": "int"},
        rows={"train": None, "test": None},
        labels={"label": 102},
        read=pictures.vgg_flowers,
        uses=(small_use("36.3"),),
        downloads=(
            "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz",
            "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/imagelabels.mat",
        ),
    ),
    PaperData(
        name="dtd",
        title="DTD: describable textures, 47 classes",
        paper="MetaMAE, Table 2",
        source="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        licence="research",
        layout=("dtd/labels/train1.txt, val1.txt, test1.txt", "dtd/images/CLASS/NAME.jpg"),
        documented=("https://www.robots.ox.ac.uk/~vgg/data/dtd/", f"{METAMAE}/rgbimage.py"),
        splits="train: train1 and val1; test: test1",
        columns={"image": "image", "label": "string"},
        rows={"train": 3_760, "test": 1_880},
        labels={"label": 47},
        read=pictures.dtd,
        uses=(small_use("20.9"),),
        downloads=("https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",),
    ),
    PaperData(
        name="traffic_sign",
        title="Traffic Sign: GTSRB, 43 signs",
        paper="MetaMAE, Table 2",
        source="https://benchmark.ini.rub.de/gtsrb_dataset.html",
        licence="see the source",
        layout=("GTSRB/Final_Training/Images/CLASS/NAME.ppm (GTSRB_Final_Training_Images.zip)",),
        documented=("https://benchmark.ini.rub.de/gtsrb_dataset.html", f"{DABS}/natural_images/traffic_sign.py"),
        splits="train and test: 80 / 20 of each class of the training pictures, the cut of DABS",
        columns={"image": "image", "label": "int"},
        rows={"train": 31_367, "test": 7_842},
        labels={"label": 43},
        read=pictures.traffic_sign,
        uses=(small_use("67.1"),),
        note="DABS shuffles the files in the order of the file system, here in that of their names. Shots of one sign are in "
        "both splits, as there.",
        downloads=(
            "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/GTSRB_Final_Training_Images.zip",
        ),
    ),
    PaperData(
        name="aircraft",
        title="FGVC-Aircraft: 100 variants of planes",
        paper="MetaMAE, Table 2",
        source="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        licence="research, not commercial",
        layout=(
            "data/images_variant_trainval.txt, images_variant_test.txt, images_box.txt",
            "data/images/NUMBER.jpg (fgvc-aircraft-2013b)",
        ),
        documented=("https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/", f"{METAMAE}/rgbimage.py"),
        splits="train: trainval; test: test; every picture cut to its box",
        columns={"image": "image", "label": "string"},
        rows={"train": 6_667, "test": 3_333},
        labels={"label": 100},
        read=pictures.aircraft,
        uses=(small_use("16.4"),),
        note="Table 16 prints 102 classes, the number of the first release; 2013b has 100.",
        downloads=("https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",),
    ),
    PaperData(
        name="mscoco",
        title="MSCOCO: pictures with a caption each",
        paper="MetaMAE, Table 3",
        source=COCO,
        licence="annotations CC BY 4.0; pictures by Flickr's terms",
        layout=COCO_LAYOUT,
        documented=("https://cocodataset.org/#format-data", f"{DABS}/captioned_images/mscoco.py"),
        splits="train: train2017; test: val2017; pictures without marked things are left out",
        columns=CAPTIONS,
        rows={"train": 117_266, "test": 4_952},
        labels={"label": 80},
        read=captions.mscoco,
        uses=(
            Use(
                "pretrain", "metamae_mscoco", "70.5 % accuracy of the probe on mismatched captions (MetaMAE, Table 3)"
            ),
        ),
        downloads=COCO_DOWNLOADS,
        hub="jxie/coco_captions",
        keeps_paths=True,
    ),
    PaperData(
        name="mismatched_caption",
        title="Mismatched-caption: does the caption belong to the picture?",
        paper="MetaMAE, Table 3",
        source=COCO,
        licence="annotations CC BY 4.0; pictures by Flickr's terms",
        layout=COCO_LAYOUT,
        documented=("https://cocodataset.org/#format-data", f"{METAMAE}/captionedimage.py"),
        splits="train: train2017; test: val2017; half of the captions are another picture's (label 0)",
        columns=CAPTIONS,
        rows={"train": 117_266, "test": 4_952},
        labels={"label": 2},
        read=captions.mismatched_caption,
        uses=(
            Use(
                "probe",
                "metamae_mscoco",
                "70.5 % accuracy (MetaMAE, Table 3)",
                {**TEST, "label_column": "label"},
            ),
        ),
        downloads=COCO_DOWNLOADS,
        keeps_paths=True,
    ),
    PaperData(
        name="vqa",
        title="VQA: is this the answer to the question about the picture?",
        paper="MetaMAE, Table 3",
        source="https://visualqa.org/vqa_v1_download.html",
        licence="annotations CC BY 4.0; pictures by Flickr's terms",
        layout=(
            "MultipleChoice_mscoco_train2014_questions.json, MultipleChoice_mscoco_val2014_questions.json (version 1)",
            "mscoco_train2014_annotations.json, mscoco_val2014_annotations.json",
            "train2014/COCO_train2014_NUMBER.jpg and val2014/COCO_val2014_NUMBER.jpg, of MSCOCO",
        ),
        documented=("https://visualqa.org/vqa_v1_download.html", f"{DABS}/captioned_images/vqa.py"),
        splits="train: train2014; test: val2014; half of the answers are another choice (label 0)",
        columns={"image": "image", "text": "string", "label": "int"},
        rows={"train": None, "test": None},
        labels={"label": 2},
        read=captions.vqa,
        uses=(
            Use(
                "probe",
                "metamae_mscoco",
                "69.7 % accuracy (MetaMAE, Table 3)",
                {**TEST, "label_column": "label", "text_column": "text"},
            ),
        ),
        note="The authors draw the wrong answers without a seed; here it is 42.",
        downloads=(
            *(f"{COCO_FILES}/zips/{part}2014.zip" for part in ("train", "val")),
            *(
                f"https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/{kind}_{part}_mscoco.zip"
                for kind in ("Questions", "Annotations")
                for part in ("Train", "Val")
            ),
        ),
        keeps_paths=True,
    ),
)
