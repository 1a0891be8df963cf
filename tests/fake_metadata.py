"""The metadata server of a Google Cloud VM, on localhost."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ACCOUNT = "123-compute@developer.gserviceaccount.com"


@contextlib.contextmanager
def serve(zone: str = "us-central2-b") -> Iterator[str]:
    """Yields the address for ``GCE_METADATA_HOST``."""
    values = {
        "instance/zone": f"projects/123/zones/{zone}",
        "instance/service-accounts/default/email": ACCOUNT,
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            text = values.get(self.path.removeprefix("/computeMetadata/v1/"))
            code = 404 if text is None else 200
            if self.headers.get("Metadata-Flavor") != "Google":
                code = 403  # so that no web page can ask through a browser on the VM
            self.send_response(code)
            self.end_headers()
            if code == 200:
                self.wfile.write(text.encode())

        def log_message(self, *_):
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
