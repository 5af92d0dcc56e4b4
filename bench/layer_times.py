"""What every layer of TensorRT engines takes in decoding, as the library times it. Takes the GPU that the engines are for."""

from __future__ import annotations

import numpy as np

from ..bundle import Bundle
from ..errors import ConfigError
from ..runtime.backends import open_engines
from ..runtime.resident import ResidentDecoder
from ..runtime.session import Session


def layer_shares(bundle: Bundle, target: str, tokens: int = 256) -> dict[str, dict[str, float]]:
    """Shares of the time of a decode step, by stage and layer, over whole periods of firing; together they are 1.

    A layer of a coarse stage counts as often as the stage fires. Timing makes layers wait for each other: shares are what to
    read, `foveal bench` measures how long a step takes.

    Raises:
        ConfigError: a target that is not TensorRT's.
        BackendUnavailable, EngineMismatchError: the engines can't be run here.
    """
    engines = open_engines(bundle, target, graphs=False)
    session = Session(engines, bundle.manifest.model)
    if not isinstance(session.decoder, ResidentDecoder):
        raise ConfigError(f"layers are timed by TensorRT only, got target {target}")
    period = max(spec.stride for spec in session.specs)
    token, count = np.zeros((1, 1), np.int64), max(min(tokens, session.capacity - 1) // period, 1) * period
    session.advance(token, last_only=True)  # what is compiled late is compiled now
    session.rewind(1)
    times = session.decoder.profile()
    for _ in range(min(count, session.capacity)):
        session.advance(token, last_only=True)
    total = sum(sum(of_stage.values()) for of_stage in times.values())
    return {name: {layer: ms / total for layer, ms in of_stage.items()} for name, of_stage in times.items()}
