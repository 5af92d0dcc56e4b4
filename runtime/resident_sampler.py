"""Drawing tokens where the logits are, so that a whole run of decode steps needs nothing of the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..contract import DRAWS
from .device import Buffer, Device, Region
from .drawing import settings_of, uniform_of
from .engines.resident import ResidentProgram, ResidentStage
from .frame import Frame
from .sampling import SamplingParams


class _Setting(NamedTuple):
    """A tensor that holds still while tokens are drawn: on the host, and on the device."""

    told: npt.NDArray[np.float32] | npt.NDArray[np.int64]
    buffer: Buffer

    def upload(self, device: Device) -> None:
        device.copy(Region(self.buffer.address, self.told.nbytes), Region(self.told.ctypes.data, self.told.nbytes))


class ResidentSampler:
    """A sampler beside a decode frame, which it leads to the next step: token ids drawn, positions gone on.

    Args:
        program: the sampler's engine.
        device: where it runs.
        frame: of the decode steps.
        firing_sets: every set of stages that may fire in one, as flags.
        batch: sequences.
    """

    def __init__(
        self, program: ResidentProgram, device: Device, frame: Frame, firing_sets: Sequence[tuple[bool, ...]], batch: int
    ) -> None:
        self._device, self._frame, self._batch = device, frame, batch
        self._following = device.allocate(frame.nbytes)
        self._drawn = device.pinned((DRAWS, batch), np.int64)
        self._settings = {
            "uniform": self._setting((DRAWS, batch), np.float32),
            "inverse_temperature": self._setting((1,), np.float32),
            "top_k": self._setting((1,), np.int64),
            "top_p": self._setting((1,), np.float32),
            "min_p": self._setting((1,), np.float32),
        }
        self._tensors = frame.drawn_tensors(self._following)
        self._moves = {fired: self._setting((len(fired) + 1,), np.int64) for fired in firing_sets}
        self._stages = {fired: self._bound(program, fired, moves) for fired, moves in self._moves.items()}

    def _bound(self, program: ResidentProgram, fired: tuple[bool, ...], moves: _Setting) -> ResidentStage:
        """For steps in which these stages fire: so that its addresses never change either."""
        stage = program.bind("decode", self._batch)
        moves.told[...] = [*fired, True]
        moves.upload(self._device)
        buffers = {name: setting.buffer for name, setting in self._settings.items()}
        for name, buffer in {**self._tensors, **buffers, "fired": moves.buffer}.items():
            stage.bind(name, buffer)
        self._device.synchronize()
        return stage

    def _setting(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> _Setting:
        told = self._device.pinned(shape, dtype)
        return _Setting(told, self._device.allocate(told.nbytes))

    def begin(self, params: SamplingParams, uniform: npt.NDArray[np.float64]) -> None:
        """Queue what the next draws go by: settings, and a number of [0, 1) for each, `[draws, B]`, at most `DRAWS`."""
        for name, value in settings_of(params).items():
            self._settings[name].told[...] = value
        self._settings["uniform"].told[: len(uniform)] = uniform_of(uniform)
        for setting in self._settings.values():
            setting.upload(self._device)

    def queue(self, fired: tuple[bool, ...]) -> None:
        """Queue a draw after the stages that fired."""
        self._stages[fired].run(1, 1)

    def go_on(self) -> None:
        """Queue what leads the frame to the next step, once no stage reads it any more."""
        self._frame.follow(self._following)

    def keep(self, draw: int) -> None:
        """Queue that the tokens drawn last are kept as those of that draw."""
        row = self._drawn[draw]
        self._device.copy(Region(row.ctypes.data, row.nbytes), Region(self._tensors["next_ids"].address, row.nbytes))

    def drawn(self, draws: int) -> npt.NDArray[np.int64]:
        """Tokens `[B, draws]`, once the device is done; the caller's own."""
        return self._drawn[:draws].T.copy()
