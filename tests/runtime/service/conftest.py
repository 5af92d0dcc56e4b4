"""A service of a small model, closed at the end, with nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from served import ServedProgram, check_all_is_free, within

from foveal import Service


@pytest.fixture
def served() -> ServedProgram:
    """A model of three scales: 1, 2 and 4."""
    return ServedProgram()


@pytest.fixture
def serve(served: ServedProgram) -> Iterator[Callable[..., Service]]:
    """Opens services of the model; at the end all of them are free of work, and their threads end."""
    services: list[Service] = []
    before = set(threading.enumerate())  # a test elsewhere that failed may have left some

    def open_service(**settings: Any) -> Service:
        services.append(Service(served, **{"slots": 3, **settings}))
        return services[-1]

    yield open_service
    served.gate.set()
    for service in services:
        if service.is_alive:
            check_all_is_free(service)
        within(20, service.close)
        check_all_is_free(service)
        assert not service.is_alive
    names = [thread.name for thread in threading.enumerate() if thread not in before]
    assert not [name for name in names if name.startswith(("foveal-service", "foveal-store"))]
