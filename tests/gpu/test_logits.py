"""What engines compute: the logits of the full forward, wherever a session goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from exactness import Walk, distance, equal_until_a_tie, greedy, paths
from gpu_outcomes import Recorder
from gpu_workshop import Made
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from specimens import GOLDEN, GOLDENS

from foveal.errors import BackendUnavailable
from foveal.export import compare

pytestmark = pytest.mark.gpu
TEXT_TOKENS = 60


@settings(max_examples=max(3, settings().max_examples // 8), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 2), path=paths)
def test_wherever_a_session_goes_its_logits_are_the_full_forwards(
    made: Made, record: Recorder, batch: int, path: Sequence[tuple[str, int]]
) -> None:
    """In any chunks, rewound, restored and forked at any phase; for one sequence and for two."""
    walk = Walk(made.session(batch), made.expected, made.tolerance)
    for step, tokens in path:
        walk.take(step, tokens)
    walk.advance(7)
    record.largest("largest error", walk.largest, "of the largest logit")


@pytest.mark.of(GOLDENS)
def test_the_logits_of_a_golden_checkpoint(made: Made, record: Recorder) -> None:
    """As its own package computed them, whole and token by token, and the text it then wrote."""
    stored = np.load(GOLDEN / made.case.model / "io.npz")
    ids, expected = stored["ids"], stored["logits"]
    with made.session(len(ids)) as session:
        whole = session.advance(ids)
        session.reset()
        single = np.concatenate([session.advance(ids[:, place : place + 1]) for place in range(ids.shape[1])], 1)
    record("largest error", distance(whole, expected), "of the largest logit", of="whole")
    record("largest error", distance(single, expected), "of the largest logit", of="token by token")
    assert max(distance(whole, expected), distance(single, expected)) <= made.tolerance
    prompt, text = np.split(stored["greedy_ids"].reshape(-1), [int(stored["greedy_prompt_len"])])
    with made.session() as session:
        np.testing.assert_array_equal(greedy(session, prompt[None], len(text)), text)


def test_greedy_text_is_the_cpus(made: Made, record: Recorder) -> None:
    """Up to a tie: two tokens whose logits differ by less than engines may."""
    prompt = made.prompt()
    with made.session() as session, made.host_session() as host:
        got, expected = greedy(session, prompt, TEXT_TOKENS), greedy(host, prompt, TEXT_TOKENS)
    record("tokens before a tie", equal_until_a_tie(got, expected, made.expected, prompt, made.tolerance), "tokens")


def test_every_stage_is_that_of_onnxruntime(made: Made, record: Recorder) -> None:
    """`foveal compare`: each stage on the rows of the portable graphs, which ONNX Runtime computes on the CPU."""
    subject = made.case.subject
    try:
        report = compare(made.bundle, ("portable", subject.target), tolerance=made.tolerance, provider=subject.provider)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    for found in (*report.stages, *report.system):
        record(f"largest error, {found.decoded}", found.max_error, "of the largest value", of=found.name)
    report.require_equal()
