"""Files that were damaged, by a seed: bytes flipped, cut and put in; JSON whose values, keys and nesting are others."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    3,
    7,
    2**31,
    2**63,
    10**30,
    0.5,
    -0.0,
    1e308,
    1e-320,
    float("nan"),
    float("inf"),
    "",
    "x",
]
VALUES += ["../x", "/", ".", "\0", "\ud800", "é" * 300, [], {}, [[]], [None], ["x", 1], {"x": {}}, {"": None}, [1] * 1000]
RAW = [b"", b"\0", b"\xff\xfe", b"{}", b"[]", b"null", b'"', b"NaN", b"{" * 5000, b"[" * 100_000, b"1e999", b'{"a":' * 3000]


def mutate(data: bytes, name: str, rng: random.Random) -> bytes:
    """A damaged copy; files that hold JSON are damaged in what it says two times in three."""
    if name.endswith(".json") and rng.random() < 0.67:
        return _mutate_json(data, rng)
    if name.endswith(".safetensors") and rng.random() < 0.67:
        size = int.from_bytes(data[:8], "little")
        header = _mutate_json(data[8 : 8 + size], rng)
        return len(header).to_bytes(8, "little") + header + data[8 + size :]
    if name.endswith(".gz") and rng.random() < 0.9:
        return gzip.compress(_mutate_bytes(gzip.decompress(data), rng), 1)
    return _mutate_bytes(data, rng)


def _mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.05:
        return rng.choice(RAW)
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8, 64])):
        # Half of the damage is done to the first bytes, where formats say what they are.
        place = rng.randrange(min(len(changed), 512) if rng.random() < 0.5 else len(changed)) if changed else 0
        kind = rng.randrange(5)
        if kind == 0 and changed:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and changed:
            changed[place] = rng.randrange(256)
        elif kind == 2:
            del changed[place : place + rng.choice([1, 4, 100])]
        elif kind == 3:
            changed[place:place] = rng.randbytes(rng.choice([1, 4, 100]))
        else:
            del changed[place : None if rng.random() < 0.2 else place + 1]
    return bytes(changed)


def _mutate_json(data: bytes, rng: random.Random) -> bytes:
    tree = {"root": json.loads(data)}
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        parent, key = rng.choice(list(_places(tree)))
        kind = rng.randrange(6)
        if kind <= 2:
            parent[key] = deepcopy(rng.choice(VALUES))
        elif kind == 3 and parent is not tree:
            del parent[key]
        elif kind == 4:
            other, there = rng.choice(list(_places(tree)))
            parent[key] = json.loads(json.dumps(other[there]))
        elif isinstance(parent, dict):
            parent[rng.choice(["x", "", "class", "hierarchy", "\ud800"])] = deepcopy(rng.choice(VALUES))
        else:
            parent.insert(key, deepcopy(rng.choice(VALUES)))
    return json.dumps(tree["root"], ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)
