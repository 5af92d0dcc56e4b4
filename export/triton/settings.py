"""How a Triton server is to run a bundle: written into its config as parameters, where an operator may change them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...bundle import check_target
from ...errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What each instance of the model has.

    Attributes:
        target: whose engines to run.
        slots: sequences that decode together, a token of each in a step.
        queue: requests that may wait for a slot; one more is refused as unavailable.
        capacity: tokens that a slot holds; 0: the model's context.
        threads: of target `cpu`'s engines; 0: measured when the server starts. Others have none.
        state_mb: memory for what sequences have read between two requests, in MB (10^6 bytes). Those used least recently are
            forgotten beyond it.

    Raises:
        ConfigError: one that is out of its range, or no target.
    """

    target: str = "cpu"
    slots: int = 16
    queue: int = 64
    capacity: int = 0
    threads: int = 0
    state_mb: int = 1024

    def __post_init__(self) -> None:
        check_target(self.target)
        for name, least in {"slots": 1, "queue": 0, "capacity": 0, "threads": 0, "state_mb": 1}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.threads and self.target != "cpu":
            raise ConfigError(
                f"got {self.threads} threads for target {self.target}: only cpu engines have threads; leave it out"
            )

    def parameters(self) -> dict[str, str]:
        """As the config's parameters, which are strings."""
        return {name: str(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> ServerSettings:
        """What the config of a running model says; others' parameters are left alone, those not there have their default.

        Raises:
            ConfigError: one that is no whole number where one is due, or out of its range; no target.
        """
        names = {field.name for field in dataclasses.fields(cls)} & parameters.keys()
        given: dict[str, Any] = {name: _whole(name, parameters[name]) for name in names - {"target"}}
        if "target" in names:
            given["target"] = parameters["target"]
        return cls(**given)


def _whole(name: str, value: str) -> int:
    if not value.isdecimal():
        raise ConfigError(f'the parameter {name} of config.pbtxt is "{value}", expected a whole number; change it there')
    return int(value)
