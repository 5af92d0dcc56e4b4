"""Print the Markdown of a `claims.json`, or put it into a document.

python -m foveal.bench.claims CLAIMS.json [DOCUMENT.md [MODELS]]

The places of a document are called `order` and so on, or of another set of models `order-MODELS`.
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


def main(claims: Path, document: Path | None = None, models: str | None = None) -> None:
    """Without a document, print the figures of each claim; else put them between its marks, those of `models` if it says so.

    Raises:
        OSError, msgspec.MsgspecError: the files cannot be read, or the first is not what `foveal bench claims --save` writes.
        ConfigError: the document has no place for one of the claims.
    """
    found = figures(msgspec.json.decode(claims.read_bytes(), type=ClaimsResult))
    parts = {claim if models is None else f"{claim}-{models}": text for claim, text in found.items()}
    if document is not None:
        write_atomically(document, insert(document.read_text(), parts).encode())
        return
    for claim, text in parts.items():
        print(f"<!-- figures: {claim} -->\n{text}\n<!-- end: {claim} -->\n")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None, sys.argv[3] if sys.argv[3:] else None)
    except FovealError as error:
        sys.exit(f"{error}\n{__doc__}")
