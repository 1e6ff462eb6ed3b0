"""Which modalities the rows of a set have, counted."""

import logging
from collections.abc import Mapping

import numpy as np

logger = logging.getLogger(__name__)


def tell_presence(is_present: Mapping[str, np.ndarray], place: str) -> None:
    """Log how many rows have each modality, all of them, or one alone; warn of modalities that never meet another.

    Args:
        is_present: Modality -> (n,) bool, which rows have it.
        place: Name of the rows in the message.
    """
    flags = np.stack(list(is_present.values()))
    together = flags.sum(axis=0)
    counts = ", ".join(f"{name} {int(rows.sum())}" for name, rows in is_present.items())
    whole, alone = int(flags.all(axis=0).sum()), int((together == 1).sum())
    logger.info(
        "%s: %d rows; with %s; %d rows have all modalities, %d one alone", place, flags.shape[1], counts, whole, alone
    )
    lonely = [name for name, rows in is_present.items() if rows.any() and not (rows & (together > 1)).any()]
    if len(is_present) > 1 and lonely:
        logger.warning(
            "%s: no row has %s together with another modality (rows: %s; %d of %d have one modality alone): files belong "
            "together that have the same name, whatever their endings",
            *(place, " or ".join(map(repr, lonely)), counts, alone, flags.shape[1]),
        )
