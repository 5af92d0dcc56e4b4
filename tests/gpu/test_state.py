"""Where engines keep what they know of the past, and what they do with the rest of that memory."""

from __future__ import annotations

import pytest
from exactness import check_what_is_not_written_does_not_matter, check_writes_new_rows_only
from gpu_outcomes import Recorder
from gpu_workshop import Made

pytestmark = pytest.mark.gpu


def test_a_call_changes_no_byte_but_those_of_its_rows(made: Made, record: Recorder) -> None:
    """Of all caches and logs, in decode steps of every phase and in prefills."""
    for batch in (1, 2):
        with made.session(batch) as session:
            session.advance([[1] * 5] * batch)
            record("watched", check_writes_new_rows_only(session, [1] * 18 + [9, 1, 2]), "bytes", of=f"batch {batch}")


def test_what_is_not_written_does_not_matter(made: Made, record: Recorder) -> None:
    """Every row that is not written yet holds something large."""
    for batch in (1, 2):
        with made.session(batch) as session:
            error = check_what_is_not_written_does_not_matter(session, made.expected, made.tolerance)
        record("largest error", error, "of the largest logit", of=f"batch {batch}")
