"""Arrays out of pickles: all that numpy writes, and nothing that a pickle may want to run."""

from __future__ import annotations

import collections
import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveal import CheckpointError
from foveal.models.readers.numpy_pickle import arrays_in, read_pickle


class Command:
    """Runs a command when it is unpickled, by whatever function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def written(path: Path, saved: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> Path:
    """A pickle of something."""
    path.write_bytes(pickle.dumps(saved, protocol))
    return path


ARRAYS = {
    "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "turned": np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(1, 0, 2),
    "every other": np.arange(10)[::2],
    "from the other end": np.arange(3, dtype=">f4"),
    "half": np.ones(3, np.float16),
    "one": np.array(7.5),
    "none": np.zeros((0, 4), np.float32),
    "bytes": np.arange(3, dtype=np.uint8),
}


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(tmp_path: Path, name: str, protocol: int) -> None:
    """Of any order, in any protocol of Python 3; natively ordered when read."""
    (found,) = arrays_in(read_pickle(written(tmp_path / "p", {"a": ARRAYS[name]}, protocol)))
    np.testing.assert_array_equal(found, ARRAYS[name])
    assert found.dtype == ARRAYS[name].dtype.newbyteorder("=")


def test_old_names_of_numpy(tmp_path: Path) -> None:
    """numpy 1 had `numpy.core` for `numpy._core`."""
    path = tmp_path / "p"
    path.write_bytes(pickle.dumps(np.arange(3.0), 3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert b"numpy.core.multiarray" in path.read_bytes()
    (found,) = arrays_in(read_pickle(path))
    np.testing.assert_array_equal(found, [0, 1, 2])


def test_nesting_and_order(tmp_path: Path) -> None:
    """Tuples, lists and dicts of any kind; empty ones and None hold nothing."""
    saved = [np.array(0), (), {"b": (np.array(1), None), "a": [np.array(2)]}, collections.OrderedDict(x=np.float32(3))]
    saved.append(collections.defaultdict(list, y=[np.array(4)]))
    assert [int(array) for array in arrays_in(read_pickle(written(tmp_path / "p", saved)))] == [0, 1, 2, 3, 4]


def test_gzip(tmp_path: Path) -> None:
    """By its first bytes, not by its name."""
    path = tmp_path / "p"
    path.write_bytes(gzip.compress(pickle.dumps([np.array(5)])))
    assert [int(array) for array in arrays_in(read_pickle(path))] == [5]


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, "touch {}", "posix.system"),
        (eval, "open('{}', 'w')", "builtins.eval"),
        (exec, "open('{}', 'w')", "builtins.exec"),
        (getattr, "{}", "builtins.getattr"),
        (np.load, "{}", "numpy.load"),
        (np.fromfile, "{}", "numpy.fromfile"),
        (np.memmap, "{}", "numpy.memmap"),
    ],
)
def test_what_would_run_something_is_refused_before_it_runs(tmp_path: Path, function: Any, arguments: str, name: str) -> None:
    """The message says what the file wanted."""
    proof = tmp_path / "proof"
    path = written(tmp_path / "p", [np.array(0), Command(function, arguments.format(proof))])
    with pytest.raises(CheckpointError, match=rf"wants to import (numpy\.lib\S*|{name})") as caught:
        read_pickle(path)
    assert "it was not imported" in str(caught.value)
    assert str(path) in str(caught.value)
    assert not proof.exists()


def test_a_name_that_is_reached_through_an_admitted_one(tmp_path: Path) -> None:
    """Nothing is looked up inside modules or classes."""
    for name in (b"dtype.__class__", b"ndarray.tofile"):
        path = tmp_path / "p"
        module = b"\x8c\x05numpy" + b"\x8c" + bytes([len(name)]) + name
        path.write_bytes(b"\x80\x04" + module + b"\x93.")  # STACK_GLOBAL
        with pytest.raises(CheckpointError, match=f"wants to import numpy.{name.decode()}"):
            read_pickle(path)


def test_what_a_file_does_to_what_it_is_given_stays_with_it(tmp_path: Path) -> None:
    """A pickle can set attributes of the functions it is handed; the next file gets others."""
    build = (
        b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93N}\x8c\x0c__defaults__N\x85s\x86b."  # BUILD: (None, {"__defaults__": (None,)})
    )
    spoilt = tmp_path / "spoilt"
    spoilt.write_bytes(build)
    read_pickle(spoilt)
    (found,) = arrays_in(read_pickle(written(tmp_path / "p", np.arange(2.0))))
    np.testing.assert_array_equal(found, [0, 1])


@pytest.mark.parametrize("protocol", [4, 5])
def test_arrays_of_objects(tmp_path: Path, protocol: int) -> None:
    """Whatever they hold."""
    with pytest.raises(CheckpointError, match='holds an array of type "|O8", expected numbers'):
        read_pickle(written(tmp_path / "p", np.array([{}, None], dtype=object), protocol))


def test_an_array_that_lies_about_its_size(tmp_path: Path) -> None:
    """The data must be as long as the shape says."""
    path = tmp_path / "p"
    whole = pickle.dumps(np.arange(6, dtype=np.uint8), 4)
    path.write_bytes(whole.replace(b"K\x06\x85", b"K\x07\x85"))
    assert path.read_bytes() != whole
    with pytest.raises(CheckpointError, match=r"holds an array of shape \(7,\) whose data has another size"):
        read_pickle(path)


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04", b"\x1f\x8b\x08broken", b"\x80\x04\x8c\x05numpyR."])
def test_what_is_no_pickle(tmp_path: Path, content: bytes) -> None:
    """Whatever the unpickler stumbles over."""
    path = tmp_path / "p"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="could not be read as a pickle of arrays"):
        read_pickle(path)


def test_other_things_among_arrays(tmp_path: Path) -> None:
    """Are named by their type."""
    with pytest.raises(CheckpointError, match="a str is among the arrays"):
        list(arrays_in(read_pickle(written(tmp_path / "p", [np.array(1), "x"]))))
