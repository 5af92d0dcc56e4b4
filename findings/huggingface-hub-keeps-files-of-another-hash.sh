#!/bin/sh
# huggingface_hub takes any contents of the right size for a file of a repository, and calls them by the hash of the right ones.
#
# 2026-11-30; Python 3.11, huggingface_hub 2.4.0, Linux x86-64.
#
# What one would guess: the hub says the SHA-256 of a large file (`X-Linked-Etag`), the cache stores it as `blobs/<SHA-256>`, so what
# was downloaded is hashed before it gets that name.
#
# What happens: over plain HTTP (`HF_HUB_DISABLE_XET=1`, a mirror, or no hf_xet) sizes alone are compared. A proxy or mirror that alters a
# byte leaves a blob whose name is a lie; every later call, offline too, takes it as it is, without asking.
#
# For those who load weights from the cache: `hf cache verify` hashes it afterwards; or hash the files whose links lead to a name of 64
# digits. Exits non-zero once the download fails.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3.11}" -m venv "$place/venv"
"$place/venv/bin/pip" install -q huggingface_hub==2.4.0
cat > "$place/show.py" <<'SHOW'
import hashlib, os, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

right, sent, commit = b"right" * 1000, b"wrong" * 1000, "c" * 40


class Hub(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        for name, value in {
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{hashlib.sha256(right).hexdigest()}"',
            "X-Linked-Size": str(len(right)),
            "Content-Length": str(len(sent)),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(sent)

    do_HEAD = do_GET
    log_message = lambda *_: None


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": sys.argv[1], "HF_HUB_DISABLE_XET": "1"}
os.environ.pop("HF_TOKEN", None)

from huggingface_hub import hf_hub_download

path = hf_hub_download("owner/name", "model.safetensors")
blob = os.path.basename(os.path.realpath(path))
found = hashlib.sha256(open(path, "rb").read()).hexdigest()
print(f"stored as {blob[:12]}..., holds {found[:12]}...")
sys.exit(blob == found)
SHOW
"$place/venv/bin/python" "$place/show.py" "$place/home"
