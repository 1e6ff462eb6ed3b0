"""What every run of several processes needs: time to wait for each other, and one run instead of many."""

import os
from datetime import timedelta

from accelerate.state import PartialState
from accelerate.utils import parse_flag_from_env

# While the main process prepares data, alone and for hours where there is much of it, the others wait; and at the end of
# labelling one process may have had far slower pictures than another.
LONGEST_WAIT = timedelta(days=2)


def launched_state() -> PartialState:
    """The processes of this launch, those on the CPU too, of which `PartialState()` alone takes no notice.

    Raises:
        ValueError: as `check_launch`.
    """
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=LONGEST_WAIT)
    check_launch(state)
    return state


def check_launch(state: PartialState) -> None:
    """See that the processes which the launch started know of each other.

    Raises:
        ValueError: each would do all of the work, in the same folder.
    """
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started != state.num_processes:
        raise ValueError(
            f"the launch started {started} processes (WORLD_SIZE), of which Accelerate sees {state.num_processes}: each "
            "would do the whole run in the same folder. On the CPU set ACCELERATE_USE_CPU=true before `accelerate launch`, "
            "as examples/accelerate/two_cpu_processes.yaml says; on GPUs see that torch finds them; where nothing was "
            "launched, unset WORLD_SIZE."
        )
