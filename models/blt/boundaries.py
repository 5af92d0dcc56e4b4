"""Where patches end: the rules, and the clocks that they are to the stage over patches.

Byte t ends its patch, or does not; whatever the rule, the first byte is a patch of its own. BLT says the same of the byte
after: "bytes 0 and 1 start patches, and byte t does if the entropy that was foreseen for it is above the threshold".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...contract import ClockSpec
from ...errors import ConfigError

ENTROPY, SPACE, FIXED = "entropy", "space", "fixed:"
PATCHER, SPACES = "patcher", "spaces"
"""Stages that say of every byte whether it ends its patch."""
BYTES, SPECIAL = 256, 4
"""Ids of BLT's tokenizer: four special ones, then the bytes."""
ENTROPY_TOKENS, SPACE_TOKENS = 4.5, 6.0
"""Tokens per firing that forecasts assume: what the paper's threshold was chosen for; words with what follows them."""
_HALF = 0.5


def patch_length(rule: str) -> int | None:
    """Bytes of a patch, of `"fixed:4"`; None: another rule.

    Raises:
        ConfigError: no number, or one below 1.
    """
    if not rule.startswith(FIXED):
        return None
    length = rule.removeprefix(FIXED)
    if not length.isascii() or not length.isdecimal() or not 1 <= int(length) < 2**31:
        raise ConfigError(f'boundaries are "{rule}", expected "{FIXED}" and the number of bytes of a patch, such as "{FIXED}4"')
    return int(length)


def check_rule(rule: str, vocab_size: int) -> None:
    """Raise a ConfigError for a rule that is none, or that does not know these ids."""
    if rule not in (ENTROPY, SPACE) and patch_length(rule) is None:
        raise ConfigError(f'boundaries are "{rule}", expected "{ENTROPY}", "{SPACE}" or "{FIXED}" and a number of bytes')
    if rule == SPACE and vocab_size != SPECIAL + BYTES:
        raise ConfigError(
            f'boundaries "{SPACE}" are a rule on {SPECIAL + BYTES} ids, {SPECIAL} special ones and then the bytes, but the '
            f"model has {vocab_size}; give another rule"
        )


def clock_of(rule: str, threshold: float) -> ClockSpec:
    """When the stage over patches fires.

    Args:
        rule: of `BltConfig.boundaries`.
        threshold: nats, of `"entropy"`.
    """
    length = patch_length(rule)
    if length is not None:  # the id does not matter: spans are exactly as long
        return ClockSpec(ids=(0,), firsts=1, least=length, most=length, tokens_per_firing=length)
    if rule == SPACE:
        return ClockSpec(stage=SPACES, threshold=_HALF, firsts=1, tokens_per_firing=SPACE_TOKENS)
    return ClockSpec(stage=PATCHER, threshold=threshold, firsts=1, tokens_per_firing=ENTROPY_TOKENS)


def ends(clock: ClockSpec, values: Tensor) -> Tensor:
    """Which of a text's bytes end a patch: bool `[B, L]`, of the deciding rows' values (or of ids) `[B, L]`."""
    if clock.most is not None:
        found = torch.arange(values.shape[1], device=values.device).expand(values.shape) % clock.most == 0
    else:
        found = values > clock.threshold
    return found | (torch.arange(values.shape[1], device=values.device) < clock.firsts)


class SpaceRule(nn.Module):
    """The original's rule of spaces: a byte that no letter, digit or middle of a character is ends its patch, unless the byte
    before is such a byte, too; a special id always does (`find_space_patch_start_ids` in `bytelatent/data/patcher.py`).
    """

    spaces: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(
            "spaces", torch.tensor([_is_space(id - SPECIAL) for id in range(SPECIAL + BYTES)]), persistent=False
        )

    def forward(self, before: Tensor, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, and those before each -> 1 where a patch ends, else 0, `[B, L]`."""
        found = (self.spaces[ids] & ~self.spaces[before]) | (ids < SPECIAL)
        return found.float()


def _is_space(byte: int) -> bool:
    is_word = chr(byte).isalnum() if 0 <= byte < 0x80 else 0x80 <= byte < 0xC0
    return not is_word
