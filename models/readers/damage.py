"""What a damaged checkpoint provokes in the libraries that read it, and in the readers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import CheckpointError, FovealError, reason_of


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a checkpoint is read into a CheckpointError; what has a name of its own keeps it."""
    try:
        yield
    except (FovealError, OSError, ImportError):
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path} can't be read: {reason_of(error)}; a file of it is damaged, or says what no "
            "model of its layout is: compare its config.json with docs/models.md, or copy it again"
        ) from error
