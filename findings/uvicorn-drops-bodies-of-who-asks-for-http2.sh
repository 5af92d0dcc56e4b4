#!/bin/sh
# uvicorn with httptools gives an application an empty body where the client also asks for HTTP/2.
#
# 2026-11-30; Python 3.11, uvicorn 0.54.0, httptools 0.9.0, h11 0.16.0, Linux x86-64.
#
# What one would guess: a server that knows no h2c ignores "Upgrade: h2c" and answers the request as HTTP/1.1 (RFC 9110, 7.8).
#
# What happens: httptools tells llhttp to skip the body of any request with an upgrade, uvicorn logs "Unsupported upgrade request."
# and goes on with none; the application sees a POST of content-length 14 and no byte. With h11 the body is there. curl --http2 and
# java.net.http.HttpClient (HTTP/2 is its default) ask so with every request in clear text, so that a server of JSON says that it
# is malformed, to them alone.
#
# For those who serve POST to any client. The body follows the offset in HttpParserUpgrade; what comes there can be parsed again,
# behind a head without the upgrade. Exits non-zero once the body is there.
set -eu
place=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$place"' EXIT
"${PYTHON:-python3.11}" -m venv "$place/venv"
"$place/venv/bin/pip" install -q uvicorn==0.54.0 httptools==0.9.0 h11==0.16.0
cat > "$place/echo.py" <<'APP'
async def app(scope, receive, send):
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d bytes" % len(body)})
APP
cat > "$place/ask.py" <<'ASK'
import socket, sys, time
for attempt in range(100):
    try:
        connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        break
    except OSError:
        time.sleep(0.1)
connection.sendall(
    b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nContent-Length: 14\r\n\r\n" + b'{"prompt":"a"}'
)
connection.settimeout(5)
answer = connection.recv(65536)
while b"bytes" not in answer:
    answer += connection.recv(65536)
print(next(line for line in answer.decode().split("\r\n") if "bytes" in line))
ASK
port=18473
for http in h11 httptools; do
    (cd "$place" && exec "$place/venv/bin/python" -m uvicorn echo:app --http "$http" --port "$port" --log-level error) &
    server=$!
    found=$("$place/venv/bin/python" "$place/ask.py" "$port")
    kill "$server"; wait "$server" 2>/dev/null || true; server=
    echo "$http: the application read $found of 14"
    port=$((port + 1))
done
[ "$found" = "0 bytes" ]
