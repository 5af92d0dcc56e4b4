"""One stage -> one ONNX graph file."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx_ir as ir
import torch
from onnx import FunctionProto
from torch import Tensor, nn
from torch.export import Dim

from ...contract import Contract, StageSpec, TensorSpec, contract_of
from ...errors import ExportError
from ...models.architecture import Stage
from ...models.layers.lengthen import Lengthen
from ...models.layers.shorten import Shorten
from . import functions
from .change_dialect import change_dialect
from .dialect import MODERN, Dialect
from .modules import StageGraph
from .own_modules import export_error, quiet
from .quick_exporter import savings
from .saving import save_graph

# Any sizes serve as examples so long as they differ from 0 and 1, which torch.export would take for constants.
_EXAMPLE = {"B": 2, "L": 3, "S": 8, "N": 2}
_LENT = 5  # firings of a stage whose caches are borrowed


def export_stage(stage: Stage, path: Path, dialect: Dialect) -> int:
    """Write a stage's graph to `path` and its weights beside it (`<path>.data`); return the bytes of its weights.

    Batch, firings, capacity and the number of logit rows are symbolic.

    Raises:
        ExportError: torch could not trace the stage: its reason, and the line of the module that it met; or the dialect lacks
            an op.
    """
    contract = contract_of(stage.spec)
    model = _traced(stage, contract)
    for function in _own_ops(stage.module, model):
        added = ir.serde.deserialize_function(function)
        model.functions[added.identifier()] = added
    model.opset_imports[functions.DOMAIN] = 1
    _state_shapes(model, contract)
    _check_states(model, stage.spec)
    _name_nodes(model, stage.spec.name)
    change_dialect(model, dialect)
    return save_graph(model, path)


def _traced(stage: Stage, contract: Contract) -> ir.Model:
    spec = stage.spec
    graph = StageGraph(stage)
    letters = {letter: Dim(_symbol(letter), min=1) for letter in _letters(contract)}
    try:
        with warnings.catch_warnings(), torch.no_grad(), quiet(), savings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations; its failures are raised
            program = torch.onnx.export(
                graph,
                tuple(_example(tensor) for tensor in contract.inputs),
                dynamo=True,
                opset_version=MODERN.opset,
                input_names=[tensor.name for tensor in contract.inputs],
                output_names=[tensor.name for tensor in contract.outputs],
                dynamic_shapes=(tuple(_dynamic(tensor, letters) for tensor in contract.inputs),),
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps anything a model's code may raise
        raise export_error(spec.name, error) from error
    if program is None:
        raise ExportError(f'stage "{spec.name}" could not be exported: torch returned no program')
    return program.model


def trace(stage: Stage) -> None:
    """Only the first step of an export: symbolic sizes through the stage's module.

    Raises:
        Exception: whatever torch or the module raises.
    """
    contract = contract_of(stage.spec)
    letters = {letter: Dim(_symbol(letter), min=1) for letter in _letters(contract)}
    examples = tuple(_example(tensor) for tensor in contract.inputs)
    dynamic = (tuple(_dynamic(tensor, letters) for tensor in contract.inputs),)
    with warnings.catch_warnings(), torch.no_grad(), quiet():
        warnings.simplefilter("ignore")
        torch.export.export(StageGraph(stage), examples, dynamic_shapes=dynamic, strict=False)


def _symbol(letter: str) -> str:
    """What torch may call it: it parses multiples of a letter with sympy, in which `S` is something else."""
    return "S_own" if letter == "S" else letter.replace(".", "_")


def _size(dimension: int | str) -> int:
    if isinstance(dimension, int):
        return dimension
    factor, letter = _factor_and_letter(dimension)
    return factor * _EXAMPLE.get(letter, _LENT)


def _factor_and_letter(dimension: str) -> tuple[int, str]:
    factor, _, letter = dimension.rpartition("*")
    return int(factor or 1), letter


def _letters(contract: Contract) -> set[str]:
    """Of the dimensions of a graph's inputs that are not fixed."""
    sizes = [size for tensor in contract.inputs for size in tensor.shape if isinstance(size, str)]
    return {letter for _, letter in map(_factor_and_letter, sizes)}


def _example(tensor: TensorSpec) -> Tensor:
    shape = [_size(dimension) for dimension in tensor.shape]
    return torch.zeros(shape, dtype=torch.int64 if tensor.dtype == "int64" else torch.float32)


def _dynamic(tensor: TensorSpec, letters: dict[str, Dim]) -> dict[int, Dim]:
    dynamic = {}
    for axis, dimension in enumerate(tensor.shape):
        if isinstance(dimension, str):
            factor, letter = _factor_and_letter(dimension)
            dynamic[axis] = letters[letter] if factor == 1 else factor * letters[letter]
    return dynamic


def _own_ops(module: nn.Module, model: ir.Model) -> list[FunctionProto]:
    """The definitions of `Shorten`, `Lengthen` and `WriteRows`, where a stage's graph contains them."""
    found = [functions.shorten(part.kind, MODERN.opset) for part in module.modules() if isinstance(part, Shorten)]
    found += [functions.lengthen(part.kind, MODERN.opset) for part in module.modules() if isinstance(part, Lengthen)]
    if any(node.op_type == "WriteRows" for node in model.graph):
        found.append(functions.write_rows(MODERN.opset))
    return found


def _state_shapes(model: ir.Model, contract: Contract) -> None:
    """Write the contract's letters on inputs and outputs, where the exporter may have made up names of its own."""
    for values, tensors in ((model.graph.inputs, contract.inputs), (model.graph.outputs, contract.outputs)):
        for value, tensor in zip(values, tensors, strict=True):
            value.shape = ir.Shape(tensor.shape)


def _check_states(model: ir.Model, spec: StageSpec) -> None:
    """Engines write a recurrent state over what it was: a second reader might see it as it becomes.

    Raises:
        ExportError: more than one operation reads it, or none.
    """
    for cache in spec.caches:
        if not cache.recurrent:
            continue
        past = next(value for value in model.graph.inputs if value.name == f"past_key_values.{cache.name}")
        readers = [node.op_type for node, _ in past.uses() if node.op_type != "Shape"]
        if len(readers) != 1 or past.is_graph_output():
            raise ExportError(
                f'stage "{spec.name}": state "{cache.name}" is read by {len(readers)} operations ({", ".join(readers)}), '
                "expected one: it is replaced in place, so read it once and go on with what that gives (docs/your-own-model.md)"
            )


def _name_nodes(model: ir.Model, stage: str) -> None:
    """Name every node after its place in the stage, as `4/stack/layers/0/attention/MatMul`, so that viewers can group them."""
    seen: dict[str, int] = {}
    for node in model.graph:
        name = "/".join((stage, *_place(node), node.op_type))
        seen[name] = seen.get(name, 0) + 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"


def _place(node: ir.Node) -> list[str]:
    """The path of the module that made a node, from the exporter's record of it (empty: the stage itself)."""
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "").strip("[]").split(", ")
    path = scopes[-2].strip("'") if len(scopes) > 1 else ""
    return [part for part in path.split(".")[1:] if not path.startswith("_empty")]
