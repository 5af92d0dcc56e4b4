"""Snapshots as bytes: they come back as they were, on the bundle they are of, or are refused in a sentence."""

from __future__ import annotations

import re

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import host_engines, hourglass, info
from specimens import Zoo, random_ids

from foveal import InputError, Session, Snapshot, load
from foveal.runtime import snapshots


def moment(tokens: int = 12) -> Snapshot:
    """Of engines that stand in no bundle."""
    session = Session(host_engines(hourglass(2, 2)), info())
    session.advance(random_ids(1, tokens))
    return session.snapshot()


@pytest.mark.parametrize("name", ["nested", "attention", "vanilla"])
@pytest.mark.parametrize("batch", [1, 2])
def test_another_process_goes_on_with_the_same_logits(name: str, batch: int, zoo: Zoo) -> None:
    """Exactly those, also for a session that was rewound before, in a model that was loaded anew."""
    bundle, ids = zoo[name].bundle, random_ids(batch, 40)
    session = load(bundle, threads=1).session(batch)
    session.advance(ids[:, :29])
    session.rewind(6)
    saved = session.snapshot().to_bytes()
    later = load(bundle, threads=1).session(batch, capacity=64)
    later.restore(Snapshot.from_bytes(saved))
    assert (later.position, later.tokens.tolist()) == (23, ids[:, :23].tolist())
    np.testing.assert_array_equal(later.advance(ids[:, 23:]), session.advance(ids[:, 23:]))


def test_bytes_are_what_it_holds_and_little_more() -> None:
    """So that a store can count by `nbytes`."""
    made = moment()
    assert made.nbytes < len(made.to_bytes()) < made.nbytes + 1000
    assert Snapshot.from_bytes(memoryview(made.to_bytes())).nbytes == made.nbytes


def test_of_another_bundle_or_target(zoo: Zoo) -> None:
    """Even where all shapes are the same; the session is unchanged."""
    first, second = (load(zoo[name].bundle, threads=1).session() for name in ("nested", "vanilla"))
    first.advance(random_ids(1, 9))
    second.advance(random_ids(1, 5))
    with pytest.raises(InputError, match="the snapshot is of another bundle or target"):
        second.restore(Snapshot.from_bytes(first.snapshot().to_bytes()))
    assert second.position == 5


@given(st.data())
def test_what_was_cut_short_or_altered(data: st.DataObject) -> None:
    """Any byte, any length."""
    whole = moment().to_bytes()
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        place = data.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    with pytest.raises(InputError, match=r"no snapshot of foveal|cut short or altered") as caught:
        Snapshot.from_bytes(damaged)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given_", ["text", 3, None, [b"x"]])
def test_what_is_no_bytes(given_: object) -> None:
    """Named by its type."""
    with pytest.raises(InputError, match=f"expected the bytes of a snapshot, got {type(given_).__name__}"):
        Snapshot.from_bytes(given_)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "the snapshot is of version 2, this foveal reads 1"),
        ({"position": "far"}, "can't be read (Expected `int`, got `str`"),
        ({"position": 13}, "can't be read (13 tokens of 1 sequences, and ids [1, 12])"),
        ({"tokens": ["int64", [1, 13], b"12345678"]}, "can't be read (cannot reshape array"),
        ({"tokens": ["object", [1], b"12345678"]}, "can't be read ("),
        ({"more": 1}, "can't be read (Object contains unknown field `more`"),
    ],
)
def test_of_another_version_or_not_by_foveal(changes: dict[str, object], reason: str) -> None:
    """With a checksum that fits."""
    head = len(snapshots.checked(b""))
    fields = msgspec.msgpack.decode(moment().to_bytes()[head:]) | changes
    with pytest.raises(InputError, match=re.escape(reason)):
        Snapshot.from_bytes(snapshots.checked(msgspec.msgpack.encode(fields)))
