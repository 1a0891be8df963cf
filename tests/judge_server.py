"""A judge's endpoint in this process, for the OpenAI and the Gemini client: it can fail at will."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What it does with a prompt: a reply's text, or (status, headers, body as text).
Answer = Callable[[str], str | tuple[int, dict[str, str], str]]


class Server:
    """``prompts``: of all requests that were answered with a reply; ``requests``: of all."""

    def __init__(self, answer: Answer):
        self.answer = answer
        self.requests: list[str] = []
        self.prompts: list[str] = []
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.lock = threading.Lock()

    def respond(self, path: str, body: dict) -> tuple[int, dict[str, str], str]:
        gemini = "generateContent" in path
        prompt = (
            body["contents"][0]["parts"][0]["text"] if gemini else body["messages"][0]["content"]
        )
        with self.lock:
            self.requests.append(prompt)
            self.bodies.append(body)
            answer = self.answer(prompt)
            if isinstance(answer, tuple):
                return answer
            self.prompts.append(prompt)
        return 200, {}, json.dumps((_gemini if gemini else _openai)(prompt, answer))


def _openai(prompt: str, text: str) -> dict:
    message = {"role": "assistant", "content": text}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


def _gemini(prompt: str, text: str) -> dict:
    return {
        "candidates": [
            {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}
        ],
        "usageMetadata": {
            "promptTokenCount": 100,
            "candidatesTokenCount": 7,
            "thoughtsTokenCount": 3,
        },
    }


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[tuple[Server, str]]:
    """(the server, its address)."""
    server = Server(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.headers.append({k.lower(): v for k, v in self.headers.items()})
            status, headers, text = server.respond(self.path, body)
            data = text.encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
