"""Tables in fewer bytes: rows that are looked up are the table's, rounded, and no others are widened."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from precisions import exact_session

from foveal.export.precision.write_embedding import table_bytes, write_embedding

ROWS, WIDTH = 40, 16
Floats = npt.NDArray[np.float32]


def model_of(table: Floats, has_head: bool = False) -> ir.Model:
    """Rows of a table by token, plus rows of another by position; with a head, the first is multiplied by too."""
    head = "turned = Transpose (tokens) logits = MatMul (y, turned)" if has_head else ""
    outputs = f"float[B,L,{WIDTH}] y" + (f", float[B,L,{ROWS}] logits" if has_head else "")
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    stage (int64[B,L] input_ids, int64[B,L] rows) => ({outputs})
    {{
        x = Gather (tokens, input_ids)
        p = Gather (positions, rows)
        y = Add (x, p)
        {head}
    }}"""
    model = onnx.parser.parse_model(text)
    for name, values in (("tokens", table), ("positions", other_table(table))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    found = ir.serde.deserialize_model(model)
    for index, node in enumerate(found.graph):
        node.name = f"1/entry/{index}/{node.op_type}"
    return found


def other_table(table: Floats) -> Floats:
    """Another one, as large."""
    return np.ascontiguousarray(table[::-1] * 3)


def table_of(seed: int) -> Floats:
    """Rows of very different magnitudes, one of them zeros."""
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((ROWS, WIDTH)) * np.exp(2 * rng.standard_normal((ROWS, 1)))
    table[rng.integers(ROWS)] = 0
    return table.astype(np.float32)


def looked_up(model: ir.Model, ids: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> Floats:
    """What the graph gives, node by node."""
    found: Floats = exact_session(ir.to_proto(model).SerializeToString()).run(None, {"input_ids": ids, "rows": rows})[0]
    return found


def rounded(table: Floats, precision: str) -> Floats:
    """A table by definition: a scale for each row, or fp16."""
    if precision == "fp16":
        return table.astype(np.float16).astype(np.float32)
    steps = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
    steps[steps == 0] = 1
    return (np.rint(table / steps) * steps).astype(np.float32)


@pytest.mark.parametrize("precision", ["fp16", "int8", "w8", "w4"])
@given(seed=st.integers(0, 999), batch=st.integers(1, 3), length=st.integers(1, 9))
def test_rows_are_those_of_the_rounded_table(precision: str, seed: int, batch: int, length: int) -> None:
    """Of every table, for any ids; a row of zeros stays one."""
    table, rng = table_of(seed), np.random.default_rng(seed)
    ids, rows = rng.integers(0, ROWS, (2, batch, length))
    model = model_of(table)
    write_embedding(model, precision)
    expected = rounded(table, precision)[ids] + rounded(other_table(table), precision)[rows]
    np.testing.assert_allclose(looked_up(model, ids, rows), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_only_rows_that_are_looked_up_are_widened(precision: str) -> None:
    """No table goes through a cast as a whole, and the old tables have no readers."""
    model = model_of(table_of(0))
    write_embedding(model, precision)
    small = {value for value in model.graph.initializers.values() if value.dtype != ir.DataType.FLOAT}
    assert len(small) == 2
    for value in small:
        assert {node.op_type for node in value.consumers()} == {"Gather"}
    assert not list(model.graph.initializers["tokens"].uses())


def test_fp32_leaves_the_tables_alone() -> None:
    """Not a node is changed."""
    model = model_of(table_of(0))
    before = ir.to_proto(model).SerializeToString()
    write_embedding(model, "fp32")
    assert ir.to_proto(model).SerializeToString() == before


@pytest.mark.parametrize(("precision", "row_bytes"), [("fp32", 4 * WIDTH), ("fp16", 2 * WIDTH), ("int8", WIDTH + 4)])
def test_bytes_of_tables(precision: str, row_bytes: int) -> None:
    """Both tables, scales included."""
    model = model_of(table_of(0))
    write_embedding(model, precision)
    assert table_bytes(model) == 2 * ROWS * row_bytes


def test_a_table_that_is_also_multiplied_by_is_no_table() -> None:
    """It is read whole at every firing, so its bytes are weights like any; a smaller copy to look up in is a table."""
    model = model_of(table_of(0), has_head=True)
    assert table_bytes(model) == ROWS * WIDTH * 4
    write_embedding(model, "int8")
    assert table_bytes(model) == 2 * ROWS * (WIDTH + 4)
    assert {node.op_type for node in model.graph.initializers["tokens"].consumers()} == {"Transpose"}
