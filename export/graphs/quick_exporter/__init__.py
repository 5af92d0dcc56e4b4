"""torch's ONNX exporter, without what it does again for every graph, or in vain: docs/adr/0021.

Graphs have the nodes that they would have, under other names. What is replaced is private to torch and onnxscript: with a
version that lacks it, graphs are exported as before, and it takes longer.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple
from unittest import mock

from .decompositions import where_needed
from .patterns import where_operators_agree
from .registry import made_once
from .types import where_types_differ


class _Saving(NamedTuple):
    """A function of the exporter, and what takes its place."""

    module: str
    owner: str | None
    function: str
    quicker: Callable[[Callable[..., Any]], Any]


_SAVINGS = (
    _Saving("torch.onnx._internal.exporter._registration", "ONNXRegistry", "from_torchlib", made_once),
    _Saving("torch.onnx._internal.exporter._fx_passes", None, "decompose_with_registry", where_needed),
    _Saving("torch.onnx._internal.exporter._fx_passes", None, "insert_type_promotion_nodes", where_types_differ),
    _Saving("onnxscript.rewriter._matcher", "SimplePatternMatcher", "match", where_operators_agree),
)
_LOCK = threading.RLock()


@contextmanager
def savings() -> Iterator[None]:
    """Let torch's exporter do nothing twice, in this block; one thread at a time."""
    with _LOCK, ExitStack() as patches:
        for saving in _SAVINGS:
            with suppress(ImportError, AttributeError):  # a version that lacks something of it
                owner = importlib.import_module(saving.module)
                owner = owner if saving.owner is None else getattr(owner, saving.owner)
                quicker = saving.quicker(getattr(owner, saving.function))
                patches.enter_context(mock.patch.object(owner, saving.function, quicker))
        yield
