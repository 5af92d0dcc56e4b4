"""The report that the tests look at."""

from __future__ import annotations

import pytest
from precisions import PrecisionZoo
from report_specimens import small_report
from store import Store

from foveal.report.document import Report


@pytest.fixture(scope="session")
def report(precise: PrecisionZoo, store: Store) -> Report:
    """Of a nested model in fp32 and w8, and a vanilla one."""
    return small_report(precise, store)
