"""The ONNX vocabularies a stage graph can be written in.

    modern     opset 24: TensorScatter and Attention. ONNX Runtime 1.24, TensorRT 11, TensorRT-RTX.
    classic    opset 20: the same written out in older ops. TensorRT 10.3, which is what JetPack 6 has.

TensorRT 10's parser takes opsets 9 to 20 (docs/operators.md of onnx/onnx-tensorrt, branch 10.1-GA, whose source was read; the
changelog has nothing for 10.2 and 10.3 that matters here). Gelu sets the lower end: it is an op since opset 20. int4 is a type
since opset 21: the parser reads it (`TensorProto::INT4`, since 10.0) and refuses no file for its opset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx import FunctionProto

from ...errors import ConfigError
from . import functions


@dataclass(frozen=True)
class Dialect:
    """An opset and the bodies of what changes state in it; a later dialect is another instance of this.

    Attributes:
        name: as manifests have it.
        opset: of its graphs.
        int4_opset: of those of its graphs that hold int4 weights.
        cached_attention: its body, for an opset, for a mask that is boolean or is added to the scores, and for the attributes
            that its nodes have.
        write_rows: the body of what writes rows of a cache, for an opset.
        append_rows: the body of what appends to a log in the resident form (`export/graphs/resident.py`), for an opset.
    """

    name: str
    opset: int
    int4_opset: int
    cached_attention: Callable[[int, functions.Mask, functions.Given], FunctionProto]
    write_rows: Callable[[int], FunctionProto]
    append_rows: Callable[[int], FunctionProto]


MODERN = Dialect("modern", 24, 24, functions.cached_attention, functions.write_rows, functions.append_rows)
CLASSIC = Dialect("classic", 20, 21, functions.spelled_attention, functions.spelled_write_rows, functions.spelled_append_rows)
DIALECTS = {dialect.name: dialect for dialect in (MODERN, CLASSIC)}


def dialect_named(name: str) -> Dialect:
    """The dialect of that name; raises ConfigError for another."""
    if name not in DIALECTS:
        raise ConfigError(f'unknown dialect "{name}"; expected one of {", ".join(DIALECTS)}')
    return DIALECTS[name]
