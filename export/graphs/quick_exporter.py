"""torch's ONNX exporter, without what it does again for every graph.

It makes its registry of operators anew for each, which takes 0.4 s of CPU. `savings` lets it keep the one it made. The function
is private to torch: a version that does not have it exports as before, and takes longer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch.onnx._internal.exporter import _registration

_LOCK = threading.RLock()
_registries: dict[int, Any] = {}


@contextmanager
def savings() -> Iterator[None]:
    """Let torch's exporter keep its registry, in this block; one thread at a time."""
    owner = getattr(_registration, "ONNXRegistry", None)
    original = getattr(owner, "from_torchlib", None)
    if original is None:
        yield
        return
    with _LOCK, mock.patch.object(owner, "from_torchlib", _made_once(original)):
        yield


def _made_once(original: Callable[..., Any]) -> Any:
    def registry(opset_version: int) -> Any:
        if opset_version not in _registries:
            _registries[opset_version] = original(opset_version=opset_version)
        return _registries[opset_version]

    return staticmethod(registry)
