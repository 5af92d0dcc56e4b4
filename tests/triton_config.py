"""Triton's own protobuf of a model's config, without a server and without gRPC."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format


@functools.cache
def _protobuf() -> Any:
    """`tritonclient.grpc.model_config_pb2`, loaded by itself: its package would import grpc."""
    package = importlib.util.find_spec("tritonclient")
    assert package is not None, "tritonclient is not installed; it is in the extra dev"
    assert package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("triton_model_config_pb2", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def parsed(config: Path) -> Any:
    """An `inference.ModelConfig`; raises for a field, an enumeration's name or a type that it has not."""
    return text_format.Parse(config.read_text(encoding="utf-8"), _protobuf().ModelConfig())


def as_backends_get_it(config: Path) -> dict[str, Any]:
    """As `initialize` gets it, which is the message in protobuf's JSON form."""
    found: dict[str, Any] = json_format.MessageToDict(parsed(config), preserving_proto_field_name=True)
    return found
