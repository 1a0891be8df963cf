"""A bucket on localhost that answers what gcsfs asks: list, stat, get, put, delete."""

import contextlib
import json
import re
import threading
from collections.abc import Collection, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class _Server(ThreadingHTTPServer):
    objects: dict[str, bytes]
    bucket: str
    facts: dict | None
    refused: Collection[str]

    def handle_error(self, *_):
        """A client that hangs up is not an event."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self):
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if url.path == f"/storage/v1/b/{self.server.bucket}":
            return (
                self.answer(200, json.dumps(self.server.facts).encode())
                if self.server.facts
                else self.refuse()
            )
        found = re.fullmatch(
            rf"/(?:download/)?storage/v1/b/{self.server.bucket}/o(?:/(.+))?", url.path
        )
        if found and found[1] is None:
            prefix = query.get("prefix", [""])[0]
            items = [self.describe(name) for name in self.server.objects if name.startswith(prefix)]
            return self.answer(200, json.dumps({"items": items}).encode())
        name = unquote(found[1]) if found else None
        if name not in self.server.objects:
            return self.answer(404, b'{"error": {"code": 404, "message": "not found"}}')
        if "GET" in self.server.refused:
            return self.refuse()
        if query.get("alt") != ["media"]:
            return self.answer(200, json.dumps(self.describe(name)).encode())
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "bytes=0-")
        first, last = int(wanted[1]), int(wanted[2] or len(self.server.objects[name]))
        return self.answer(206, self.server.objects[name][first : last + 1])

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if urlsplit(self.path).path != f"/upload/storage/v1/b/{self.server.bucket}/o":
            return self.answer(404, b'{"error": {"code": 404, "message": "no such bucket"}}')
        if "POST" in self.server.refused:
            return self.refuse()
        _, described, content = body.split(b"\n\n", 2)  # of one multipart message
        name = json.loads(described.partition(b"\n")[0])["name"]
        self.server.objects[name] = content.removesuffix(b"\n--==0==--")
        return self.answer(200, json.dumps(self.describe(name)).encode())

    def do_DELETE(self):
        if "DELETE" in self.server.refused:
            return self.refuse()
        name = unquote(urlsplit(self.path).path).removeprefix(
            f"/storage/v1/b/{self.server.bucket}/o/"
        )
        return self.answer(204 if self.server.objects.pop(name, None) is not None else 404, b"")

    def refuse(self):
        text = "the caller does not have storage.objects access"
        return self.answer(403, json.dumps({"error": {"code": 403, "message": text}}).encode())

    def answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Quiet."""

    def describe(self, name: str) -> dict:
        size = str(len(self.server.objects[name]))
        times = {"timeCreated": "2025-01-01T00:00:00Z", "updated": "2025-01-01T00:00:00Z"}
        about = {"kind": "storage#object", "bucket": self.server.bucket, "name": name}
        return about | {"size": size} | times


@contextlib.contextmanager
def serve(
    objects: dict[str, bytes],
    bucket: str = "bucket",
    facts: dict | None = None,
    refused: Collection[str] = (),
) -> Iterator[str]:
    """Yields the address for ``STORAGE_EMULATOR_HOST``; keys of ``objects`` are names in it.

    Args:
      facts: of the bucket, such as its location; ``None`` = none that one may see.
      refused: methods, as in ``DELETE``, that the caller may not use on objects.
    """

    server = _Server(("127.0.0.1", 0), _Handler)
    server.objects, server.bucket, server.facts, server.refused = objects, bucket, facts, refused
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
