"""Lower a portable stage graph to what ONNX Runtime's CPU provider runs best.

Cached attention becomes a kernel that costs by the length used (`attention.py`) where caches grow with the text, and so does
attention by relative position (`relative.py`). Other caches are written with ScatterND, which ONNX Runtime does in place, and
read whole. Quantised matrix products become kernels that take the integers (`products.py`), and the host does the counting
(`counters.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...calibration.graph_files import load_graph
from ...contract import StageSpec
from ...precision import CacheScale
from ..graphs.change_dialect import change_state_ops
from ..graphs.dialect import CLASSIC
from ..graphs.saving import save_graph
from .attention import lower_attention, uses_kernel, widen_attention
from .counters import count_rows, drop_position
from .products import lower_products
from .relative import lower_relative_attention

# ONNX Runtime 1.23, the newest for Python 3.10, loads no later opset. Nothing that is left in a lowered graph changed after it,
# but int8 caches need TensorScatter, and a later ONNX Runtime.
OPSET, OPSET_INT8_CACHES = 23, 24


def lower(
    source: Path, target: Path, stage: StageSpec, cache_scales: Sequence[CacheScale] = (), of_chunks: bool = False
) -> bool:
    """Write the CPU form of the stage graph `source` to `target`; same outputs, and the same rows and caches as inputs.

    Args:
        source: the portable graph.
        target: the engine.
        stage: what the graph declares.
        cache_scales: by layer; if given, caches are int8.
        of_chunks: for an engine that never has less than many rows, over the same caches.

    Returns:
        Whether it has a kernel that takes several rows at once of a single sequence only.

    Raises:
        BuildError: the graph has other attention than the stage declares.
    """
    model = load_graph(source)
    opset = OPSET_INT8_CACHES if cache_scales else OPSET
    if stage.cache_dtype == "float16":
        widen_attention(model)
    change_state_ops(model, CLASSIC, opset)
    lower_products(model, of_chunks)
    has_relative = lower_relative_attention(model)
    if uses_kernel(stage) or has_relative or not stage.caches:
        count_rows(model)
    if uses_kernel(stage):
        lower_attention(model, stage, opset, cache_scales)
    RemoveUnusedNodesPass()(model)
    drop_position(model)
    save_graph(model, target)
    return uses_kernel(stage) or has_relative
