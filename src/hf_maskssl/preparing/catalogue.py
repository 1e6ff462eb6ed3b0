"""The table of the papers' data sets, in the order of Table 16 of MetaMAE, then those of SMA and MultiMAE."""

from ..recipes import nearest
from .aligned_table import ALIGNED
from .molecules_table import MOLECULES
from .numbers_table import NUMBERS
from .pictures_table import PICTURES
from .record import PaperData
from .sequences_table import SEQUENCES
from .speech_table import SPEECH

DATA_SETS: dict[str, PaperData] = {
    record.name: record for table in (NUMBERS, SEQUENCES, SPEECH, PICTURES, MOLECULES, ALIGNED) for record in table
}


def find_data_set(name: str) -> PaperData:
    """The record of a name.

    Raises:
        ValueError: No such data set; the error names the nearest.
    """
    if name not in DATA_SETS:
        raise ValueError(f"NAME: no data set {name!r}{nearest(name, DATA_SETS)}; `hf-maskssl data list` lists them")
    return DATA_SETS[name]
