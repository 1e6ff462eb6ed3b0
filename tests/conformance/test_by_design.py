"""The table of what is left out by design names nothing that is not there."""

import pytest
import test_metamae
import test_multimae
import test_pos_minimax_bert
import test_sma
from adapters import Conformance
from by_design import BY_DESIGN, reason_to_skip

pytestmark = pytest.mark.slow


def test_every_row_leaves_out_a_test() -> None:
    found = set()
    for module in (test_metamae, test_multimae, test_pos_minimax_bert, test_sma):
        for adapter in vars(module).values():
            if isinstance(adapter, type) and issubclass(adapter, Conformance):
                found |= {
                    reason_to_skip(adapter.model_class, adapter.case.name, name)
                    for name in dir(adapter)
                    if name.startswith("test_")
                }
    assert {reason for *_, reason in BY_DESIGN} <= found
