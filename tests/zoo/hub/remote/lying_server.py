"""A real HTTPS server on the loopback that serves a folder, and lies about some of its files."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

HTML = b"<!DOCTYPE html><html><body>Please log in to the network.</body></html>"


def make_certificate(folder: Path) -> Path:
    """A certificate for the loopback that signs itself, with its key in the same file."""
    path = folder / "server.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(path), "-out", str(folder / "certificate.pem"), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + (folder / "certificate.pem").read_bytes())
    return path


class LyingServer(http.server.ThreadingHTTPServer):
    """Serves `folder`; a path in `lies` is answered by the function there, which gets the handler and the true bytes.

    Attributes:
        folder: Folder that is served.
        lies: Answers by the path of the request, such as `/weights.safetensors`.
        asked: Number of requests by path.
        headers: Headers of the last request by path.
    """

    daemon_threads = True
    handler: type[Handler]

    def __init__(self, folder: Path, certificate: Path) -> None:
        self.folder = folder
        self.lies: dict[str, Lie] = {}
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, dict[str, str]] = {}
        super().__init__(("127.0.0.1", 0), self.handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are what is tested."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: LyingServer

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        self.server.headers[self.path] = dict(self.headers)
        file = self.server.folder / self.path.lstrip("/")
        data = file.read_bytes() if file.is_file() else b""
        if self.path in self.server.lies:
            self.server.lies[self.path](self, data)
        elif file.is_file():
            send(self, data)
        else:
            send(self, b"", 404)

    def log_message(self, *_: object) -> None:
        pass


LyingServer.handler = Handler


@contextlib.contextmanager
def running(server: LyingServer) -> Iterator[LyingServer]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Lie = Callable[[Handler, bytes], None]


def send(handler: Handler, data: bytes, status: int = 200, length: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    handler.end_headers()
    handler.wfile.write(data)
    handler.close_connection = True


# === Lies ===


def cut(handler: Handler, data: bytes) -> None:
    send(handler, data[: len(data) // 2], length=len(data))


def cut_without_a_length(handler: Handler, data: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def too_short(handler: Handler, data: bytes) -> None:
    send(handler, data[:-1])


def too_long(handler: Handler, data: bytes) -> None:
    send(handler, data + b"!")


def changed(handler: Handler, data: bytes) -> None:
    send(handler, data[:-1] + bytes([data[-1] ^ 1]))


def html(handler: Handler, data: bytes) -> None:
    send(handler, HTML)


def endless(handler: Handler, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b"10000\r\n" + bytes(2**16) + b"\r\n")


def slow(handler: Handler, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    with contextlib.suppress(OSError):
        for start in range(0, len(data), len(data) // 50):
            handler.wfile.write(data[start : start + len(data) // 50])
            time.sleep(0.1)


def slow_headers(handler: Handler, data: bytes) -> None:
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(30):
            handler.wfile.write(b"a")
            time.sleep(0.1)
    handler.close_connection = True


def silent(handler: Handler, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    time.sleep(3)
    handler.close_connection = True


def answers(status: int) -> Lie:
    return lambda handler, data: send(handler, b"", status)


def redirected(location: str) -> Lie:
    def lie(handler: Handler, data: bytes) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        handler.close_connection = True

    return lie


def at_first(lie: Lie, times: int = 1) -> Lie:
    """Lies some times, and then tells the truth."""
    left = [times]

    def answer(handler: Handler, data: bytes) -> None:
        left[0] -= 1
        (lie if left[0] >= 0 else send)(handler, data)

    return answer
