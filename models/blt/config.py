"""Sizes of a BLT."""

from __future__ import annotations

import math

import msgspec

from ...errors import ConfigError
from ..config import LayerConfig
from .boundaries import ENTROPY, check_rule

PRIMES = (
    1000000007, 5915587277, 1500450271, 3267000013, 5754853343, 4093082899, 9576890767, 3628273133, 2860486313, 5463458053,
    3367900313,
)  # fmt: skip
"""Of the hash functions, in order; those after the last begin again with the first."""
LARGEST_GROUP = 64
"""Bytes that a hash may be of; the published models have 8."""


class BltConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes and choices of a BLT.

    Attributes:
        encoder: layers over bytes before patches are made, `middle`: over patches, `decoder`: over bytes again, `patcher`: of
            the model whose entropy ends patches; None where another rule does.
        encoder_layers: how many, and so on.
        patch_rows: rows of encoder width that a patch is to the middle, and of decoder width that the middle is to a byte.
        reads: before how many of the decoder's layers bytes read their patch: before the first, or before each.
        hash_sizes: bytes of the groups that are hashed, `hash_functions`: with so many hash functions each, `hash_rows`: into a
            table of so many rows for each.
        boundaries: the rule that ends patches: `"entropy"`, `"space"` or `"fixed:4"`.
        threshold: nats above which entropy ends a patch.
        tied: the head's matrix is that of the encoder's embedding.
        context: tokens that it was trained on.

    Raises:
        ConfigError: a size below 1, widths that do not fit, a threshold that entropy can't have, or an unknown rule.
    """

    vocab_size: int
    encoder: LayerConfig
    encoder_layers: int
    middle: LayerConfig
    middle_layers: int
    decoder: LayerConfig
    decoder_layers: int
    patcher: LayerConfig | None = None
    patcher_layers: int = 0
    patch_rows: int = 2
    reads: int = 1
    hash_sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    hash_functions: int = 1
    hash_rows: int = 500002
    boundaries: str = ENTROPY
    threshold: float = 1.335442066192627
    tied: bool = False
    context: int = 4096

    def __post_init__(self) -> None:
        for name in ("vocab_size", "encoder_layers", "middle_layers", "decoder_layers", "patch_rows", "hash_rows", "context"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.hash_functions < 0:
            raise ConfigError(f"hash_functions must be at least 0, got {self.hash_functions}")
        if any(not 1 <= size <= LARGEST_GROUP for size in self.hash_sizes):
            raise ConfigError(f"hash_sizes must be 1 to {LARGEST_GROUP} bytes each, got {list(self.hash_sizes)}")
        if self.reads not in (1, self.decoder_layers):
            raise ConfigError(f"reads must be 1 or the decoder's {self.decoder_layers} layers, got {self.reads}")
        if self.encoder.dim != self.decoder.dim:
            raise ConfigError(
                f"the decoder goes on with the encoder's rows, of width {self.encoder.dim}, but is {self.decoder.dim} wide; "
                "expected the same width"
            )
        check_rule(self.boundaries, self.vocab_size)
        if self.boundaries == ENTROPY:
            self._check_patcher()
        elif self.patcher is not None:
            raise ConfigError(f'boundaries "{self.boundaries}" need no patcher, but the configuration has one; leave it out')

    def _check_patcher(self) -> None:
        if self.patcher is None or self.patcher_layers < 1:
            raise ConfigError('boundaries "entropy" need a patcher; give one, or another rule')
        most = math.log(self.vocab_size)
        if not 0 <= self.threshold <= most:
            raise ConfigError(
                f"threshold is {self.threshold} nats, expected 0 to {most:.4f}: the entropy of {self.vocab_size} ids has no "
                "other values"
            )

    @property
    def hashes(self) -> int:
        """Hashes of each byte."""
        return self.hash_functions * len(self.hash_sizes)

    @property
    def window(self) -> int:
        """Ids that a byte's hashes are of, the byte's own last, rounded up to a power of two."""
        longest = max(self.hash_sizes) if self.hashes else 1
        return int(2 ** math.ceil(math.log2(longest)))

    @property
    def offered(self) -> int:
        """Width of what the middle hands to bytes: for each read, the keys and values of a patch's rows."""
        decoder = self.decoder
        return self.reads * 2 * self.patch_rows * decoder.key_value_heads * decoder.head_dim
