"""What every error of foveal's keeps to."""

from __future__ import annotations

import pytest

from foveal import BackendUnavailable, ConfigError, ExportError, FovealError
from foveal.errors import StorageError


@pytest.mark.parametrize("kind", [FovealError, ConfigError, ExportError, BackendUnavailable, StorageError])
def test_a_message_is_one_line(kind: type[FovealError]) -> None:
    """Whatever a name or another library's message in it holds."""
    assert str(kind("the op 'a\nb' is unknown\nto all")) == "the op 'a b' is unknown to all"
