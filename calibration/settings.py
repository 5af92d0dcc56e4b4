"""How activations become ranges."""

from __future__ import annotations

import msgspec

from ..errors import ConfigError
from .ranges import METHODS, Method

DEFAULT_PERCENTILE = 99.99


class CalibrationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a text is used.

    Attributes:
        method: how the threshold of int8 activations is chosen; see `ProductRanges.threshold`.
        percentile: of all magnitudes, the share that the method `percentile` does not clip.
        max_tokens: use at most so many tokens, spread over the text; None: all.

    Raises:
        ConfigError: a setting out of its range.
    """

    method: Method = "percentile"
    percentile: float = DEFAULT_PERCENTILE
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f'unknown method "{self.method}"; expected one of {", ".join(METHODS)}')
        if self.method != "percentile" and self.percentile != DEFAULT_PERCENTILE:
            raise ConfigError(
                f'percentile is {self.percentile}, but the method is "{self.method}", which clips by no percentile; '
                'choose the method "percentile", or leave it out'
            )
        if not 50 < self.percentile <= 100:
            raise ConfigError(f"percentile is {self.percentile}, expected more than 50 and at most 100")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}, expected at least 1, or None for all")
