"""Records of MultiMAE's pictures, and of the part of ImageNet that SMA uses."""

from collections.abc import Mapping

from . import class_maps, hypersim, imagenet, taskonomy
from .record import ColumnKind, PaperData, Use

MULTIMAE = "https://github.com/EPFL-VILAB/MultiMAE"
ILSVRC = "https://www.image-net.org/challenges/LSVRC/2012/"
ILSVRC_TERMS = "for research and teaching, after registration"
ILSVRC_LAYOUT = (
    "train/CLASS/NAME.JPEG (Kaggle's ILSVRC/Data/CLS-LOC has it), or ILSVRC2012_img_train.tar",
    "val/CLASS/NAME.JPEG, or val/NAME.JPEG or ILSVRC2012_img_val.tar with ILSVRC2012_devkit_t12/data or LOC_val_solution.csv",
)
PICTURES: Mapping[str, ColumnKind] = {"rgb": "image"}
MAPS: Mapping[str, ColumnKind] = {"rgb": "image", "depth": "image", "semseg": "image"}
COPIED = "Pictures in folders are linked, so that nothing is copied; those in tars are written"


def labelled_first(folder: str) -> tuple[tuple[str, ...], ...]:
    """The command that labels the training pictures with depth and classes.

    Args:
        folder: Folder for the labelled pictures.
    """
    return (("hf-maskssl", "pseudo-label", "--data_dir", "FOLDER/train/rgb", "--output_dir", folder),)


LABELLED = "FOLDER_labelled/train"
PRETRAINING = {"data_dir": LABELLED}
SMA_SPLITS = {"train_split": "train", "test_split": "validation"}

ALIGNED = (
    PaperData(
        name="imagenet1k",
        title="ImageNet-1K: 1.28 million pictures of 1,000 classes (ILSVRC 2012)",
        paper="MultiMAE's pictures; MultiMAE, Tables 1 and 4; Wang et al., Table 2",
        source=ILSVRC,
        licence=ILSVRC_TERMS,
        layout=ILSVRC_LAYOUT,
        documented=(
            ILSVRC,
            "https://www.kaggle.com/c/imagenet-object-localization-challenge",
            f"{MULTIMAE}/blob/main/SETUP.md",
        ),
        splits="train and val, as released; the paper scores val",
        columns=PICTURES,
        rows={"train": 1_281_167, "val": 50_000},
        labels={"label": 1000},
        read=imagenet.imagenet1k,
        uses=(
            Use(
                "pretrain",
                "multimae_imagenet1k",
                "83.3 % top-1 after fine-tuning (MultiMAE, Table 1)",
                PRETRAINING,
                first=labelled_first(LABELLED),
            ),
            Use("finetune", "finetune_multimae_imagenet1k", "83.3 % top-1 (MultiMAE, Table 1)"),
            Use(
                "pretrain",
                "multimae_minimax_imagenet1k",
                "83.0 % top-1 after fine-tuning (Wang et al., Table 2)",
                PRETRAINING,
                name="pretrain_minimax",
                first=labelled_first(LABELLED),
            ),
        ),
        note=f"{COPIED} (145 GB). Labels of depth and classes take up more than that again. The paper's depth network is "
        "Omnidata's, which is not on the Hub.",
        form="folder",
    ),
    PaperData(
        name="imagenets50",
        title="ImageNetS-50: 50 classes of ImageNet",
        paper="MultiMAE's pictures; Wang et al., Table 2",
        source="https://github.com/LUSSeg/ImageNet-S",
        licence=ILSVRC_TERMS,
        layout=("ImageNetS50/train/CLASS/NAME.JPEG, ImageNetS50/validation/CLASS/NAME.JPEG",),
        documented=("https://github.com/LUSSeg/ImageNet-S/blob/main/README.md",),
        splits="train; val: ImageNetS50/validation",
        columns=PICTURES,
        rows={"train": 64_431, "val": 752},
        labels={"label": 50},
        read=imagenet.imagenets50,
        uses=(
            Use(
                "pretrain",
                "multimae_minimax_imagenets50",
                "91.8 % top-1 after fine-tuning (Wang et al., Table 2)",
                PRETRAINING,
                first=labelled_first(LABELLED),
            ),
            Use("finetune", "finetune_multimae_imagenets50", "91.8 % top-1 (Wang et al., Table 2)"),
        ),
        note="data_preparation.sh of the source makes the layout from ImageNet-1K; pictures are linked, so that nothing is "
        "copied.",
        form="folder",
    ),
    PaperData(
        name="imagenet100",
        title="ImageNet-100: 100 classes of ImageNet (Tian et al. 2020)",
        paper="SMA, Table 5",
        source="https://github.com/HobbitLong/CMC/blob/master/imagenet100.txt",
        licence=ILSVRC_TERMS,
        layout=("imagenet100.txt, a class a line", *ILSVRC_LAYOUT),
        documented=("https://github.com/HobbitLong/CMC", ILSVRC),
        splits="train and validation, as released; the paper scores validation",
        columns={"image": "image", "label": "string"},
        rows={"train": 126_689, "validation": 5_000},
        labels={"label": 100},
        read=imagenet.imagenet100,
        uses=(
            Use(
                "pretrain",
                "sma_imagenet100",
                "86.1 % after fine-tuning with augmentation (SMA, Table 5)",
            ),
            Use(
                "finetune",
                "finetune_sma_imagenet100",
                "78.5 % without, 86.1 % with augmentation (SMA, Table 5)",
                SMA_SPLITS,
            ),
        ),
        note="Of pictures in folders only the paths are written; those in tars are copied into the table (15 GB).",
        hub="jxie/imagenet-100",
        keeps_paths=True,
    ),
    PaperData(
        name="nyuv2",
        title="NYUv2: indoor pictures with depth, 40 classes of pixels",
        paper="MultiMAE's pictures; MultiMAE, Tables 1 to 4; Wang et al., Table 2",
        source="https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
        licence="none stated; by its authors for research",
        layout=(
            "nyu_depth_v2_labeled.mat, the labelled part; splits.mat",
            "classMapping40.mat (of https://github.com/ankurhanda/nyuv2-meta-data), without which there are no classes",
        ),
        documented=(
            "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
            f"{MULTIMAE}/blob/main/tools/prepare_nyuv2.py",
            "https://github.com/apple/ml-hypersim/issues/12",
        ),
        splits="train and test of splits.mat",
        columns=MAPS,
        rows={"train": 795, "test": 654},
        labels={"semseg": 40},
        read=class_maps.nyuv2,
        uses=(
            Use(
                "segment",
                "finetune_multimae_nyuv2_segmentation",
                "56.0 mIoU from colours and depth, 52.0 and 41.4 from one alone (MultiMAE, Table 2)",
            ),
            Use(
                "depth",
                "finetune_multimae_nyuv2_depth",
                "86.4 % delta_1 (MultiMAE, Table 1)",
                finetuning={"output_dir": "outputs/finetune_nyuv2_depth"},
            ),
        ),
        note="Depth is the release's with holes filled in, as whole millimetres. About 1 GB of pictures of 480 x 640 pixels is "
        "written. The paper's text counts 655 test pictures.",
        form="folder",
    ),
    PaperData(
        name="ade20k",
        title="ADE20K: scenes, 150 classes of pixels (scene parsing benchmark)",
        paper="MultiMAE's pictures; MultiMAE, Tables 1 and 3",
        source="http://sceneparsing.csail.mit.edu",
        licence="BSD-3-Clause for the annotations; pictures for research and teaching",
        layout=(
            "ADEChallengeData2016/images/training/NAME.jpg, images/validation/NAME.jpg",
            "ADEChallengeData2016/annotations/training/NAME.png, annotations/validation/NAME.png",
        ),
        documented=("https://github.com/CSAILVision/sceneparsing", f"{MULTIMAE}/blob/main/FINETUNING.md"),
        splits="train and val, as released; the paper scores val",
        columns={"rgb": "image", "semseg": "image"},
        rows={"train": 20_210, "val": 2_000},
        labels={"semseg": 150},
        read=class_maps.ade20k,
        uses=(Use("segment", "finetune_multimae_ade20k", "46.2 mIoU (MultiMAE, Table 1)"),),
        note="Pictures are linked; maps are written anew (some 100 MB), with classes from 0 and 255 for the release's 0, other "
        "things.",
        form="folder",
    ),
    PaperData(
        name="hypersim",
        title="Hypersim: rendered rooms with depth, 40 classes of pixels",
        paper="MultiMAE's pictures; MultiMAE, Tables 1 to 3",
        source="https://github.com/apple/ml-hypersim",
        licence="CC BY-SA 3.0",
        layout=(
            "metadata_images_split_scene_v1.csv (of the source's evermotion_dataset/analysis)",
            "ai_VVV_NNN/images/scene_cam_XX_geometry_hdf5: frame.IIII.depth_meters.hdf5, frame.IIII.semantic.hdf5",
            "ai_VVV_NNN/images/scene_cam_XX_final_hdf5: frame.IIII.color.hdf5, and of geometry frame.IIII.render_entity_id.hdf5; "
            "or scene_cam_XX_final_preview: frame.IIII.tonemap.jpg",
        ),
        documented=(
            "https://github.com/apple/ml-hypersim/blob/main/README.md",
            "https://github.com/apple/ml-hypersim/issues/9",
            "https://github.com/apple/ml-hypersim/issues/12",
        ),
        splits="train, val and test of the release's split by scenes (v1); the paper scores val",
        columns=MAPS,
        rows={"train": 59_543, "val": 7_386, "test": 7_690},
        labels={"semseg": 40},
        read=hypersim.hypersim,
        uses=(
            Use(
                "segment",
                "finetune_multimae_hypersim",
                "47.6 mIoU from colours and depth, 37.0 and 38.5 from one alone (MultiMAE, Table 2)",
            ),
        ),
        note="Depth is made planar and written as whole millimetres. Written are roughly 70 GB with colours from color.hdf5, 50 "
        "with linked previews, which the release advises against. The paper counts 51,674 training pictures; which it left out "
        "is not documented.",
        form="folder",
    ),
    PaperData(
        name="taskonomy",
        title="Taskonomy: indoor views with nine maps each, the tiny split",
        paper="MultiMAE's pictures; MultiMAE, Table 4 and supplement",
        source="https://github.com/StanfordVL/taskonomy/tree/master/data",
        licence="Taskonomy's own, for non-commercial research",
        layout=(
            "tiny_train.csv, tiny_val.csv, tiny_test.csv (of the paper's repository, utils/taskonomy/splits)",
            "DOMAIN/BUILDING/point_P_view_V_domain_DOMAIN.png, of rgb and of targets; DOMAIN/taskonomy/BUILDING and "
            "BUILDING/DOMAIN are found as well",
        ),
        documented=(
            "https://github.com/StanfordVL/taskonomy/blob/master/data/README.md",
            "https://docs.omnidata.vision/starter_dataset_download.html",
            f"{MULTIMAE}/tree/main/utils/taskonomy",
        ),
        splits="the first 800 of tiny_train.csv, the first 200 of tiny_val.csv, and tiny_test.csv, as the authors take them",
        columns=dict.fromkeys(taskonomy.DOMAINS, "image"),
        rows={"train": 800, "val": 200, "test": 54_514},
        labels={},
        read=taskonomy.taskonomy,
        uses=(
            Use(
                "finetune",
                "finetune_multimae_taskonomy",
                "average rank 1.5 over nine targets after 400 epochs (MultiMAE, Table 4a)",
            ),
        ),
        note="All pictures are linked, so that nothing is copied. The authors' code configures eight targets, all but "
        "depth_euclidean; it blurs edge_occlusion, which is not done here.",
        form="folder",
    ),
)
