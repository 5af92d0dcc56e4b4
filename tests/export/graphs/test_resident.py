"""The resident form of stage graphs. That it computes the same is held by tests/runtime/test_resident.py."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from grouping_model import grouping
from own_positions import check_own_positions
from specimens import ZOO, Zoo
from store import Store

from foveal.bundle import Bundle, StageEntry
from foveal.contract import leads_of, resident_contract_of
from foveal.export.graphs.change_dialect import change_dialect
from foveal.export.graphs.dialect import DIALECTS, MODERN
from foveal.export.graphs.functions import DOMAIN
from foveal.export.graphs.resident import make_resident
from foveal.export.graphs.saving import save_graph


def resident(bundle: Bundle, entry: StageEntry, dialect: str = "modern") -> ir.Model:
    """A stage of a bundle in its resident form."""
    model, stages = ir.load(bundle.file(entry.graph)), [other.spec for other in bundle.manifest.stages]
    change_dialect(model, DIALECTS[dialect])
    make_resident(model, entry.spec, leads_of(stages), DIALECTS[dialect])
    return model


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ZOO)
def test_the_graph_is_its_contract(name: str, dialect: str, zoo: Zoo, tmp_path: Path) -> None:
    """Inputs, outputs and their shapes are those of `resident_contract_of`, and the graph is valid ONNX."""
    bundle = zoo[name].bundle
    for entry in bundle.manifest.stages:
        model, contract = resident(bundle, entry, dialect), resident_contract_of(entry.spec)
        for values, tensors in ((model.graph.inputs, contract.inputs), (model.graph.outputs, contract.outputs)):
            found = {value.name: [str(size) for size in value.shape or ()] for value in values}
            assert found == {tensor.name: [str(size) for size in tensor.shape] for tensor in tensors}
        save_graph(model, tmp_path / "stage.onnx")
        onnx.checker.check_model(tmp_path / "stage.onnx", full_check=True)


@pytest.mark.parametrize("name", ["nested", "empty stacks"])
def test_no_tensor_is_named_like_an_input_of_a_function(name: str, zoo: Zoo) -> None:
    """TensorRT 10.3 would read the graph's own tensor of that name."""
    bundle = zoo[name].bundle
    for entry in bundle.manifest.stages:
        model = resident(bundle, entry, "classic")
        taken = {value.name for node in model.graph for value in (*node.inputs, *node.outputs) if value is not None}
        for node in [node for node in model.graph if node.domain == DOMAIN]:
            inner = model.functions[node.op_identifier()].inputs
            pairs = zip((value.name for value in node.inputs if value is not None), inner, strict=True)
            assert all(outer == value.name or value.name not in taken for outer, value in pairs)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ZOO)
def test_every_sequence_stands_at_a_position_of_its_own(name: str, dialect: str, zoo: Zoo) -> None:
    """And gets, and writes, what it would alone; `own positions` of `family_engines.py` says so of all families."""
    check_own_positions(zoo[name].bundle, dialect)


def is_time_major(node: ir.Node) -> bool:
    """Whether it turns `[B, N, D]` to `[N, B, D]` or back."""
    return node.op_type == "Transpose" and tuple(node.attributes["perm"].as_ints()) == (1, 0, 2)


@pytest.mark.parametrize("name", ZOO)
def test_rows_are_not_turned(name: str, zoo: Zoo) -> None:
    """Logs are batch-major, as the stages compute: the transpositions of the portable form are gone."""
    bundle = zoo[name].bundle
    for entry in bundle.manifest.stages:
        turned = [node for node in resident(bundle, entry).graph.all_nodes() if is_time_major(node)]
        readers = {reader.op_type for node in turned for reader in node.outputs[0].consumers()}
        assert readers <= {"Shape"}  # of which no kernel is made


def test_a_graph_that_does_not_end_in_rows(zoo: Zoo) -> None:
    """What is no stage graph is refused."""
    bundle = zoo["vanilla"].bundle
    (entry,) = bundle.manifest.stages
    model = ir.load(bundle.file(entry.graph))
    model.graph.outputs[0].name = "hidden"
    hidden = bundle.manifest.stages[0].spec
    spec = type(hidden)(**{**{name: getattr(hidden, name) for name in hidden.__struct_fields__}, "output": "hidden"})
    with pytest.raises(TypeError, match="expected a stage graph to end with a transposition to time-major rows, got MatMul"):
        make_resident(model, spec, {"1": 0}, MODERN)


class TestRowsThatTheDataPicks:
    """Of a stage whose firings the data decides, and of those that read it."""

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_the_graph_is_its_contract(self, dialect: str, store: Store) -> None:
        """Places come in for rows; ids that are picked are told as they are read; spans say where they are, as before."""
        bundle = grouping(store).bundle
        for entry in bundle.manifest.stages:
            model, contract = resident(bundle, entry, dialect), resident_contract_of(entry.spec)
            found = {value.name: tuple(str(size) for size in value.shape or ()) for value in model.graph.inputs}
            assert found == {tensor.name: tuple(map(str, tensor.shape)) for tensor in contract.inputs}
            assert [value.name for value in model.graph.outputs] == [tensor.name for tensor in contract.outputs]

    def test_what_the_host_tells(self, store: Store) -> None:
        """By stage: nothing that follows from a position, and no index where a firing's rows are all there is."""
        fine, coarse, last = (
            {tensor.name: tensor.shape for tensor in resident_contract_of(entry.spec).inputs if tensor.dtype == "int64"}
            for entry in grouping(store).bundle.manifest.stages
        )
        assert fine == {"input_ids": ("B", "3*L"), "position": ("B",)}
        assert coarse == {
            "places.window": ("B", "M.window"),
            "window.first": ("L",),
            "window.within": ("P.window",),
            "window.lengths": ("B", "L"),
            "position": ("B",),
        }
        assert last == {"position": ("B",), "logit_rows": ("N",), "offsets": ("L",), "places.context": ("B", "2*L")}

    def test_a_row_that_is_picked_is_gathered_once(self, store: Store) -> None:
        """Straight from the log, and not turned."""
        bundle = grouping(store).bundle
        graph = resident(bundle, bundle.manifest.stages[2]).graph
        (taken,) = [node for node in graph if node.name == "context/rows/taken"]
        (squeezed,) = [reader for reader, _ in taken.outputs[0].uses()]
        assert {reader.op_type for reader, _ in squeezed.outputs[0].uses()} == {"Reshape"}

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_each_sequence_has_places_of_its_own(self, dialect: str, store: Store) -> None:
        """In its own log, with spans of its own lengths."""
        check_own_positions(grouping(store).bundle, dialect)

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_a_stage_may_ask_the_block_how_many_sequences_there_are(self, dialect: str, store: Store) -> None:
        """It has no state that says so; the rows that are gathered say it as well."""
        bundle = grouping(store).bundle
        entry = bundle.manifest.stages[2]
        model = ir.load(bundle.file(entry.graph))
        change_dialect(model, DIALECTS[dialect])
        (block,) = [value for value in model.graph.inputs if value.name == "context"]
        node = ir.node("Shape", [block], {"start": 1, "end": 2}, name="asked")
        node.outputs[0].name = "asked_out"
        model.graph.insert_before(model.graph[0], node)
        reader = ir.node("Cast", [node.outputs[0]], {"to": 1}, name="told")
        model.graph.append(reader)
        model.graph.outputs.append(reader.outputs[0])
        make_resident(model, entry.spec, leads_of([other.spec for other in bundle.manifest.stages]), DIALECTS[dialect])
        (asked,) = [other for other in model.graph if other.op_type == "Cast" and other.name == "told"]
        shape = asked.inputs[0].producer()
        assert shape is not None
        assert (shape.op_type, shape.attributes["start"].as_int(), shape.attributes["end"].as_int()) == ("Shape", 0, 1)
        assert shape.inputs[0].producer().name == "context/rows/rows"
