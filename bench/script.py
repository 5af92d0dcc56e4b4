"""What `python -m foveal.bench.NAME` runs: errors that foveal raises on purpose become a line, as in the command."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ..errors import FovealError
from ..storage import storage_errors


def run_script(main: Callable[[], None]) -> None:
    """Call it; exits with the error's code where there is one."""
    try:
        with storage_errors():
            main()
    except FovealError as error:
        print(f"foveal: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
