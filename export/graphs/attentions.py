"""The `CachedAttention` nodes of a graph, and the attributes that only some of them have."""

from __future__ import annotations

import onnx_ir as ir

from ...calibration.products import cached_attentions, head_counts
from .functions import Given


def given_attributes(model: ir.Model) -> Given:
    """Which attributes the bodies of a graph's attentions must take; afterwards all its attentions have those.

    A node has `kv_heads` and `window` where they say something. The nodes of a graph share a body, in which each attribute that
    it refers to must be given.
    """
    calls = cached_attentions(model)
    for node in calls if any("kv_heads" in node.attributes for node in calls) else ():
        node.attributes["kv_heads"] = ir.AttrInt64("kv_heads", head_counts(node).kv_heads)
    for node in calls if any("window" in node.attributes for node in calls) else ():
        node.attributes.setdefault("window", ir.AttrInt64("window", NO_WINDOW))
    names: tuple[str, ...] = tuple(calls[0].attributes) if calls else ()
    found: Given = ()
    if "kv_heads" in names:
        found = (*found, "kv_heads")
    return (*found, "window") if "window" in names else found


NO_WINDOW = -1
"""A window that hides nothing, as `GroupQueryAttention` has it."""
