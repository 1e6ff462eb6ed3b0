"""Needs of every run of several processes: time to wait for each other, and one run instead of many."""

import os
from datetime import timedelta

from accelerate.state import PartialState
from accelerate.utils import parse_flag_from_env

from .orphans import end_with_launcher

# Processes wait for each other: while the main process prepares data, perhaps for hours, and at the end of labelling,
# when one of them had far slower pictures.
LONGEST_WAIT = timedelta(days=2)


def launched_state() -> PartialState:
    """The processes of this launch, including those on the CPU, which `PartialState()` alone does not see.

    Raises:
        ValueError: `check_launch` refuses the launch.
    """
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=LONGEST_WAIT)
    check_launch(state)
    return state


def check_launch(state: PartialState) -> None:
    """Check that the processes which the launch started know of each other, and let them end with their launcher.

    Raises:
        ValueError: They do not, so that each would do all of the work, in the same folder.
    """
    end_with_launcher()
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started != state.num_processes:
        raise ValueError(
            f"the launch started {started} processes (WORLD_SIZE), of which Accelerate sees {state.num_processes}: each "
            "would do the whole run in the same folder. On the CPU set ACCELERATE_USE_CPU=true before `accelerate launch`, "
            "as examples/accelerate/two_cpu_processes.yaml says; on GPUs see that torch finds them; where nothing was "
            "launched, unset WORLD_SIZE."
        )
