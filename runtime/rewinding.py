"""How far back a sequence can go."""

from __future__ import annotations

from ..errors import InputError


def check_rewind(tokens: int, position: int, reached: int, most: int | None, whose: str) -> None:
    """Raise InputError unless a sequence can take back its last `tokens` tokens.

    Args:
        tokens: to take back.
        position: tokens that it holds.
        reached: how far it had gone, before it was rewound.
        most: that a model which compacts its past can take back; None: all.
        whose: what the message calls it, such as `the session`.
    """
    if not 0 <= tokens <= position:
        raise InputError(f"can't rewind {tokens} tokens: {whose} holds {position}; give a number between the two")
    target = position - tokens
    if target and most is not None and target < reached - most:
        raise InputError(
            f"can't rewind to {target} tokens: the model compacts its past, and of the {reached} it has seen "
            f"it can take back {most}; restore a snapshot, or reset {whose} and append the tokens again"
        )
