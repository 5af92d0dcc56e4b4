"""Print the Markdown of a `claims.json`, or put it into a document.

python -m foveal.bench.claims CLAIMS.json [DOCUMENT.md]
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from ...errors import FovealError
from ...files import write_atomically
from ..document import insert
from .markdown import figures
from .result import ClaimsResult


def main(claims: Path, document: Path | None = None) -> None:
    """Without a document, print the figures of each claim; else put them between its marks.

    Raises:
        OSError, msgspec.MsgspecError: the files cannot be read, or the first is not what `foveal bench claims --save` writes.
        ConfigError: the document has no place for one of the claims.
    """
    parts = figures(msgspec.json.decode(claims.read_bytes(), type=ClaimsResult))
    if document is not None:
        write_atomically(document, insert(document.read_text(), parts).encode())
        return
    for claim, text in parts.items():
        print(f"<!-- figures: {claim} -->\n{text}\n<!-- end: {claim} -->\n")


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:]))
    except (FovealError, TypeError) as error:
        sys.exit(f"{error}\n{__doc__}")
