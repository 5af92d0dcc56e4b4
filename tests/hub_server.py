"""A model hub on this machine: as much of Hugging Face's protocol as reading and writing a repository takes.

Repositories are in memory, each a list of commits and names that lead to them. Large files are at another host (`localhost`
instead of `127.0.0.1`), as the real hub has them, which must not be sent the token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub.file_download
import huggingface_hub.utils._http
import pytest
import yaml
from huggingface_hub import constants

LARGE = re.compile(r"\.(safetensors|bin|pt|pth|gguf|onnx|data|native|gz)$")
WRITER, READER = "hf_writer", "hf_reader"
"""Tokens: of the owner of everything, and of somebody who may read what is public."""


@dataclass
class Repository:
    """Commits by hash, newest last, and branches and tags; files by path."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: Mapping[str, bytes], branch: str = "main", message: str = "") -> str:
        """Make a commit that has exactly these files; its hash."""
        digest = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[digest] = dict(files)
        self.names[branch] = digest
        self.messages.append(message)
        return digest

    def at(self, revision: str) -> str | None:
        """The commit that a revision leads to."""
        return self.names.get(revision) or (revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """The files of a revision."""
        return self.commits[self.names.get(revision, revision)]


@dataclass
class Fault:
    """Answers of requests whose line matches are another: a status with headers, or the body altered or cut short; `stalls`:
    after that the connection stays open, and says nothing more."""

    where: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    keep_bytes: int | None = None
    alter: bool = False
    stalls: bool = False
    times: int = 1_000_000


class Hub:
    """The hub: `url`, its repositories, what it was asked (`"GET /path"`), and what is wrong with it."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.faults: list[Fault] = []
        self.url = ""

    def add(self, name: str, files: Mapping[str, bytes], **settings: Any) -> Repository:
        """A repository with one commit."""
        repository = self.repositories[name] = Repository(**settings)
        repository.commit(files)
        return repository

    def asked_for(self, pattern: str) -> list[str]:
        """Requests that match."""
        return [line for line, _ in self.asked if re.search(pattern, line)]

    def fetched(self) -> set[str]:
        """Paths of files whose contents were sent."""
        found = (re.fullmatch(r"GET /[^/]+/[^/]+/resolve/[^/]+/(.+)", line) for line, _ in self.asked)
        return {unquote(match[1]) for match in found if match}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16  # heads and bodies in one piece, or a client waits 40 ms for the second
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        self.body = self._read_body()
        self.path_only, self.token = unquote(urlsplit(self.path).path), None
        if (given := self.headers.get("Authorization")) is not None:
            self.token = given.removeprefix("Bearer ")
        line = f"{self.command} {self.path_only}"
        self.hub.asked.append((line, self.token))
        self.fault = next((fault for fault in self.hub.faults if fault.times > 0 and re.search(fault.where, line)), None)
        if self.fault is not None:
            self.fault.times -= 1
            if self.fault.status is not None:
                self._say(self.fault.status, {"error": "as you like it"}, self.fault.headers)
                return
        for method, pattern, answer in ROUTES:
            if self.command in method and (found := re.fullmatch(pattern, self.path_only)):
                if "id" in found.groupdict() and not self._may(found["id"]):
                    return
                answer(self, **found.groupdict())
                return
        self._say(404, {"error": f"no such page: {line}"})

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _may(self, name: str) -> bool:
        if self.token not in (None, WRITER, READER):
            self._say(
                401,
                {"error": "Invalid username or password."},
                {"X-Error-Message": "Invalid credentials in Authorization header"},
            )
            return False
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and self.token != WRITER):
            self._say(401 if self.token is None else 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return False
        if repository.gated and "/resolve/" in self.path and self.token != WRITER:
            self._say(401 if self.token is None else 403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
            return False
        if self.command == "POST" and self.token != WRITER:
            self._say(403, {"error": "You don't have the rights"}, {"X-Error-Message": "you don't have the rights to write"})
            return False
        return True

    def _say(self, status: int, document: object, headers: Mapping[str, str] = {}) -> None:
        self._send(status, json.dumps(document).encode(), {"Content-Type": "application/json", **headers})

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        fault = self.fault if status in (200, 206) else None
        if fault is not None and fault.alter:
            data = bytes(255 - byte for byte in data)
        if fault is not None and fault.keep_bytes is not None:
            self.wfile.write(data[: fault.keep_bytes])
            self.wfile.flush()
            if fault.stalls:
                self.connection.recv(1)  # until the client goes away
            self.close_connection = True
            return
        self.wfile.write(data)

    def _commit(self, id: str, revision: str) -> str | None:
        commit = self.hub.repositories[id].at(revision)
        if commit is None:
            self._say(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def info(self, id: str, revision: str | None = None) -> None:
        """What a repository is."""
        if (commit := self._commit(id, revision or "main")) is None:
            return
        repository = self.hub.repositories[id]
        siblings = [{"rfilename": path} for path in repository.commits[commit]]
        gated = "manual" if repository.gated else False
        self._say(
            200, {"id": id, "sha": commit, "private": repository.private, "gated": gated, "siblings": siblings, "tags": []}
        )

    def tree(self, id: str, revision: str) -> None:
        """Its files."""
        if (commit := self._commit(id, revision)) is not None:
            self._say(200, [_entry(path, data) for path, data in self.hub.repositories[id].commits[commit].items()])

    def refs(self, id: str) -> None:
        """Its branches."""
        names = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha}
            for name, sha in self.hub.repositories[id].names.items()
        ]
        self._say(200, {"branches": names, "tags": [], "converts": []})

    def file(self, id: str, revision: str, path: str) -> None:
        """A file; a large one is elsewhere."""
        if (commit := self._commit(id, revision)) is None:
            return
        data = self.hub.repositories[id].commits[commit].get(path)
        if data is None:
            self._say(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_etag(path, data)}"'}
        if LARGE.search(path):
            self.hub.objects[_etag(path, data)] = data
            place = self.hub.url.replace("127.0.0.1", "localhost") + f"/cdn/{_etag(path, data)}/{path.rpartition('/')[2]}"
            linked = {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(data)), "Location": place}
            self._send(302, b"", {**headers, **linked})
        else:
            self._send(200, data, headers)

    def stored(self, oid: str, name: str) -> None:
        """A large file, or the rest of it."""
        data = self.hub.objects[oid]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked:
            begin = int(asked[1])
            self._send(206, data[begin:], {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"})
        else:
            self._send(200, data, {})

    def create(self) -> None:
        """Make a repository."""
        if self.token != WRITER:
            self._say(401, {"error": "no"}, {"X-Error-Message": "you don't have the rights to create a model"})
            return
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            self._say(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
            return
        self.hub.add(
            name,
            {".gitattributes": b"*.onnx filter=lfs\n"},
            private=asked.get("visibility") == "private" or bool(asked.get("private")),
        )
        self._say(200, {"url": f"{self.hub.url}/{name}", "name": name, "id": "1"})

    def branch(self, id: str, branch: str) -> None:
        """Make a branch."""
        repository = self.hub.repositories[id]
        if branch in repository.names:
            self._say(409, {"error": "Reference already exists"})
            return
        repository.names[branch] = repository.names["main"]
        self._say(200, {})

    def preupload(self, id: str, revision: str) -> None:
        """Which files are large."""
        files = [file["path"] for file in json.loads(self.body)["files"]]
        modes = [
            {"path": path, "uploadMode": "lfs" if LARGE.search(path) else "regular", "shouldIgnore": False} for path in files
        ]
        if self._commit(id, revision) is not None:
            self._say(200, {"files": modes})

    def batch(self, id: str) -> None:
        """Where large files go; none for those that are there."""
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            oid = wanted["oid"]
            upload = {
                "actions": {
                    "upload": {"href": f"{self.hub.url}/lfs/{oid}"},
                    "verify": {"href": f"{self.hub.url}/lfs-verify/{id}"},
                }
            }
            objects.append({"oid": oid, "size": wanted["size"], **({} if oid in self.hub.objects else upload)})
        self._say(200, {"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        """Take a large file, if it is the one that was announced."""
        if hashlib.sha256(self.body).hexdigest() != oid:
            self._say(400, {"error": "another hash"})
            return
        self.hub.objects[oid] = self.body
        self._say(200, {})

    def verify(self, id: str) -> None:
        """Whether a large file is there."""
        self._say(200 if json.loads(self.body)["oid"] in self.hub.objects else 404, {})

    def commit(self, id: str, revision: str) -> None:
        """Files come and go, all or none."""
        lines = [json.loads(line) for line in self.body.splitlines()]
        repository, header = self.hub.repositories[id], lines[0]["value"]
        if header.get("parentCommit") not in (None, repository.at(revision)):
            self._say(412, {"error": "A commit has happened since. Please refresh and try again."})
            return
        files = dict(repository.files(revision))
        for line in lines[1:]:
            key, value = line["key"], line["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                del files[value["path"]]
        commit = repository.commit(files, revision, header["summary"])
        self._say(200, {"commitUrl": f"{self.hub.url}/{id}/commit/{commit}", "commitOid": commit, "hookOutput": ""})

    def validate(self) -> None:
        """Whether the metadata of a card is YAML with the keys that a hub knows."""
        _, metadata, _ = json.loads(self.body)["content"].split("---\n", 2)
        errors = [] if isinstance(yaml.safe_load(metadata), dict) else [{"message": "no metadata"}]
        self._say(400 if errors else 200, {"errors": errors, "warnings": []})


ID, REVISION = r"(?P<id>[^/]+/[^/]+?)", r"(?P<revision>refs/pr/\d+|[^/]+)"
ROUTES = (
    ("GET", rf"/api/models/{ID}", Handler.info),
    ("GET", rf"/api/models/{ID}/revision/{REVISION}", Handler.info),
    ("GET", rf"/api/models/{ID}/tree/{REVISION}/?", Handler.tree),
    ("GET", rf"/api/models/{ID}/refs", Handler.refs),
    ("GET HEAD", rf"/{ID}/resolve/{REVISION}/(?P<path>.+)", Handler.file),
    ("GET", r"/cdn/(?P<oid>[^/]+)/(?P<name>.+)", Handler.stored),
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", rf"/api/models/{ID}/branch/(?P<branch>.+)", Handler.branch),
    ("POST", rf"/api/models/{ID}/preupload/{REVISION}", Handler.preupload),
    ("POST", rf"/{ID}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/lfs/(?P<oid>.+)", Handler.store),
    ("POST", rf"/lfs-verify/{ID}", Handler.verify),
    ("POST", rf"/api/models/{ID}/commit/{REVISION}", Handler.commit),
    ("POST", r"/api/validate-yaml", Handler.validate),
)


def _etag(path: str, data: bytes) -> str:
    if LARGE.search(path):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if LARGE.search(path):
        entry["lfs"] = {"oid": _etag(path, data), "size": len(data), "pointerSize": 134}
    return entry


@contextmanager
def serving() -> Iterator[Hub]:
    """Run a hub in a thread."""
    hub = Hub()
    handler = type("Bound", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def at_hand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, which is the only one that huggingface_hub knows, with an empty cache; nobody waits between two tries."""
    with serving() as hub:
        for name, value in {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(folder / "cache"),
            "HF_TOKEN_PATH": str(folder / "token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(constants, name, value)
        no_sleep = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
        monkeypatch.setattr(huggingface_hub.utils._http, "time", no_sleep)
        monkeypatch.setattr(huggingface_hub.file_download, "time", no_sleep)
        yield hub
