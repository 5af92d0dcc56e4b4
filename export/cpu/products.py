"""Lower quantised matrix products to ONNX Runtime's CPU kernels, and look whether they arrived.

    w8, w4   com.microsoft::MatMulNBits, bias included; the kernel quantises activations to 8 bits by block as it goes.
             In an engine of chunks: each row of activations is rounded to 8 bits by its own scale, then as int8
    int8     QuantizeLinear -> com.microsoft::MatMulIntegerToFloat, unsigned activations by signed weights
    fp16     fp32 arithmetic on values rounded to fp16: slower than fp32, but loses what fp16 loses. ONNX Runtime has no fp16
             products for x86, and by itself would leave out the rounding

Left to itself ONNX Runtime fuses some of these patterns and not others, and of the rest dequantises whole weights in every
step. So each is lowered here by name, and the graph that ONNX Runtime really runs is read back (docs/adr/0005).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from ...calibration.products import bias_add_of, bias_of
from ...errors import BuildError, reason_of
from ...precision import ProductPrecision
from ...runtime.engines.onnxruntime_library import import_onnxruntime, session_options
from ..graphs.nodes import constant, insert_before, replace_value

KERNELS = {"w8": ("MatMulNBits",), "w4": ("MatMulNBits",), "int8": ("MatMulIntegerToFloat",), "fp16": ("MatMul", "FusedMatMul")}
CHUNK_KERNELS = {**KERNELS, "w8": ("MatMulIntegerToFloat",), "w4": ("MatMulIntegerToFloat",)}
"""Of an engine that never has less than many rows."""
LEAST_ROWS = 32
"""From so many rows on, w8 and w4 multiply faster by those."""
_ROUNDED = ("MatMul", "Add", "Gelu")
_BLOCKS = (256, 128, 64, 32, 16)  # rows of MatMulNBits' blocks, the preferred first
_MIDDLE = np.uint8(128)  # the zero of unsigned activations
_STEPS = 127  # of 8 bits with a sign, on either side of zero
_TINY = np.float32(1e-30)  # the largest magnitude of a row of zeros, which has no scale of its own
_INT8_ACTIVATIONS = 4  # MatMulNBits' accuracy_level; the others dequantise, and are slower than fp32


def lower_products(model: ir.Model, of_chunks: bool = False) -> None:
    """Swap every product of a dequantised weight for the kernel that takes the integers; widen fp16.

    `of_chunks`: for an engine that never has less than many rows.
    """
    lower_fp16(model)
    for node in [node for node in model.graph if node.op_type == "MatMul"]:
        weight = _producer(node.inputs[1], "DequantizeLinear")
        if weight is None:
            continue
        model.opset_imports["com.microsoft"] = 1
        quantize = _quantize_of(node)
        if quantize is not None:
            _lower_int8(model, node, weight, quantize)
        elif of_chunks:
            _lower_by_row(model, node, *_by_column(weight))
        elif weight.attributes.get_int("block_size", 0):
            _lower_w4(model, node, weight)
        else:
            _lower_w8(model, node, weight)


def lower_fp16(model: ir.Model) -> None:
    """Compute fp16 products, sums and GELUs in fp32 and round their results."""
    for node in [node for node in model.graph if node.op_type in _ROUNDED and node.outputs[0].dtype == ir.DataType.FLOAT16]:
        for index, value in enumerate(node.inputs):
            (wide,) = insert_before(node, "Cast", [value], f"{node.name}/wide_{index}", {"to": ir.DataType.FLOAT})
            node.replace_input_with(index, wide)
        rounded = ir.Node("", "Cast", [node.outputs[0]], [ir.AttrInt64("to", ir.DataType.FLOAT16)], name=f"{node.name}/rounded")
        readers = [(reader, index) for reader, index in node.outputs[0].uses() if reader is not rounded]
        model.graph.insert_after(node, rounded)
        (half,) = rounded.outputs
        half.name, half.shape, half.dtype = f"{node.name}/rounded_out", node.outputs[0].shape, ir.DataType.FLOAT16
        node.outputs[0].dtype = ir.DataType.FLOAT
        for reader, index in readers:
            reader.replace_input_with(index, half)


def _lower_w4(model: ir.Model, matmul: ir.Node, weight: ir.Node) -> None:
    values, scales = _array(weight.inputs[0]), _array(weight.inputs[1])
    _lower_integers(model, matmul, values, scales, bits=4, block=weight.attributes.get_int("block_size", 0))


def _lower_w8(model: ir.Model, matmul: ir.Node, weight: ir.Node) -> None:
    """The kernel wants a scale for every block of a column: here they are all the column's.

    The blocks are still what it rounds activations by, and what its speed depends on: the largest that divides the rows.
    """
    values, scales = _array(weight.inputs[0]), _array(weight.inputs[1])
    rows = len(values)
    block = next((block for block in _BLOCKS if rows % block == 0), _BLOCKS[-1])
    _lower_integers(model, matmul, values, np.tile(scales, (-(-rows // block), 1)), bits=8, block=block)


def _lower_integers(model: ir.Model, matmul: ir.Node, values: np.ndarray, scales: np.ndarray, *, bits: int, block: int) -> None:
    """Multiply by integers `[K, N]` with scales `[blocks, N]`; the last block is filled up with zeros."""
    (rows, columns), (blocks, _) = values.shape, scales.shape
    middle = 2 ** (bits - 1)  # the kernel's zero
    unsigned = np.full((blocks * block, columns), middle, np.uint8)
    unsigned[:rows] = values.astype(np.int16) + middle
    packed = unsigned.T.reshape(columns, blocks, block)
    if bits == 4:
        packed = packed[..., 0::2] | packed[..., 1::2] << 4
    sizes = {"K": rows, "N": columns, "bits": bits, "block_size": block, "accuracy_level": _INT8_ACTIVATIONS}
    integers = constant(matmul, f"{matmul.name}/packed", packed)
    column_scales = constant(matmul, f"{matmul.name}/scales", scales.T)
    _swap(model, matmul, "MatMulNBits", [matmul.inputs[0], integers, column_scales, None, None], sizes)


def _lower_int8(model: ir.Model, matmul: ir.Node, weight: ir.Node, quantize: ir.Node) -> None:
    """Unsigned activations by signed weights: what VNNI multiplies, and the quickest pair of signs with it.

    Without VNNI that saturates; the runtime then has ONNX Runtime make the weights unsigned (`onnxruntime_library.py`).
    """
    zero = constant(matmul, f"{matmul.name}/zero", _MIDDLE)
    integers = constant(matmul, f"{matmul.name}/signed", _array(weight.inputs[0]).astype(np.int8))
    (x,) = insert_before(matmul, "QuantizeLinear", [quantize.inputs[0], quantize.inputs[1], zero], f"{matmul.name}/quantize")
    _swap(model, matmul, "MatMulIntegerToFloat", [x, integers, quantize.inputs[1], weight.inputs[1], zero, None], {})


def _by_column(weight: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """Integers `[K, N]` of 8 bits and scales `[N]`; w4's are rounded anew, by a sixteenth of their own step at most."""
    values, scales = _array(weight.inputs[0]).astype(np.int8), _array(weight.inputs[1])
    block = weight.attributes.get_int("block_size", 0)
    if not block:
        return values, scales
    wide = values * np.repeat(scales, block, axis=0)[: len(values)]
    by_column = np.abs(wide).max(0) / _STEPS
    by_column[by_column == 0] = 1
    return np.rint(wide / by_column).astype(np.int8), by_column.astype(np.float32)


def _lower_by_row(model: ir.Model, matmul: ir.Node, integers: np.ndarray, scales: np.ndarray) -> None:
    """Round each row of activations to 8 bits by its largest magnitude, and multiply as int8 does: no row knows of another."""
    name, x = f"{matmul.name}", matmul.inputs[0]
    last, tiny = constant(matmul, f"{name}/last", np.array([-1])), constant(matmul, f"{name}/tiny", _TINY)
    step, one = constant(matmul, f"{name}/step", np.float32(1 / _STEPS)), constant(matmul, f"{name}/one", np.float32(1))
    zero, weights = constant(matmul, f"{name}/zero", _MIDDLE), constant(matmul, f"{name}/signed", integers)
    (magnitudes,) = insert_before(matmul, "Abs", [x], f"{name}/magnitudes")
    (largest,) = insert_before(matmul, "ReduceMax", [magnitudes, last], f"{name}/largest", {"keepdims": 1})
    (known,) = insert_before(matmul, "Max", [largest, tiny], f"{name}/known")
    (scale,) = insert_before(matmul, "Mul", [known, step], f"{name}/scale")
    (steps,) = insert_before(matmul, "Div", [x, scale], f"{name}/steps")
    (rounded,) = insert_before(matmul, "QuantizeLinear", [steps, one, zero], f"{name}/quantize")
    given = [rounded, weights, one, constant(matmul, f"{name}/scales", scales), zero]
    (product,) = insert_before(matmul, "MatMulIntegerToFloat", given, name, domain="com.microsoft")
    (y,) = insert_before(matmul, "Mul", [product, scale], f"{name}/scaled")
    replace_value(matmul.outputs[0], y)
    model.graph.remove(matmul, safe=True)


def _swap(model: ir.Model, matmul: ir.Node, op: str, inputs: Sequence[ir.Value | None], attributes: dict[str, int]) -> None:
    """Put a kernel, which takes the bias as its last input, in place of the product and its bias."""
    add = bias_add_of(matmul)
    place = add or matmul
    given = [*inputs, bias_of(add)] if add is not None else list(inputs)
    while given[-1] is None:
        given.pop()
    (y,) = insert_before(place, op, given, f"{matmul.name}", attributes, domain="com.microsoft")
    replace_value(place.outputs[0], y)
    if add is not None:
        model.graph.remove(add, safe=True)
    model.graph.remove(matmul, safe=True)


def read_back(
    engine: Path, products: Sequence[ProductPrecision], expected: Mapping[str, Sequence[str]] | None = None
) -> tuple[ProductPrecision, ...]:
    """Name the kernel that every product got in the graph ONNX Runtime makes of the engine.

    `expected`: the kernels allowed; None: `KERNELS`.

    Raises:
        BuildError: a product that is not fp32 got another kernel than it was lowered to, or a weight is widened in every step.
    """
    ort = import_onnxruntime()
    with tempfile.TemporaryDirectory(dir=engine.parent) as directory:
        options = session_options()
        options.optimized_model_filepath = str(Path(directory) / "optimised.onnx")
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        try:
            ort.InferenceSession(str(engine), options, providers=["CPUExecutionProvider"])
            graph = ir.load(options.optimized_model_filepath).graph
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise BuildError(f"onnxruntime {ort.__version__} refuses {engine.name}: {reason_of(error)}") from error
        for node in graph:
            _refuse_widening(node, engine)
        kernels = {node.name: node.op_type for node in graph}
    named = [msgspec.structs.replace(product, kernel=kernels.get(f"{product.product}/MatMul", "")) for product in products]
    allowed = KERNELS if expected is None else expected
    wrong = [p for p in named if p.kernel not in allowed.get(p.obtained, (p.kernel,))]
    if wrong:
        listed = ", ".join(f"{p.product} (asked {p.asked}, kernel {p.kernel or 'none'})" for p in wrong)
        raise BuildError(f"onnxruntime {ort.__version__} does not run these products as asked: {listed}; report it")
    return tuple(named)


def _refuse_widening(node: ir.Node, engine: Path) -> None:
    source = node.inputs[0] if node.inputs else None
    is_matrix = source is not None and source.is_initializer() and source.shape is not None and len(source.shape) == 2
    if is_matrix and node.op_type in ("DequantizeLinear", "Cast"):
        raise BuildError(f"{engine.name}: onnxruntime would widen a weight in every step, in {node.name}; report it")


def _quantize_of(matmul: ir.Node) -> ir.Node | None:
    """The node that rounds a product's input to int8, if it is rounded."""
    dequantize = _producer(matmul.inputs[0], "DequantizeLinear")
    return None if dequantize is None else _producer(dequantize.inputs[0], "QuantizeLinear")


def _producer(value: ir.Value | None, op: str) -> ir.Node | None:
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.op_type == op else None


def _array(value: ir.Value | None) -> np.ndarray:
    if value is None or value.const_value is None:
        raise BuildError("a quantised weight is not constant; build the bundle again")
    return value.const_value.numpy()
