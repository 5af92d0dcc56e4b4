"""Which of a Jetson's power rails make up the whole.

From the rails' places on the boards: docs/jetson.md, "What is measured".
"""

from __future__ import annotations

from collections.abc import Iterable

# A rail that everything else hangs from, best first, and what it sees.
TOTALS = {
    "VIN": "the board's input: module and carrier board",
    "VDD_IN": "the module's input, without the carrier board",
    "POM_5V_IN": "the board's 5 V input",
}
# AGX Orin: VIN_SYS_5V0 feeds VDDQ_VDD2_1V8AO, so that a sum of both would count it twice.
_FED_BY = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}
_NOT_RAILS = ("NC", "sum of shunt voltages")  # not connected; the INA3221's seventh channel


def is_rail(label: str) -> bool:
    """Whether a sensor's channel is a rail at all."""
    return label not in _NOT_RAILS


def whole(labels: Iterable[str]) -> tuple[list[str], str]:
    """The rails to add up for the power of everything that is measured, and what that sees.

    The total rail where the board has one; else all rails that no other measured rail feeds.
    """
    present = [label for label in labels if is_rail(label)]
    for total, sees in TOTALS.items():
        if total in present:
            return [total], sees
    return [label for label in present if _FED_BY.get(label) not in present], "the sum of the module's measured rails"
