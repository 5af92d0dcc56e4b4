"""The commands in a process of their own, which knows a hub by the environment alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from hub_server import WRITER, Fault, Hub
from specimens import Zoo

from foveal import SamplingParams, load


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command; progress is on stderr."""
    command = [sys.executable, "-m", "foveal.cli", *map(str, arguments)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(command, capture_output=True, text=True, env={**kept, **environment}, check=False)


def test_from_one_repository_to_another(hub: Hub, checkpoint: dict[str, bytes], tmp_path: Path) -> None:
    """convert, push and generate. Of huggingface_hub's upload through Xet the hub knows nothing."""
    made = hub.add("someone/model", checkpoint, private=True)
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": WRITER,
        "HF_HUB_DISABLE_XET": "1",
    }
    converted = run("convert", "hf:someone/model", tmp_path / "b", **environment)
    assert converted.returncode == 0, converted.stderr
    source = f"hf:someone/model@{made.names['main']}"
    assert f"from {source}, license apache-2.0\n" in converted.stdout
    assert "convert: downloading hf:someone/model, MB, 0 of 1" in converted.stderr
    pushed = run("push", tmp_path / "b", "owner/name", **environment)
    assert pushed.returncode == 0, pushed.stderr
    name = pushed.stdout.split("`foveal generate ")[1].split("`")[0]
    assert name == f"hf:owner/name@{hub.repositories['owner/name'].names['main']}"
    ids = ("--ids", "1 2 3", "--max-new-tokens", "4", "--threads", "1", "--temperature", "0")
    there = run("generate", name, *ids, **environment)
    here = load(tmp_path / "b", threads=1).generate_ids([1, 2, 3], SamplingParams(max_new_tokens=4, temperature=0))
    assert there.stdout.split() == list(map(str, (1, 2, 3, *here))), there.stderr


def test_killed_while_it_downloads(hub: Hub, tmp_path: Path) -> None:
    """Nothing is taken for whole; the next command fetches what is missing, and only that; then the cache is enough."""
    hub.add("owner/name", {"a.bin": b"a" * 100_000, "b.bin": b"b" * 100_000})
    hub.faults.append(Fault("GET /cdn/.*/b.bin", keep_bytes=50_000, stalls=True))
    code = (
        "from foveal.hub.names import hub_name; from foveal.hub.repository import Repository\n"
        "repository = Repository(hub_name('hf:owner/name'))\n"
        "for name in ('a.bin', 'b.bin'): print((repository.fetch([name]) / name).stat().st_size, flush=True)\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as process:
        while not hub.asked_for("GET /cdn/.*/b.bin"):
            time.sleep(0.02)
        process.kill()
    hub.faults.clear()
    hub.asked.clear()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["100000", "100000"]
    assert [line.rpartition("/")[2] for line in hub.asked_for("^GET /cdn/")] == ["b.bin"]
    hub.asked.clear()
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=offline, check=True)
    assert (again.stdout, hub.asked) == (done.stdout, [])


def test_without_huggingface_hub(zoo: Zoo, tmp_path: Path) -> None:
    """Its extra is named, by what needs it alone."""
    bundle = zoo["vanilla"].bundle.path
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from foveal import BackendUnavailable, load\n"
        "from foveal.models.readers.loading import load_model\n"
        "from foveal.hub.push import pack\n"
        f"load({str(bundle)!r}, threads=1)\n"
        f"for command in (load, load_model, lambda name: pack({str(bundle)!r}, name)):\n"
        "    try: command('hf:owner/name')\n"
        "    except BackendUnavailable as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    sentence = "huggingface_hub can't be imported; a name on a model hub needs it: pip install '.[hub]' in foveal's folder"
    assert [line.startswith(sentence) for line in done.stdout.splitlines()] == [True] * 3


def test_the_runtime_imports_no_hub(zoo: Zoo) -> None:
    """Unless a name on one is given."""
    path = str(zoo["vanilla"].bundle.path)
    code = f"import sys, foveal; foveal.load({path!r}, threads=1); print('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
