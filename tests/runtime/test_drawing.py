"""Tokens drawn on the device: the text that the host draws from the same seed, with one launch for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeGpu
from resident_engines import ort_engines, session_of, tensorrt_engines
from specimens import Zoo, random_ids

from foveal import CapacityError, ConfigError, Constraint, InputError, SamplingParams
from foveal.contract import EndRule
from foveal.runtime.backends import cpu_engines
from foveal.runtime.drawing import can_draw
from foveal.runtime.generation.generate import GeneratedIds, begin, generate_ids
from foveal.runtime.generation.request import Request
from foveal.runtime.resident import ResidentEngines
from foveal.runtime.session import Session

PROMPT = random_ids(1, 9)[0].tolist()
SETTINGS = [{"temperature": 0.0}, {"top_k": 12}, {"temperature": 0.7, "top_k": 40, "top_p": 0.9}, {"top_k": 9, "min_p": 0.1}]


def opened(name: str, library: str, zoo: Zoo, gpu: FakeGpu) -> Session:
    """A session on a specimen's engines."""
    specimen = zoo[name]
    engines: dict[str, Any] = {
        "onnxruntime": lambda: ort_engines(specimen, "modern"),
        "onnxruntime, taking turns": lambda: ort_engines(specimen, "classic", in_place=False),
        "onnxruntime, recorded": lambda: ort_engines(specimen, "modern", gpu=gpu),
        "tensorrt-rtx": lambda: tensorrt_engines(specimen, "tensorrt-rtx", gpu),
        "tensorrt 10.3": lambda: tensorrt_engines(specimen, "tensorrt 10.3", gpu),
    }
    return session_of(engines[library](), specimen)


LIBRARIES = ["onnxruntime", "onnxruntime, taking turns", "onnxruntime, recorded", "tensorrt-rtx", "tensorrt 10.3"]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_device_draws_the_hosts_text(settings: dict[str, Any], library: str, zoo: Zoo, gpu: FakeGpu) -> None:
    """Over several blocks, to the end of the context."""
    params = SamplingParams(**settings, seed=5, max_new_tokens=200)
    host = Session(cpu_engines(zoo["nested"].bundle), zoo["nested"].bundle.manifest.model)
    device = opened("nested", library, zoo, gpu)
    assert device.draws
    assert list(generate_ids(device, PROMPT, params)) == list(generate_ids(host, PROMPT, params))
    assert device.position == host.position == device.capacity
    assert device.tokens.tolist() == host.tokens.tolist()
    assert device.fires == host.fires


@pytest.mark.parametrize("library", ["onnxruntime", "tensorrt-rtx"])
def test_many_tokens_at_once(library: str, zoo: Zoo, gpu: FakeGpu) -> None:
    """Drawing goes on from where it was, and every logit after it is the full forward's."""
    host = Session(cpu_engines(zoo["wide"].bundle), zoo["wide"].bundle.manifest.model)
    device, greedy = opened("wide", library, zoo, gpu), SamplingParams(temperature=0)
    token = [[7]]
    for count in (1, 30, 2):
        drawn = device.draw(token, count, greedy, np.zeros((count, 1)))
        expected = []
        for _ in range(count):
            token = [[int(host.advance(token)[0, 0].argmax())]]
            expected.append(token[0][0])
        assert drawn.tolist() == [expected]
    np.testing.assert_allclose(device.advance([[3]]), host.advance([[3]]), atol=1e-4)


def test_a_step_that_draws_is_one_launch(zoo: Zoo, gpu: FakeGpu) -> None:
    """And a copy of the token that was drawn, for the host to find; the host waits once for all of them."""
    device, greedy = opened("nested", "tensorrt-rtx", zoo, gpu), SamplingParams(temperature=0)
    device.draw([[1]], 32, greedy, np.zeros((32, 1)))  # every firing set is recorded now
    gpu.calls.clear()
    device.draw([[1]], 16, greedy, np.zeros((16, 1)))
    names = [call.name for call in gpu.calls]
    assert names.count("cudaGraphLaunch") == 16
    assert names.count("cudaStreamSynchronize") == 1
    assert names.count("cudaMemcpyAsync") == 16 + 6  # what the host says at the beginning: a frame and five settings


@pytest.mark.parametrize("library", ["onnxruntime", "tensorrt-rtx"])
def test_drawing_can_be_observed(library: str, zoo: Zoo, gpu: FakeGpu) -> None:
    """Stage by stage, though steps that draw were not recorded yet; none is while someone looks on."""
    seen: list[str] = []
    session, greedy = opened("nested", library, zoo, gpu), SamplingParams(temperature=0)
    session.observer = lambda spec, _firings, _elapsed_ns: seen.append(spec.name)
    drawn = session.draw([[1]], 4, greedy, np.zeros((4, 1)))
    fine = ["1.pre", "1.post"]
    assert seen == ["1.pre", "2.pre", "8", "2.post", "1.post", *fine, "1.pre", "2.pre", "2.post", "1.post", *fine]
    session.observer = None
    session.reset()
    assert session.draw([[1]], 4, greedy, np.zeros((4, 1))).tolist() == drawn.tolist()


def test_whoever_stops_early_finds_the_session_there(zoo: Zoo, gpu: FakeGpu) -> None:
    """Not at the end of the block that was drawn ahead."""
    session = opened("nested", "onnxruntime", zoo, gpu)
    ids = generate_ids(session, PROMPT, SamplingParams(temperature=0))
    taken = [next(ids) for _ in range(5)]
    ids.close()  # type: ignore[attr-defined]
    assert session.tokens[0].tolist() == [*PROMPT, *taken[:4]]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"temperature": 0}, True),
        ({"top_k": 64}, True),
        ({"top_k": 65}, False),
        ({}, False),
        ({"temperature": 0, "repetition_penalty": 1.1}, False),
        ({"temperature": 0, "frequency_penalty": 0.1}, False),
        ({"temperature": 0, "presence_penalty": -0.1}, False),
        ({"temperature": 0, "logit_bias": {1: 1.0}}, False),
        ({"temperature": 0, "logit_bias": {}}, True),
        ({"temperature": 0, "logits_hook": lambda ids, logits: logits}, False),
        ({"temperature": 0, "constraint": Constraint("regex", "a")}, False),
        ({"temperature": 0, "logprobs": 0}, False),
        ({"temperature": 0, "prompt_logprobs": 3}, True),
        ({"temperature": 0, "min_tokens": 1}, False),
        ({"temperature": 0, "max_seconds": 1.0}, True),
        ({"top_k": 1, "temperature": 1e-308}, True),
        ({"top_k": 9, "temperature": 1e-30}, True),
        ({"top_k": 9, "temperature": 1e-38}, False),
        ({"top_k": 9, "temperature": 1e38}, False),
    ],
)
def test_what_a_device_can_draw(settings: dict[str, Any], expected: bool) -> None:
    """A choice among few, without a memory of what was said; for anything else logits go to the host."""
    assert can_draw(SamplingParams(**settings)) is expected


def test_what_it_refuses(zoo: Zoo, gpu: FakeGpu) -> None:
    """The session stays as it was."""
    device, greedy = opened("nested", "onnxruntime", zoo, gpu), SamplingParams(temperature=0)
    with pytest.raises(CapacityError, match="the session holds 0 of at most 96 tokens, got 97 more"):
        device.draw([[1]], 97, greedy, np.zeros((97, 1)))
    with pytest.raises(InputError, match="id 41 is outside the vocabulary"):
        device.draw([[41]], 1, greedy, np.zeros((1, 1)))
    for chosen in ({}, {"top_k": 5, "temperature": 1e-38}, {"temperature": 0, "repetition_penalty": 2}):
        with pytest.raises(
            InputError, match=r"a device draws greedily, .*; got SamplingParams\(.*; draw from the logits of advance"
        ):
            device.draw([[1]], 1, SamplingParams(**chosen), np.zeros((1, 1)))
    for numbers in (np.zeros((2, 1)), np.zeros(1), np.ones((1, 1)), np.full((1, 1), np.nan), np.full((1, 1), -0.1)):
        with pytest.raises(InputError, match=r"got random numbers of shape .*, expected \[1, 1\], each at least 0 and below 1"):
            device.draw([[1]], 1, greedy, numbers)
    for count in (0, -1, -(2**40), True, 1.0, "1", None):
        with pytest.raises(InputError, match=r"^count must be (at least 1|an integer), got "):
            device.draw([[1]], count, greedy, np.zeros((1, 1)))  # type: ignore[arg-type]
    for ids, message in (
        ([[-1]], "id -1 is outside the vocabulary; expected 0 <= id < 41"),
        ([[2**63]], "id 9223372036854775808 is outside the vocabulary"),
        ([[1, 2]], "draw begins with one id of each sequence, got 2; append the others by advance"),
        ([[]], r"ids have shape \[1, 0\], expected \[1, L\]"),
        ([[1.0]], "ids have dtype float64, expected integers"),
    ):
        with pytest.raises(InputError, match=message):
            device.draw(ids, 1, greedy, np.zeros((1, 1)))
    with pytest.raises(InputError, match="the settings are dict, expected SamplingParams, such as"):
        device.draw([[1]], 1, {"temperature": 0}, np.zeros((1, 1)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"the random numbers are no array \(.*\), expected one of shape \[1, 1\]"):
        device.draw([[1]], 1, greedy, [["a"]])  # type: ignore[arg-type]
    assert device.position == 0
    assert device.draw([[1]], 1, greedy, [[0.5]]).shape == (1, 1)  # type: ignore[arg-type]
    host = Session(cpu_engines(zoo["nested"].bundle), zoo["nested"].bundle.manifest.model)
    assert not host.draws
    with pytest.raises(ConfigError, match="these engines draw no tokens; draw them from the logits"):
        host.draw([[1]], 1, greedy, np.zeros((1, 1)))


def test_extreme_settings_give_the_hosts_text(zoo: Zoo, gpu: FakeGpu) -> None:
    """On the device where it can, else from its logits on the host."""
    host = Session(cpu_engines(zoo["nested"].bundle), zoo["nested"].bundle.manifest.model)
    device = opened("nested", "onnxruntime", zoo, gpu)
    for chosen in ({"temperature": 1e-30}, {"temperature": 1e-38}, {"temperature": 1e-308}, {"top_p": 1e-46}):
        params = SamplingParams(**chosen, top_k=9, seed=5, max_new_tokens=8)
        host.reset()
        device.reset()
        assert list(generate_ids(device, PROMPT, params)) == list(generate_ids(host, PROMPT, params))


@pytest.mark.parametrize(
    "chosen",
    [
        {"logprobs": 2},
        {"prompt_logprobs": 1},
        {"frequency_penalty": 0.5, "presence_penalty": 0.5},
        {"logit_bias": {3: 2.0}},
        {"min_tokens": 3},
        {"logits_hook": lambda ids, logits: -logits},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_what_a_device_does_not_do_the_host_does(chosen: dict[str, Any], zoo: Zoo, gpu: FakeGpu) -> None:
    """From the device's logits: the same tokens and log probabilities."""
    host = Session(cpu_engines(zoo["nested"].bundle), zoo["nested"].bundle.manifest.model)
    device = opened("nested", "onnxruntime", zoo, gpu)
    params = SamplingParams(top_k=9, seed=5, max_new_tokens=20, **chosen)
    found = [generate_ids(session, PROMPT, params, end_ids=[7]) for session in (device, host)]
    assert list(found[0]) == list(found[1])
    for kind in ("logprobs", "prompt_logprobs"):
        values = [[one.logprob for one in getattr(one_of, kind)] for one_of in found]
        assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_a_rule_that_ends_within_a_block(zoo: Zoo, gpu: FakeGpu) -> None:
    """The session stands at what came out, though the device had drawn ahead."""
    device, host = (
        opened("nested", "onnxruntime", zoo, gpu),
        Session(cpu_engines(zoo["nested"].bundle), zoo["nested"].bundle.manifest.model),
    )
    params = SamplingParams(temperature=0, max_new_tokens=30)
    ids = list(generate_ids(host, PROMPT, params))
    first = len(PROMPT) + 5
    rule = EndRule(name="piece", period=2, ids=(ids[5], ids[6]), place=first % 2)
    expected = next(
        place for place in range(30) if tuple(ids[place : place + 2]) == rule.ids and (len(PROMPT) + place) % 2 == rule.place
    )
    found = GeneratedIds(*begin(device, Request(PROMPT, params, end_rules=(rule,))))
    assert list(found) == ids[:expected]
    assert (found.finish_reason, found.end_rule) == ("end", "piece")
    assert device.tokens[0].tolist() == [*PROMPT, *ids[:expected]]


def test_engines_without_a_sampler(zoo: Zoo) -> None:
    """As bundles of before it have them."""
    engines = ort_engines(zoo["vanilla"], "modern")
    without = ResidentEngines(engines.engines, engines.device)
    session = session_of(without, zoo["vanilla"])
    assert not session.draws
    with pytest.raises(ConfigError, match="these engines draw no tokens on the device; draw them on the host"):
        session.draw([[1]], 1, SamplingParams(temperature=0), np.zeros((1, 1)))
