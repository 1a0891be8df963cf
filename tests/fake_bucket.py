"""A bucket on localhost that can be written to: the part of Cloud Storage's JSON API that gcsfs,
Google's client and TensorStore use. Every object has a generation, and conditions on it hold."""

import contextlib
import dataclasses
import itertools
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import gcsfs
import pytest
from etils.epath import backend

NAME = "bucket"
Answer = tuple[int, bytes, dict[str, str]]
Refuses = Callable[[str, str], int | None]


@dataclasses.dataclass
class Bucket:
    """What lies in it.

    Attributes:
      objects: name to content and generation.
      refuses: asked before each request, with its method and address: the status to answer with,
        or ``None`` to serve it.
      log: what each request that changed something did, and the name, in order.
    """

    objects: dict[str, tuple[bytes, int]] = dataclasses.field(default_factory=dict)
    refuses: Refuses = lambda method, address: None
    log: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    host: str = ""
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    uploads: dict[str, tuple[str, dict, bytearray]] = dataclasses.field(default_factory=dict)
    _count: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1000))

    def names(self, prefix: str = "") -> list[str]:
        with self.lock:
            return sorted(name for name in self.objects if name.startswith(prefix))

    def text(self, name: str) -> str:
        with self.lock:
            return self.objects[name][0].decode()

    @property
    def environment(self) -> dict[str, str]:
        """What sends the three clients here, and keeps them from asking for credentials."""
        return {
            "STORAGE_EMULATOR_HOST": self.host,
            "TENSORSTORE_GCS_HTTP_URL": self.host,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks over gRPC what kind it is
            "NO_GCE_CHECK": "true",
            "GCE_METADATA_ROOT": self.host.removeprefix("http://"),
        }

    def get(self, name: str, query: dict, wanted: str) -> Answer:
        if name not in self.objects:
            return _error(404, f"No such object: {NAME}/{name}")
        content, generation = self.objects[name]
        if failed := self._condition(name, query):
            return failed
        if query.get("alt") != "media":
            return _json(self._about(name))
        headers = {"x-goog-generation": str(generation), "x-goog-storage-class": "STANDARD"}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        if not found:
            return 200, content, headers
        first, last = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
        if first >= len(content):
            return _error(416, "no such range")
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return 206, content[first : last + 1], headers

    def list(self, query: dict) -> Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items, folders = [], set()
        for name in sorted(self.objects):
            inside = query.get("startOffset", "") <= name < query.get("endOffset", "\U0010ffff")
            if not name.startswith(prefix) or not inside:
                continue
            head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if cut:
                folders.add(prefix + head + delimiter)
            else:
                items.append(self._about(name))
        begun = int(query.get("pageToken", 0))
        end = begun + int(query.get("maxResults", 1000))
        more = {"nextPageToken": str(end)} if end < len(items) else {}
        found = {"kind": "storage#objects", "items": items[begun:end], "prefixes": sorted(folders)}
        return _json(found | more)

    def put(self, name: str, content: bytes, query: dict) -> Answer:
        if failed := self._condition(name, query):
            return failed
        self.objects[name] = bytes(content), next(self._count)
        self.log.append(("put", name))
        return _json(self._about(name))

    def delete(self, name: str, query: dict) -> Answer:
        if name not in self.objects:
            return _error(404, f"No such object: {NAME}/{name}")
        if failed := self._condition(name, query):
            return failed
        del self.objects[name]
        self.log.append(("delete", name))
        return 204, b"", {}

    def begin(self, name: str, query: dict) -> Answer:
        key = str(next(self._count))
        self.uploads[key] = name, query, bytearray()
        return 200, b"", {"Location": f"{self.host}/session/{key}"}

    def resume(self, key: str, content: bytes, place: str) -> Answer:
        name, query, begun = self.uploads[key]
        begun += content
        if place.endswith("/*"):  # more is to come
            return 308, b"", {"Range": f"bytes=0-{len(begun) - 1}"}
        return self.put(name, begun, query)

    def _condition(self, name: str, query: dict) -> Answer | None:
        there = str(self.objects[name][1] if name in self.objects else 0)
        if query.get("ifGenerationMatch", there) != there:
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        if query.get("ifGenerationNotMatch") == there:
            return 304, b"", {}
        return None

    def _about(self, name: str) -> dict:
        content, generation = self.objects[name]
        return {
            "kind": "storage#object",
            "bucket": NAME,
            "name": name,
            "size": str(len(content)),
            "generation": str(generation),
            "metageneration": "1",
            "timeCreated": "2025-01-01T00:00:00Z",
            "updated": "2025-01-01T00:00:00Z",
        }


def _json(value: dict) -> Answer:
    return 200, json.dumps(value).encode(), {}


def _error(code: int, message: str) -> Answer:
    return code, json.dumps({"error": {"code": code, "message": message}}).encode(), {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def _serve(self) -> None:
        body = self._body()
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        code = self.bucket.refuses(self.command, unquote(self.path))
        if code:
            answer = _error(code, {403: "no permission", 429: "too fast"}.get(code, "no"))
        else:
            with self.bucket.lock:
                answer = self._route(url.path, query, body)
        self._answer(*answer)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _route(self, path: str, query: dict, body: bytes) -> Answer:
        bucket, method = self.bucket, self.command
        if found := re.fullmatch(r"/session/(\d+)", path):
            return bucket.resume(found[1], body, self.headers.get("Content-Range", ""))
        found = re.fullmatch(r"(/upload|/download)?/storage/v1/b/([^/]+)(/o(?:/(.+))?)?", path)
        if not found or found[2] != NAME:
            return _error(404, "The specified bucket does not exist.")
        if not found[3]:
            return _json({"kind": "storage#bucket", "name": NAME, "location": "US-CENTRAL1"})
        if found[1] == "/upload":
            return self._upload(query, body)
        name = unquote(found[4] or "")
        if method == "POST":
            return self._copy(found[4])
        if method == "DELETE":
            return bucket.delete(name, query)
        return (
            bucket.get(name, query, self.headers.get("Range", "")) if name else bucket.list(query)
        )

    def _upload(self, query: dict, body: bytes) -> Answer:
        kind = query.get("uploadType")
        if kind == "media":
            return self.bucket.put(query["name"], body, query)
        if kind == "resumable":
            name = query.get("name") or json.loads(body)["name"]
            return self.bucket.begin(name, query)
        boundary = self.headers["Content-Type"].partition("boundary=")[2].strip("\"'").encode()
        _, about, content, _ = body.split(b"--" + boundary, 3)
        name = json.loads(re.split(rb"\r?\n\r?\n", about, maxsplit=1)[1])["name"]
        content = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[1]
        return self.bucket.put(name, re.sub(rb"\r?\n\Z", b"", content), query)

    def _copy(self, words: str) -> Answer:
        source, to, target = re.fullmatch(
            rf"([^/]+)/(rewriteTo|moveTo)/(?:b/{NAME}/)?o/([^/]+)", words
        ).groups()
        source, target = unquote(source), unquote(target)
        if source not in self.bucket.objects:
            return _error(404, f"No such object: {NAME}/{source}")
        content, _ = self.bucket.objects[source]
        answer = self.bucket.put(target, content, {})
        if to == "moveTo":
            self.bucket.delete(source, {})
            return answer
        return _json({"done": True, "resource": json.loads(answer[1])})

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Quiet."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """A client that hangs up is not an event."""


@contextlib.contextmanager
def serve() -> Iterator[Bucket]:
    """An empty bucket, ``gs://bucket``; see ``Bucket.environment``."""
    bucket = Bucket()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"bucket": bucket}))
    bucket.host = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def server():
    """One for a module: the clients keep their first address."""
    with serve() as bucket, pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.environment.items():
            patch.setenv(name, value)
        _forget()
        yield bucket
    _forget()


@pytest.fixture
def bucket(server):
    """That, empty."""
    server.objects.clear()
    server.log.clear()
    yield server
    server.refuses = lambda method, address: None


def _forget() -> None:
    backend.fsspec_backend._get_filesystem.cache_clear()
    gcsfs.GCSFileSystem.clear_instance_cache()
    if utils := sys.modules.get("orbax.checkpoint._src.path.gcs_utils"):
        utils.get_bucket.cache_clear()
