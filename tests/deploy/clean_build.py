"""A Dockerfile's instructions one by one in a clean Debian, without a container engine: `make deploy-check`, as root on Linux.

    python tests/deploy/clean_build.py BASE BUNDLE [--dockerfile deploy/Dockerfile.cpu] [--share PATH]...

BASE is a file system of Debian with Python, which `debootstrap` makes if it is not there; it stands in for the slim image that
FROM names, and BASE-whole, which has a C++ compiler too, for the whole one. Each stage is a layer over its base, in a mount
namespace of its own: COPY copies what .dockerignore lets through, RUN runs in it. What comes out runs as a container would:
read-only, as its user, with its folders mounted and BUNDLE as /models/model.bundle. It must have native steps, become healthy,
refuse a request without a token, answer one with it, and end when it is told to.

What this does not show: that the image FROM names exists, and what an engine makes of instructions that are not run here.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from dockerfiles import DEPLOY, ROOT, Instruction, context_files, expanded, instructions, pairs

PACKAGES = {"": "python3,python3-venv,ca-certificates", "-whole": "python3,python3-venv,ca-certificates,g++"}
"""Of each base, by how its folder's name ends."""
ALSO_SHARED = ["/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip"]
"""What an engine gives a build, and where this machine says which index pip asks."""
STARTS_IN, ENDS_IN = 120.0, 40.0
TOKEN_FILE, MODEL = "/run/secrets/foveal-token", "/models/model.bundle"


def run(*command: object) -> None:
    """A command that must succeed."""
    subprocess.run([str(part) for part in command], check=True)


def mount(what: Path | str, where: Path, is_read_only: bool = True) -> None:
    """Bind a file or a folder."""
    if Path(what).is_dir():
        where.mkdir(parents=True, exist_ok=True)
    else:
        where.parent.mkdir(parents=True, exist_ok=True)
        where.touch()
    run("mount", "--bind", what, where)
    if is_read_only:
        run("mount", "-o", "remount,bind,ro", where)


class Stage:
    """One stage of a build: a layer over the base."""

    def __init__(self, base: Path, work: Path, shared: list[str]) -> None:
        self.root, self.shell, self.folder = work / "root", ["/bin/sh", "-c"], "/"
        self.values: dict[str, str] = {}
        """Of ARG and ENV."""
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.last: dict[str, str] = {}
        """What the last instruction of each word said."""
        for name in ("root", "upper", "work"):
            (work / name).mkdir(parents=True)
        layers = f"lowerdir={base},upperdir={work / 'upper'},workdir={work / 'work'}"
        run("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        for path in ["/dev", "/proc"]:
            mount(path, self.root / path.lstrip("/"), is_read_only=False)
        for path in [*ALSO_SHARED, *shared]:
            if Path(path).exists():
                mount(path, self.root / path.lstrip("/"))
        (self.root / "usr/local/bin/python").symlink_to("/usr/bin/python3")  # as in Python's images

    def path(self, name: str) -> Path:
        """Where a path of the stage is on this machine."""
        return self.root / os.path.normpath(os.path.join(self.folder, name)).lstrip("/")

    def command(self, arguments: list[str], user: str = "0:0") -> list[str]:
        """What runs a command in it."""
        into = f"cd {shlex.quote(self.folder)} && exec {shlex.join(arguments)}"
        environment = [f"{name}={value}" for name, value in self.environment.items()]
        return ["chroot", f"--userspec={user}", str(self.root), "env", "-i", *environment, "/bin/sh", "-c", into]


def build(dockerfile: Path, base: Path, work: Path, shared: list[str]) -> Stage:
    """Carry all instructions out; returns the last stage."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    everywhere: dict[str, str] = {}
    for one in instructions(dockerfile):
        print(f"{one.word:12} {one.rest[:110]}", flush=True)
        if one.word == "FROM":
            name = one.rest.split(" AS ")[-1] if " AS " in one.rest else str(len(stages))
            own = base if "-slim" in one.rest else base.with_name(f"{base.name}-whole")
            stage = stages[name] = Stage(own, work / name, shared)
            stage.values |= everywhere
        elif stage is None:
            everywhere |= pairs(one.rest)
        else:
            carry_out(one, stage, stages)
    assert stage is not None, "no FROM"
    return stage


def carry_out(one: Instruction, stage: Stage, stages: dict[str, Stage]) -> None:
    """One instruction of a stage."""
    if one.word in ("ARG", "ENV"):
        found = {name: expanded(value, stage.values | stage.environment) for name, value in pairs(one.rest).items()}
        (stage.values if one.word == "ARG" else stage.environment).update(found)
    elif one.word == "SHELL":
        stage.shell = json.loads(one.rest)
    elif one.word == "WORKDIR":
        stage.folder = expanded(one.rest, stage.values)
        stage.path(".").mkdir(parents=True, exist_ok=True)
    elif one.word == "COPY":
        copy(one, stage, stages)
    elif one.word == "RUN":
        given = [f"{name}={value}" for name, value in stage.values.items()]
        run(*stage.command(["env", *given, *pip_settings(), *stage.shell, one.rest]))
    stage.last[one.word] = one.rest


def copy(one: Instruction, stage: Stage, stages: dict[str, Stage]) -> None:
    """From another stage, or all of the context."""
    source, target = one.rest.split()
    if "from" in one.flags:
        shutil.copytree(stages[one.flags["from"]].path(source), stage.path(target), symlinks=True)
        return
    assert source == ".", "only the whole context is copied here"
    for name in context_files():
        where = stage.path(target) / name
        where.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, where)


def pip_settings() -> list[str]:
    """Where pip finds packages on this machine."""
    return [f"{name}={value}" for name, value in os.environ.items() if name.startswith("PIP_")]


def find_native_steps(stage: Stage) -> None:
    """The image computes its decode steps itself, and has nothing to build them with."""
    code = "from foveal.runtime.engines.native_library import native_library; print(native_library().isa)"
    done = subprocess.run(stage.command(["python", "-c", code]), check=True, capture_output=True, text=True)
    assert not [name for name in ("g++", "c++", "cc") if (stage.root / "usr/bin" / name).exists()]
    print(f"ok           native steps: {done.stdout.strip()}; no compiler")


def serve(stage: Stage, bundle: Path, work: Path) -> None:
    """Run what the image runs, as a container would, and ask it."""
    token, port = secrets.token_hex(16), free_port()
    (work / "token").write_text(token + "\n")
    os.chmod(work / "token", 0o444)
    mount(work / "token", stage.root / TOKEN_FILE.lstrip("/"))
    mount(bundle, stage.root / MODEL.lstrip("/"))
    user = stage.last["USER"]
    number, group = user.split(":")
    for folder in ("tmp", "var/cache/foveal", "var/lib/foveal"):
        (stage.root / folder).mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", f"uid={number},gid={group},mode=0700", "tmpfs", stage.root / folder)
    run("mount", "-o", "remount,ro", stage.root)
    shown = [*json.loads(stage.last["ENTRYPOINT"]), *json.loads(stage.last["CMD"])]
    default = shown[shown.index("--port") + 1]
    moved = {"0.0.0.0": "127.0.0.1", default: str(port)}
    command = [moved.get(part, part) for part in shown] + ["--store", "/var/lib/foveal/sessions"]
    health = json.loads(stage.last["HEALTHCHECK"].split("CMD", 1)[1].replace(f":{default}/", f":{port}/"))
    print("runs        ", shlex.join(command), f"as {user}, its root read-only", flush=True)
    process = subprocess.Popen(stage.command(command, user))
    try:
        ask(process, stage.command(health, user), port, token)
    finally:
        process.kill()


def ask(process: subprocess.Popen[bytes], health: list[str], port: int, token: str) -> None:
    """All that a container's owner would look at first."""
    began = time.monotonic()
    while subprocess.run(health, stderr=subprocess.DEVNULL).returncode or status(port, "/ready")[0] != 200:
        assert process.poll() is None, f"the server ended by itself with {process.returncode}"
        assert time.monotonic() - began < STARTS_IN, "the server did not become healthy and ready"
        time.sleep(0.2)
    print(f"ok           healthy and ready after {time.monotonic() - began:.1f} s")
    body = {"model": "model", "prompt": "It was", "max_tokens": 8, "temperature": 0, "session": "first"}
    assert status(port, "/v1/completions", body)[0] == 401
    print("ok           refuses a request without its token")
    code, answer = status(port, "/v1/completions", body, token)
    assert code == 200, answer
    print("ok           answers one with it:", json.loads(answer)["choices"][0]["text"].strip())
    assert status(port, "/metrics")[0] == 200
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(ENDS_IN) == 0, process.returncode
    print(f"ok           ends with 0, {time.monotonic() - began:.1f} s after SIGTERM")


def status(port: int, path: str, body: object = None, token: str = "") -> tuple[int, str]:
    """Of a request to the server on this machine; 0: there is none yet."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers), timeout=30
        ) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Build, and run what was built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--dockerfile", type=Path, default=DEPLOY / "Dockerfile.cpu")
    parser.add_argument(
        "--share", action="append", default=[], help="a path of this machine that pip needs, as an index in a folder"
    )
    parser.add_argument("--mirror", default="", help="where debootstrap finds Debian's packages")
    parser.add_argument("--build-only", action="store_true", help="run nothing that was built")
    given = parser.parse_args()
    if os.geteuid() != 0 or sys.platform != "linux":
        sys.exit("clean_build.py mounts file systems: run it as root, on Linux")
    if "FOVEAL_UNSHARED" not in os.environ:  # all mounts vanish with the process
        os.execvpe("unshare", ["unshare", "--mount", sys.executable, *sys.argv], {**os.environ, "FOVEAL_UNSHARED": "1"})
    for ending, packages in PACKAGES.items():
        base = given.base.with_name(given.base.name + ending)
        if not (base / "usr/bin/python3").exists():
            run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", base, *filter(None, [given.mirror]))
    with tempfile.TemporaryDirectory(prefix="foveal-build-", ignore_cleanup_errors=True) as folder:
        stage = build(given.dockerfile, given.base.resolve(), Path(folder), given.share)
        size = sum(path.lstat().st_size for path in stage.path("/opt/foveal").rglob("*"))
        print(f"ok           built: {size / 1e6:.0f} MB in /opt/foveal")
        if given.dockerfile.suffix == ".cpu":
            find_native_steps(stage)
        if not given.build_only:
            serve(stage, given.bundle.resolve(), Path(folder))
        subprocess.run(["umount", "-R", "-l", *[str(root) for root in Path(folder).glob("*/root")]])


if __name__ == "__main__":
    main()
