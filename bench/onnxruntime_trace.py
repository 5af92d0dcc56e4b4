"""The file that ONNX Runtime writes where `SessionOptions.enable_profiling` is on: what each operator took in each run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

_OPERATOR_SUFFIX, _RUN = "_kernel_time", "model_run"


class Run(NamedTuple):
    """One run of a session: types of its operators with the microseconds of each, and what is spent between them."""

    operators: Sequence[tuple[str, float]]
    between_us: float


def read_trace(path: Path) -> list[Run]:
    """The runs in a trace, in order. An operator that holds others (`If`, `Loop`) counts without them."""
    return runs_of(msgspec.json.decode(path.read_bytes()))


def runs_of(events: Sequence[dict[str, Any]]) -> list[Run]:
    """As `read_trace`, from Chrome's trace events: dicts of `name`, `cat`, `ts` and `dur` (microseconds), and `args`."""
    runs = sorted((event for event in events if event["name"] == _RUN), key=lambda event: event["ts"])
    nodes = [event for event in events if event["cat"] == "Node" and event["name"].endswith(_OPERATOR_SUFFIX)]
    nodes.sort(key=lambda event: (event["ts"], -event["dur"]))
    found, rest = [], iter([*nodes, None])
    node = next(rest)
    for run in runs:
        end, own = run["ts"] + run["dur"], []
        while node is not None and node["ts"] < end:
            if node["ts"] >= run["ts"]:
                own.append(node)
            node = next(rest)
        operators = _without_what_they_hold(own)
        found.append(Run(operators, max(run["dur"] - sum(us for _, us in operators), 0.0)))
    return found


def _without_what_they_hold(nodes: Sequence[dict[str, Any]]) -> list[tuple[str, float]]:
    own = [float(node["dur"]) for node in nodes]
    open_ones: list[int] = []
    for index, node in enumerate(nodes):
        while open_ones and nodes[open_ones[-1]]["ts"] + nodes[open_ones[-1]]["dur"] <= node["ts"]:
            open_ones.pop()
        if open_ones:
            own[open_ones[-1]] = max(own[open_ones[-1]] - node["dur"], 0.0)
        open_ones.append(index)
    return [(node["args"]["op_name"], us) for node, us in zip(nodes, own, strict=True)]
