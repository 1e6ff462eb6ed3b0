"""Records of speech."""

from . import speech
from .numbers_table import DABS, METAMAE
from .record import PaperData, Use

OPENSLR = "https://www.openslr.org/12"
VOXCELEB = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html"
FLUENT = "https://fluent.ai/fluent-speech-commands-a-dataset-for-spoken-language-understanding-research/"
PARTS = ("dev-clean", *speech.LIBRISPEECH_PARTS)
LABELLED = {"train_split": "train", "test_split": "test", "label_column": "label"}


def fluent_use(column: str, number: str) -> Use:
    """The probe of one label of Fluent Speech Commands."""
    fields = {**LABELLED, "label_column": column}
    return Use(
        "probe", "metamae_librispeech", f"{number} % accuracy (MetaMAE, Table 2)", fields, name=f"probe_{column}"
    )


SPEECH = (
    PaperData(
        name="librispeech",
        title="LibriSpeech: read English, 40 speakers to tell apart",
        paper="MetaMAE, Table 1",
        source=OPENSLR,
        licence="CC BY 4.0",
        layout=tuple(f"{part}/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac" for part in PARTS),
        documented=(OPENSLR, f"{DABS}/speech/librispeech.py"),
        splits="train: the three training parts; probe and test: dev-clean, 80 / 20 of each speaker",
        columns={"audio": "sound", "speaker_id": "int"},
        rows={"train": 281_241, "probe": None, "test": None},
        labels={"speaker_id": 2_338 + 40},
        read=speech.librispeech,
        uses=(
            Use(
                "pretrain",
                "metamae_librispeech",
                "79.8 % accuracy of the probe (MetaMAE, Table 1)",
                {"train_split": "train"},
            ),
            Use(
                "probe",
                "metamae_librispeech",
                "79.8 % accuracy (MetaMAE, Table 1)",
                {"train_split": "probe", "test_split": "test", "label_column": "speaker_id"},
            ),
        ),
        note="FLAC files are read by torchcodec: pip install torchcodec.",
        downloads=tuple(f"https://www.openslr.org/resources/12/{part}.tar.gz" for part in PARTS),
        hub="openslr/librispeech_asr",
        keeps_paths=True,
    ),
    PaperData(
        name="audio_mnist",
        title="Audio MNIST: spoken digits of 60 speakers",
        paper="MetaMAE, Table 2",
        source="https://github.com/soerenab/AudioMNIST",
        licence="MIT",
        layout=("data/SPEAKER/DIGIT_SPEAKER_TAKE.wav, speakers 01 to 60",),
        documented=("https://github.com/soerenab/AudioMNIST", f"{METAMAE}/speech.py"),
        splits="test: 12 speakers; train: the other 48",
        columns={"audio": "sound", "label": "int", "speaker": "int"},
        rows={"train": 24_000, "test": 6_000},
        labels={"label": 10},
        read=speech.audio_mnist,
        uses=(Use("probe", "metamae_librispeech", "89.5 % accuracy (MetaMAE, Table 2)", LABELLED),),
        note="The files have 48 kHz. The authors' frames of 672 samples last a third of pre-training's there; here sounds are "
        "resampled to pre-training's 16 kHz.",
    ),
    PaperData(
        name="fluent_speech",
        title="Fluent Speech Commands: action, object and location of a command",
        paper="MetaMAE, Table 2",
        source=FLUENT,
        licence="Fluent Speech Commands Public License: research",
        layout=(
            "data/train_data.csv, valid_data.csv, test_data.csv: path, action, object, location",
            "wavs/speakers/SPEAKER/NAME.wav",
        ),
        documented=(FLUENT, f"{METAMAE}/speech.py"),
        splits="train: train_data and valid_data; test: test_data",
        columns={"audio": "sound", "action": "string", "object": "string", "location": "string"},
        rows={"train": 26_250, "test": 3_793},
        labels={"action": 6, "object": 14, "location": 4},
        read=speech.fluent_speech,
        uses=(fluent_use("location", "66.7"), fluent_use("action", "38.4"), fluent_use("object", "49.3")),
    ),
    PaperData(
        name="google_speech",
        title="Google Speech Commands: 35 words, and noise",
        paper="MetaMAE, Table 2",
        source="https://www.tensorflow.org/datasets/catalog/speech_commands",
        licence="CC BY 4.0",
        layout=("testing_list.txt", "WORD/SPEAKER_nohash_NUMBER.wav, version 0.02, and _background_noise_/NAME.wav"),
        documented=("https://arxiv.org/abs/1804.03209", f"{DABS}/speech/google_speech.py"),
        splits="test: testing_list.txt; train: all others",
        columns={"audio": "sound", "label": "string"},
        rows={"train": 94_830, "test": 11_005},
        labels={"label": 36},
        read=speech.google_speech,
        uses=(Use("probe", "metamae_librispeech", "46.8 % accuracy (MetaMAE, Table 2)", LABELLED),),
        note="The authors' code takes the test files out of training by names that end with a line break, so that they stay in; "
        "here they are out: expect less.",
        downloads=("https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",),
    ),
    PaperData(
        name="voxceleb1",
        title="VoxCeleb1: 1,251 speakers of interviews",
        paper="MetaMAE, Table 2",
        source=VOXCELEB,
        licence="CC BY 4.0; see the source",
        layout=(
            "iden_split.txt: part and path a line",
            "wav/SPEAKER/VIDEO/NUMBER.wav, of vox1_dev_wav and vox1_test_wav",
        ),
        documented=(
            "https://pytorch.org/audio/stable/generated/torchaudio.datasets.VoxCeleb1Identification.html",
            f"{METAMAE}/speech.py",
        ),
        splits="train: parts 1 and 2 of iden_split.txt; test: part 3",
        columns={"audio": "sound", "label": "string"},
        rows={"train": 145_265, "test": 8_251},
        labels={"label": 1_251},
        read=speech.voxceleb1,
        uses=(Use("probe", "metamae_librispeech", "7.4 % accuracy (MetaMAE, Table 2)", LABELLED),),
        keeps_paths=True,
    ),
)
