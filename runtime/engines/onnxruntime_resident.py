"""Resident stages on ONNX Runtime: the same IOBinding on the host's memory and on a GPU's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...contract import Contract, StageSpec, TensorSpec, resident_contract_of, size_of
from ...errors import DeviceError, reason_of
from ...sidecar import EngineSidecar
from ..device import Buffer
from .onnxruntime_library import run_options
from .resident import Phase


class ResidentOrtProgram:
    """A graph whose tensors stay at one address in an `InferenceSession`, as `ResidentProgram`."""

    def __init__(self, name: str, session: Any, contract: Contract, device: Any) -> None:
        self.name, self.session, self.contract, self.device = name, session, contract, device

    def bind(self, phase: Phase, batch: int, beside: bool = False) -> ResidentOrtStage:
        """As `ResidentProgram.bind`; both phases run the same graph, on the stream that its session was opened with."""
        return ResidentOrtStage(self, batch)

    def keep_compiled(self) -> None:
        """As `ResidentProgram.keep_compiled`: nothing is compiled late."""


class ResidentOrtEngine(ResidentOrtProgram):
    """A resident stage graph, as `ResidentEngine`.

    Past and present of a cache are the same memory: there ONNX Runtime writes the new rows only. A recurrent state has one
    reader, after which it is written over.
    """

    in_place, replaces_in_place = True, True

    def __init__(self, spec: StageSpec, session: Any, sidecar: EngineSidecar, device: Any) -> None:
        super().__init__(spec.name, session, resident_contract_of(spec), device)
        self.spec, self.limits = spec, sidecar.limits
        self.cache_widths, self.cache_dtype = sidecar.cache_widths, str(sidecar.cache_dtype)
        self.own_positions, self.target = sidecar.own_positions, sidecar.target


class ResidentOrtStage:
    """A program on bound addresses, as `ResidentStage`. A tensor is bound anew where its address or its shape changes."""

    def __init__(self, program: ResidentOrtProgram, batch: int) -> None:
        self._program, self._batch = program, batch
        self._binding, self._options = program.session.io_binding(), run_options()
        inner = self._binding._iobinding  # the public wrapper builds a description of the device at every call
        self._tensors: dict[str, tuple[TensorSpec, Any]] = {
            **{tensor.name: (tensor, inner.bind_input) for tensor in program.contract.inputs},
            **{tensor.name: (tensor, inner.bind_output) for tensor in program.contract.outputs},
        }
        self._buffers: dict[str, Buffer] = {}
        self._bound: dict[str, tuple[int, tuple[int, ...]]] = {}

    def bind(self, tensor: str, buffer: Buffer) -> None:
        """As `ResidentStage.bind`."""
        self._buffers[tensor] = buffer

    def run(self, firings: int, wanted: int, spans: Mapping[str, int] | None = None) -> None:
        """As `ResidentStage.run`."""
        try:
            self._bind_changed({"B": self._batch, "L": firings, "N": wanted, **(spans or {})})
            self._program.session.run_with_iobinding(self._binding, self._options)
        except Exception as error:  # onnxruntime's exceptions share no base class
            reason = reason_of(error)
            raise DeviceError(f'onnxruntime could not run stage "{self._program.name}": {reason}') from error

    def _bind_changed(self, letters: dict[str, int]) -> None:
        for name, (tensor, bind) in self._tensors.items():
            buffer = self._buffers[name]
            shape = self._shape(tensor, letters)
            if self._bound.get(name) != (buffer.address, shape):
                bind(name, self._program.device, np.dtype(tensor.dtype), shape, buffer.address)
                self._bound[name] = (buffer.address, shape)

    def check_recordable(self) -> None:
        """As `ResidentStage.check_recordable`: ONNX Runtime does not say, but its run fails where it can't be recorded."""

    def _shape(self, tensor: TensorSpec, letters: dict[str, int]) -> tuple[int, ...]:
        """With what the letters stand for in this call; of a state tensor, with the length of its buffer."""
        sizes = [size_of(dimension, letters) for dimension in tensor.shape]
        if -1 in sizes:
            item = np.dtype(tensor.dtype).itemsize
            sizes[sizes.index(-1)] = self._buffers[tensor.name].nbytes // (item * -int(np.prod(sizes)))
        return tuple(sizes)
