"""The layers of an engine as TensorRT's inspector lists them: for that a GPU must load it."""

from __future__ import annotations

from ...runtime.engines.tensorrt_library import Library
from .layers import Kernel, layers_listed
from .record import this_machine


def inspect(engine: memoryview, library: Library) -> tuple[Kernel, ...] | None:
    """The kernels of an engine; None if no GPU here can load it. NOT RUN on any GPU so far (docs/support.md).

    Raises:
        LayersUnreadable: the list is worded in a way unknown here.
    """
    if not this_machine().gpus:
        return None
    trt = library.module
    loaded = trt.Runtime(library.logger).deserialize_cuda_engine(engine)
    if loaded is None:
        return None
    return layers_listed([loaded.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.ONELINE)])
