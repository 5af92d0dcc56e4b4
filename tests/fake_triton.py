"""A Triton server without Triton: it runs a model's `model.py` as the Python backend does, and is stricter.

Inputs and outputs are held against the config: names, types, shapes, what is optional and what is not. A sequence's requests
are numbered by its rules: the first begins it, and one that has ended takes no more. After its last response nothing may be
sent, and every request must have had one when the server is closed.
"""

from __future__ import annotations

import importlib.util
import json
import queue
import sys
import time
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from triton_config import as_backends_get_it

NUMPY = {"TYPE_STRING": np.object_, "TYPE_INT64": np.int64, "TYPE_UINT64": np.uint64, "TYPE_BOOL": np.bool_}
FINAL = 1
WAIT_SECONDS = 30.0


class Tensor:
    """`pb_utils.Tensor`."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        assert isinstance(array, np.ndarray), f"{name} is a {type(array).__name__}, and Triton takes arrays"
        self._name, self._array = name, array

    def name(self) -> str:
        """As the config names it."""
        return self._name

    def as_numpy(self) -> np.ndarray:
        """Its contents."""
        return self._array


class TritonError:
    """`pb_utils.TritonError`, with the codes that Triton has."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        assert isinstance(message, str)
        assert code in range(8)
        self.message, self.code = message, code


class InferenceResponse:
    """`pb_utils.InferenceResponse`: tensors or an error."""

    def __init__(self, output_tensors: list[Tensor] | None = None, error: TritonError | None = None) -> None:
        assert (error is None) != (output_tensors is None)
        self.tensors, self.error = output_tensors or [], error


class Answer(Exception):
    """An error that a client gets."""

    def __init__(self, error: TritonError) -> None:
        super().__init__(error.message)
        self.code = error.code


class Sender:
    """What `request.get_response_sender()` gives: it takes responses from any thread."""

    def __init__(self, outputs: list[dict[str, Any]]) -> None:
        self._outputs, self._responses, self._is_final = outputs, queue.SimpleQueue[InferenceResponse | None](), False
        self.is_wanted = True

    def is_cancelled(self) -> bool:
        """Whether the client has gone."""
        return not self.is_wanted

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Take a response, the last if it is marked."""
        assert not self._is_final, "a response after the last one"
        assert flags in (0, FINAL)
        assert response is not None or flags == FINAL
        if response is not None:
            if response.error is None:
                check({tensor.name(): tensor.as_numpy() for tensor in response.tensors}, self._outputs)
            self._responses.put(response)
        if flags == FINAL:
            self._is_final = True
            self._responses.put(None)

    def responses(self) -> Iterator[dict[str, Any]]:
        """Tensors by name as they come, as a client of a stream gets them; raises `Answer` for an error."""
        while (response := self._responses.get(timeout=WAIT_SECONDS)) is not None:
            if response.error is not None:
                assert self._responses.get(timeout=WAIT_SECONDS) is None, "an error that is not the last response"
                raise Answer(response.error)
            yield {tensor.name(): tensor.as_numpy() for tensor in response.tensors}

    @property
    def is_over(self) -> bool:
        """Whether the last response was sent."""
        return self._is_final


class Request:
    """`pb_utils.InferenceRequest`."""

    def __init__(self, tensors: list[Tensor], sender: Sender) -> None:
        self._tensors, self._sender = tensors, sender

    def inputs(self) -> list[Tensor]:
        """Those that were given, and the controls."""
        return self._tensors

    def get_response_sender(self) -> Sender:
        """For all its responses."""
        return self._sender


def get_input_tensor_by_name(request: Request, name: str) -> Tensor | None:
    """`pb_utils.get_input_tensor_by_name`."""
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


def check(arrays: Mapping[str, np.ndarray], declared: list[dict[str, Any]]) -> None:
    """All that are not optional are there, and all that are there are as the config says."""
    by_name = {tensor["name"]: tensor for tensor in declared}
    assert set(arrays) <= set(by_name), set(arrays) - set(by_name)
    assert {name for name, tensor in by_name.items() if not tensor.get("optional")} <= set(arrays)
    for name, array in arrays.items():
        dims = [int(dim) for dim in by_name[name]["dims"]]
        assert array.dtype == NUMPY[by_name[name]["data_type"]], (name, array.dtype)
        assert len(array.shape) == len(dims), (name, array.shape, dims)
        assert all(dim in (-1, size) for dim, size in zip(dims, array.shape, strict=True)), (name, array.shape, dims)
        assert array.dtype != object or all(isinstance(item, bytes) for item in array.flat), name


class Server:
    """A model of a repository, loaded."""

    def __init__(self, model: Path, module: types.ModuleType) -> None:
        self.config = as_backends_get_it(model / "config.pbtxt")
        assert self.config["model_transaction_policy"]["decoupled"], "the backend sends several responses to a request"
        assert self.config["name"] == model.name
        self._senders: list[Sender] = []
        self._live: set[int] = set()
        self._backend = module.TritonPythonModel()
        kind = self.config["instance_group"][0]["kind"].removeprefix("KIND_")
        self._backend.initialize(
            {
                "model_config": json.dumps(self.config),
                "model_instance_kind": kind,
                "model_instance_name": f"{model.name}_0",
                "model_instance_device_id": "0",
                "model_repository": str(model),
                "model_version": "1",
                "model_name": model.name,
            }
        )

    def send(self, sequence: int = 0, start: bool = False, end: bool = False, **inputs: Any) -> Sender:
        """A request; values become tensors of one element, lists of ids tensors of as many."""
        arrays = {name: _array(value) for name, value in inputs.items() if value is not None}
        check(arrays, self.config["input"])
        if "sequence_batching" in self.config:
            arrays |= self._controls(sequence, start, end)
        sender = Sender(self.config["output"])
        self._senders.append(sender)
        tensors = [Tensor(name, array) for name, array in arrays.items()]
        assert self._backend.execute([Request(tensors, sender)]) is None, "execute of a decoupled model gives nothing"
        return sender

    def ask(self, sequence: int = 0, start: bool = False, end: bool = False, **inputs: Any) -> list[dict[str, Any]]:
        """All responses to a request."""
        return list(self.send(sequence, start, end, **inputs).responses())

    def close(self) -> None:
        """`finalize`; all requests must have had their last response."""
        self._backend.finalize()
        deadline = time.monotonic() + WAIT_SECONDS
        while not all(sender.is_over for sender in self._senders):
            assert time.monotonic() < deadline, "a request was never answered"
            time.sleep(0.01)

    def _controls(self, sequence: int, start: bool, end: bool) -> dict[str, np.ndarray]:
        assert sequence, "a model with sequence batching needs a correlation id"
        assert start or sequence in self._live, "the first request of a sequence must begin it"
        (self._live.discard if end else self._live.add)(sequence)
        values = {"CONTROL_SEQUENCE_START": start, "CONTROL_SEQUENCE_END": end, "CONTROL_SEQUENCE_CORRID": sequence}
        found = {}
        for control in self.config["sequence_batching"]["control_input"]:
            (one,) = control["control"]
            value = values[one.get("kind", "CONTROL_SEQUENCE_START")]  # protobuf's JSON leaves out what is 0
            if "bool_false_true" in one:
                assert one["bool_false_true"] == [False, True]
                found[control["name"]] = np.array([value], np.bool_)
            else:
                found[control["name"]] = np.array([value], NUMPY[one["data_type"]])
        return found


def _array(value: Any) -> np.ndarray:
    if isinstance(value, str | bytes):
        return np.array([value.encode() if isinstance(value, str) else value], np.object_)
    return np.array(value, np.int64)


@contextmanager
def triton_server(model: Path) -> Iterator[Server]:
    """Load a model as Triton's stub does: its `model.py`, with `triton_python_backend_utils` to be imported."""
    utils = types.ModuleType("triton_python_backend_utils")
    names = (Tensor, TritonError, InferenceResponse, get_input_tensor_by_name)
    vars(utils).update({one.__name__: one for one in names}, TRITONSERVER_RESPONSE_COMPLETE_FINAL=FINAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, utils.__name__, utils)
        spec = importlib.util.spec_from_file_location("model", model / "1" / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        server = Server(model, module)
        try:
            yield server
        finally:
            server.close()
