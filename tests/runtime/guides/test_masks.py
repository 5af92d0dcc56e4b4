"""What is computed beside the engines."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from guided import drawn_ids

from foveal.runtime.guides.constraint import Constraint
from foveal.runtime.guides.guides import Guides
from foveal.runtime.guides.masks import Job
from foveal.runtime.tokenizer import ByteTokenizer


def test_a_job_is_done_once_by_whoever_comes_first() -> None:
    """By the caller if no thread has begun; threads of the pool otherwise."""
    done: list[str] = []

    def work() -> tuple[np.ndarray, bool]:
        done.append(threading.current_thread().name)
        return np.ones(3, np.bool_), True

    job = Job(work)
    assert job.seconds == 0
    with ThreadPoolExecutor(4) as threads:
        places = [found.result() for found in [threads.submit(job.place) for _ in range(8)]]
    job.start()
    assert len(done) == 1
    assert all(place is places[0] for place in places)
    started = Job(work)
    started.start()
    assert started.place().may_end
    assert len(done) == 2


def test_what_a_job_raised_is_raised_each_time() -> None:
    """To every one who asks."""

    def work() -> tuple[np.ndarray, bool]:
        raise ValueError("no")

    job = Job(work)
    job.start()
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            job.place()


def test_texts_of_many_threads_follow_their_own_constraints() -> None:
    """One model's guides are for all of them."""
    guides = Guides(ByteTokenizer(), 256)

    def write(index: int) -> bool:
        guide = guides.guide(Constraint("regex", f"({index},){{20,30}}"))
        ids = drawn_ids(guide, np.random.default_rng(index))
        return set(ByteTokenizer().decode(ids).split(",")) == {str(index), ""}

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(write, range(40)))
