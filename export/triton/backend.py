"""What runs in a Triton server: one service, and so one batch, for all requests of an instance of the model."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ...errors import (
    ConfigError,
    FovealError,
    InputError,
    QueueFullError,
    ServiceClosedError,
    SessionBusyError,
    SessionLostError,
)
from ...runtime.model import load
from ...runtime.service.event import Event
from ...runtime.service.service import Service
from ...runtime.service.stream import ThreadStream
from ...runtime.store.session_store import SessionStore
from .lines import Lines
from .requests import Array, Asked, asked, controls, said
from .settings import ServerSettings
from .tensors import BUNDLE, IDS, TEXT, TEXT_OUT, Tensor

_log = logging.getLogger("foveal.triton")
_LOOK_SECONDS = 0.1
"""So often it is looked whether clients are still there: asking costs a message to the server's process."""
_SPARE_WORKERS = 8
"""Threads beyond slots and queue: those that are refused, as both are full, need one to say so."""


class Backend:
    """Triton calls `initialize`, `execute` and `finalize`; `utils` comes from `model.py`.

    Requests of one sequence continue each other: what was read is kept in this instance's memory, and found by the sequence's
    correlation id. `execute` returns at once, and responses come from threads, an event each.
    """

    utils: ClassVar[Any]
    """The module `triton_python_backend_utils`, which exists in the server alone."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the bundle that lies in the version's folder.

        Args:
            args: of Triton: the config as JSON, and where the model is.

        Raises:
            ConfigError: parameters of the config that mean nothing.
            BundleError, BackendUnavailable, EngineMismatchError: as `foveal.load`; Triton logs it, and the model is not ready.
        """
        config = json.loads(args["model_config"])
        given = {key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()}
        settings = ServerSettings.of(given)
        self._has_text = any(output["name"] == TEXT_OUT.name for output in config["output"])
        if args["model_instance_kind"] == "GPU":
            _show_only(args["model_instance_device_id"])
        bundle = Path(args["model_repository"]) / args["model_version"] / BUNDLE
        model = load(bundle, settings.target, settings.threads or None)
        if self._has_text and model.tokenizer is None:
            raise ConfigError(f"config.pbtxt has {TEXT_OUT.name}, and {bundle} no tokenizer; export the bundle again")
        self._store = SessionStore(model, settings.state_mb * 1_000_000) if "sequence_batching" in config else None
        self._service = Service(model, settings.slots, settings.capacity or None, settings.queue, store=self._store)
        self._lines = Lines(settings.slots + settings.queue + _SPARE_WORKERS)
        self._streams: dict[ThreadStream, Any] = {}
        self._turn, self._is_over = threading.Lock(), threading.Event()
        self._looking = threading.Thread(target=self._look, name="foveal-triton-cancelled", daemon=True)
        self._looking.start()

    def execute(self, requests: list[Any]) -> None:
        """Take requests on; each is answered by as many responses as it takes, the last of which is marked."""
        for request in requests:
            sender = request.get_response_sender()

            def read(name: str, request: Any = request) -> Array | None:
                tensor = self.utils.get_input_tensor_by_name(request, name)
                return None if tensor is None else tensor.as_numpy()

            try:
                sequence, found = controls(read)[0], asked(read)
            except FovealError as error:
                self._fail(sender, error)
                continue
            self._lines.add(sequence, lambda found=found, sender=sender: self._answer(found, sender))  # type: ignore[misc]

    def finalize(self) -> None:
        """End what is being generated with what it has, and give the memory back."""
        self._is_over.set()
        self._looking.join()
        self._service.close()
        self._lines.close()
        if self._store is not None:
            self._store.close()

    def _answer(self, found: Asked, sender: Any) -> None:
        """In a thread of its own; whatever happens, the last response is sent: the client waits for it."""
        try:
            self._generate(found, sender)
        except FovealError as error:
            self._fail(sender, error)
        except Exception as error:
            _log.exception("a request failed")
            self._fail(sender, FovealError(f"the request failed: {type(error).__name__}: {error}"))

    def _generate(self, found: Asked, sender: Any) -> None:
        if found.sequence is None:
            self._stream(found, None, sender)
            return
        name, sessions = f"sequence {found.sequence}", self._service.sessions
        if found.begins:  # one of this number may not have ended
            sessions.forget(name)
        try:
            self._continue(found, name, sender)
        finally:
            if found.ends:
                sessions.forget(name)

    def _continue(self, found: Asked, name: str, sender: Any) -> None:
        if found.prompt is None and found.ends and not found.begins:  # it is over, and that is all
            self._send(sender, Event(0, "", None, None, -1, (), 0.0, "end"))
            return
        if not found.begins and self._service.sessions.position(name) is None:
            raise SessionLostError(
                f"{name} is not kept here: its first request failed, or it was forgotten for others (state_mb in "
                "config.pbtxt); begin it again, with all of its text"
            )
        self._stream(found, None if found.begins and found.ends else name, sender)

    def _stream(self, found: Asked, session: str | None, sender: Any) -> None:
        if found.prompt is None:
            raise InputError(f"the request has no prompt; give {TEXT.name} or {IDS.name}")
        stream = self._service.submit(found.prompt, session=session, as_text=self._has_text, **found.settings)
        with self._turn:
            self._streams[stream] = sender
        try:
            for event in stream:
                self._send(sender, event)
        finally:
            with self._turn:
                del self._streams[stream]

    def _send(self, sender: Any, event: Event) -> None:
        tensors = [self._tensor(tensor, array) for tensor, array in said(event, self._has_text).items()]
        flags = self.utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if event.is_last else 0
        sender.send(self.utils.InferenceResponse(output_tensors=tensors), flags=flags)

    def _tensor(self, tensor: Tensor, array: Array) -> Any:
        return self.utils.Tensor(tensor.name, array)

    def _fail(self, sender: Any, error: FovealError) -> None:
        code = getattr(self.utils.TritonError, _code(error))
        response = self.utils.InferenceResponse(error=self.utils.TritonError(str(error), code))
        sender.send(response, flags=self.utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _look(self) -> None:
        """Cancel what clients no longer wait for; its slot is free before the next step."""
        while not self._is_over.wait(_LOOK_SECONDS):
            with self._turn:
                streams = list(self._streams.items())
            for stream, sender in streams:
                if sender.is_cancelled():
                    stream.cancel()


def _code(error: FovealError) -> str:
    """The name of Triton's code for an error."""
    if isinstance(error, QueueFullError | ServiceClosedError | SessionBusyError):
        return "UNAVAILABLE"
    if isinstance(error, SessionLostError):
        return "NOT_FOUND"
    return "INVALID_ARG" if isinstance(error, InputError | ConfigError) else "INTERNAL"


def _show_only(device: str) -> None:
    """Each instance has a process of its own: it sees the GPU that Triton gave it, as the first and only one."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    elif int(device) < len(devices := shown.split(",")):
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[int(device)]
