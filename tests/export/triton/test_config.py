"""`config.pbtxt`, read by Triton's own protobuf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from triton_config import as_backends_get_it, parsed

from foveal import ConfigError
from foveal.export.triton.config import FOLLOWED, Sequences, config_text
from foveal.export.triton.settings import ServerSettings


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """Write one, and have it read."""

    def write(has_text: bool = True, on_gpu: bool = False, sequences: Sequences | None = FOLLOWED, **settings: Any) -> Path:
        path = tmp_path / "config.pbtxt"
        text = config_text("m", has_text, on_gpu, ServerSettings(**settings), sequences, 2)
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("has_text", [True, False])
@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("sequences", [FOLLOWED, None], ids=["sequences", "alone"])
def test_triton_knows_every_field(config: Any, has_text: bool, on_gpu: bool, sequences: Sequences | None) -> None:
    """Parsing refuses a field or an enumeration's name that the message has not."""
    found = parsed(config(has_text, on_gpu, sequences))
    assert (found.backend, found.max_batch_size, found.model_transaction_policy.decoupled) == ("python", 0, True)
    assert found.HasField("sequence_batching") == (sequences is not None)


def test_it_says_what_was_asked_for(config: Any) -> None:
    """Sequences oldest first, with the three controls that the backend reads."""
    found = as_backends_get_it(config(sequences=Sequences(most=7, idle_seconds=60), slots=3, queue=0, state_mb=5))
    batching = found["sequence_batching"]
    assert batching["oldest"] == {"max_candidate_sequences": 7}
    assert batching["max_sequence_idle_microseconds"] == "60000000"
    assert {control["control"][0].get("kind", "CONTROL_SEQUENCE_START") for control in batching["control_input"]} == {
        "CONTROL_SEQUENCE_START",
        "CONTROL_SEQUENCE_END",
        "CONTROL_SEQUENCE_CORRID",
    }
    assert found["instance_group"] == [{"count": 2, "kind": "KIND_CPU"}]
    assert found["parameters"]["slots"] == {"string_value": "3"}


def test_parameters_come_back_as_they_were(config: Any) -> None:
    """The backend reads them from the config that Triton hands it."""
    given = ServerSettings(slots=3, queue=0, capacity=9, threads=2, state_mb=5)
    found = as_backends_get_it(config(slots=3, queue=0, capacity=9, threads=2, state_mb=5))["parameters"]
    assert ServerSettings.of({key: value["string_value"] for key, value in found.items()}) == given


def test_parameters_that_somebody_wrote() -> None:
    """Others' are left alone; what is no number says where it stands."""
    assert ServerSettings.of({"slots": "2", "EXECUTION_ENV_PATH": "env.tar.gz"}) == ServerSettings(slots=2)
    with pytest.raises(ConfigError, match='the parameter slots of config.pbtxt is "many", expected a whole number'):
        ServerSettings.of({"slots": "many"})
    with pytest.raises(ConfigError, match="slots must be at least 1, got 0"):
        ServerSettings.of({"slots": "0"})


def test_a_model_without_a_tokenizer_takes_ids_and_gives_ids(config: Any) -> None:
    """Its config names no text."""
    found = parsed(config(has_text=False))
    assert [tensor.name for tensor in found.input] == ["input_ids", "sampling_parameters"]
    assert [tensor.name for tensor in found.output] == ["output_ids", "finish_reason"]


def test_the_parser_of_these_tests_refuses(config: Any) -> None:
    """What is no field, and what is no name of an enumeration: else the tests above would show nothing."""
    path = config()
    text = path.read_text()
    for wrong in (text.replace("decoupled", "uncoupled"), text.replace("KIND_CPU", "KIND_TPU"), text.replace('"m"', "7")):
        path.write_text(wrong)
        with pytest.raises(Exception, match=r"no field named|no value named|has no value|Expected|expected"):
            parsed(path)
