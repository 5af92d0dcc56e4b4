"""docs/io-contract.md, written from the objects the exporter uses: `python -m foveal.export.contract_docs`."""

from __future__ import annotations

from pathlib import Path

from ..contract import Contract, StageSpec, TensorSpec, contract_of, resident_contract_of
from ..models.config import Architecture, ModelConfig
from ..models.dynamic.model import Dynamic
from ..models.hourglass.model import Hourglass

_HEAD = """# What every stage graph takes and gives

Written by `python -m foveal.export.contract_docs` from the objects the exporter uses; a test compares the two.

Example: hierarchy `{hierarchy}`, width 256, 8 heads of 32, vocabulary 4096. Letters: B batch, L firings of the stage in this
call, S capacity of its caches in rows, N rows whose logits are wanted. All four are symbolic in the portable graph. Where the
data decides what firings read, M is the length of the block of rows that holds all of it, and P that of the longest span.

Rows between stages are time-major, `[rows, B, D]`, so that any run of rows is one contiguous block (docs/adr/0002). `position`
counts firings of the stage, not tokens. An input and the output it is aliased with may, and on `cpu` do, share one buffer.
"""


_RESIDENT = """
# The resident form

What the compilers for GPUs are given (`export/graphs/resident.py`, docs/adr/0007): rows stay in logs `[B, 1, R, D]` that the
engines keep, and a stage finds its own by `position`. R is the length of its log, R.x that of the log of stage x; like S they
are fixed when the engine is built. A log begins with zeros, as many rows as the longest shift of those who read it. Where an
engine can't update in place (dialect `classic`), an input and the output it is aliased with are two buffers that take turns.
"""


def contract_page() -> str:
    """The whole page."""
    hierarchy = "1@1 1@2 1@8 1@2 1@1"
    nested, vanilla = _stages(hierarchy), _stages("1@1")
    kinds = [
        ("Entry: token ids to rows", nested[0]),
        ("Coarse, on the way in: a window of finer rows, shortened", nested[1]),
        ("Coarsest: shorten, layers, lengthen", nested[2]),
        ("Coarse, on the way out: stream and context, lengthened", nested[3]),
        ("Exit: stream and context to logits", nested[4]),
        ("Vanilla: token ids to logits", vanilla[0]),
    ]
    kinds += [(_DECIDED[spec.name], spec) for spec in _decided()]
    portable = (f"\n## {title} (`{spec.name}`)\n\n{_table(contract_of(spec))}" for title, spec in kinds)
    resident = (f"\n## `{spec.name}`, resident\n\n{_table(resident_contract_of(spec))}" for spec in nested)
    return _HEAD.format(hierarchy=hierarchy) + "".join(portable) + _RESIDENT + "".join(resident)


_DECIDED = {
    "pre": "Where the data decides: the rows whose last column is looked at",
    "middle": "Fired by those: a span of rows, of any length",
    "post": "The newest row of what fired",
}


def _decided() -> list[StageSpec]:
    return [stage.spec for stage in Dynamic(_config("1@1 4@~5 1@1", architecture="dynamic")).stages()]


def _stages(hierarchy: str) -> list[StageSpec]:
    return [stage.spec for stage in Hourglass(_config(hierarchy)).stages()]


def _config(hierarchy: str, architecture: Architecture = "hourglass") -> ModelConfig:
    return ModelConfig(
        architecture=architecture,
        hierarchy=hierarchy,
        vocab_size=4096,
        dim=256,
        heads=8,
        head_dim=32,
        ff_dim=1024,
        max_positions=512,
    )


def _table(contract: Contract) -> str:
    lines = ["| | name | dtype | shape | meaning | aliased with |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [_line("in", tensor) for tensor in contract.inputs]
    lines += [_line("out", tensor) for tensor in contract.outputs]
    return "\n".join(lines) + "\n"


def _line(direction: str, tensor: TensorSpec) -> str:
    shape = ", ".join(map(str, tensor.shape))
    alias = f"`{tensor.aliased_with}`" if tensor.aliased_with else ""
    return f"| {direction} | `{tensor.name}` | {tensor.dtype} | [{shape}] | {tensor.meaning} | {alias} |"


if __name__ == "__main__":
    target = Path(__file__).parent.parent / "docs" / "io-contract.md"
    target.write_text(contract_page(), encoding="utf-8")
    print(f"wrote {target}")
