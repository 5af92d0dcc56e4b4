"""The contract between the exporter and the runtime: what a stage says of itself, what follows from it, its graph's tensors."""

from __future__ import annotations

from .checks import problem_of
from .clock import ClockSpec
from .derived import (
    begins_ahead,
    late_stages,
    leads_of,
    needs_clocks,
    page_of,
    period_of,
    rewinds_of,
    room_of,
    rows_within,
    sizes_of,
    vocab_size_of,
)
from .end_rules import EndRule, patch_rule, rules_by_name
from .largest import RECURRENT_FIRINGS, SpanRoom, most_firings, span_room
from .schema import (
    BEGINNING,
    TENSOR_NAMES,
    BorrowSpec,
    CacheSpec,
    Fires,
    InputSpec,
    Kind,
    Limits,
    Reads,
    StageSpec,
    layer_caches,
)
from .tensors import (
    CANDIDATES,
    DRAWS,
    Contract,
    TensorSpec,
    contract_of,
    read_tensors,
    resident_contract_of,
    sampler_contract,
    size_of,
)

__all__ = [
    "BEGINNING",
    "CANDIDATES",
    "DRAWS",
    "TENSOR_NAMES",
    "BorrowSpec",
    "CacheSpec",
    "ClockSpec",
    "Contract",
    "EndRule",
    "Fires",
    "InputSpec",
    "Kind",
    "Limits",
    "RECURRENT_FIRINGS",
    "Reads",
    "SpanRoom",
    "StageSpec",
    "TensorSpec",
    "begins_ahead",
    "contract_of",
    "late_stages",
    "layer_caches",
    "leads_of",
    "most_firings",
    "needs_clocks",
    "page_of",
    "patch_rule",
    "period_of",
    "problem_of",
    "read_tensors",
    "resident_contract_of",
    "rewinds_of",
    "room_of",
    "rows_within",
    "rules_by_name",
    "sampler_contract",
    "size_of",
    "sizes_of",
    "span_room",
    "vocab_size_of",
]
