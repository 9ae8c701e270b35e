"""The stand-in for S3, Kinesis and DynamoDB: moto in a process of its own, `python -m app.local.services.aws --port N`.

It adds to moto's own server: HTTP/1.1 connections that stay open (a call takes a tenth of the time); one call at a time for
each service, so that of fifty conditional PUTs of one key exactly one wins; the right Date header in each answer; and
objects that stay in memory. It has no disk: when it ends, all its data is gone. It can fail on demand
(`app.local.services.aws_faults`). It serves programs only, no web pages (`app.local.callers`).
"""

import argparse
import io
import logging
import os
import signal
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

os.environ.setdefault("MOTO_S3_DEFAULT_KEY_BUFFER_SIZE", str(1 << 40))  # objects never spill into temporary files
os.environ.setdefault("MOTO_DISABLE_GLOBAL_CORS", "true")

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, make_server

from app.errors import LocalStackError
from app.local.callers import refusal
from app.local.services import aws_behaviour
from app.local.services.aws_faults import FAULTS_PATH, AwsFaults, FaultAnswer, operation_of
from app.local.stack.aws_state import BUCKETS_PATH

CONTROL_PATHS: Final = "/moto-api/"
"""Requests below this path change or show the stand-in itself: only programs of this machine may send them."""
HEALTH_PATH: Final = "/moto-api/health"
_PLAIN: Final = [("Content-Type", "text/plain")]
_OWN_HEADERS: Final = frozenset({"date", "server", "connection", "content-length", "transfer-encoding"})


class Serialised:
    """moto behind one lock a service: its backends use no lock for their dicts."""

    def __init__(self) -> None:
        self._dispatch = DomainDispatcherApplication(create_backend_app)
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self._choosing = threading.Lock()
        self.faults = AwsFaults()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """The whole answer; the caller has read the request's body before."""
        service = self._dispatch.get_application(environ)
        with self._choosing:
            lock = self._locks[id(service)]
        with lock:
            answer = service(environ, start_response)
            try:
                return [b"".join(answer)]
            finally:
                if hasattr(answer, "close"):
                    answer.close()


class StandinHandler(MotoRequestHandler):
    """One connection: reads a request whole, answers it whole, and waits for the next."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 1 << 16

    def run_wsgi(self) -> None:
        """Answer one request."""
        environ = self.make_environ()
        length = int(self.headers.get("Content-Length") or 0)
        body = environ["wsgi.input"].read() if "wsgi.input_terminated" in environ else self.rfile.read(length)
        environ.pop("wsgi.input_terminated", None)
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        app: Any = self.server.app
        faults: AwsFaults = app.faults
        path = environ["PATH_INFO"]
        if why := refusal(self.headers, any_host=not path.startswith(CONTROL_PATHS)):
            self._answer(403, _PLAIN, why.encode())
            return
        if path == FAULTS_PATH:
            self._answer(*faults.control(self.command, body))
            return
        if path == HEALTH_PATH:
            self._answer(200, _PLAIN, b"ok")
            return
        if path == BUCKETS_PATH:
            self._answer(200, _PLAIN, "\n".join(aws_behaviour.bucket_names()).encode())
            return
        operation = operation_of(self.command, self.headers.get("X-Amz-Target") or "")
        answer = faults.serve(operation, body, lambda content: _called(app, environ, content))
        if answer is None:
            self._reset()
        else:
            self._answer(*answer)

    def _reset(self) -> None:
        """End the connection without an answer, like a peer that crashed."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())  # at once: the server would say goodbye first

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        is_head = self.command == "HEAD"
        told_length = next((value for name, value in headers if name.lower() == "content-length"), None)
        self.send_response(status)  # sets the Date that collectors compare their clocks with
        for name, value in headers:
            if name.lower() not in _OWN_HEADERS:
                self.send_header(name, value)
        if status not in {204, 304}:
            self.send_header("Content-Length", told_length or "0" if is_head else str(len(content)))
        self.end_headers()
        if content and not is_head:
            self.wfile.write(content)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log no line for every request."""


def _called(app: Serialised, environ: dict[str, Any], body: bytes) -> FaultAnswer:
    """Make a call of moto's."""
    started: list[Any] = []
    own = environ | {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    content = b"".join(app(own, lambda status, headers, *_: started.extend((status, headers))))
    status, headers = started[-2:]
    return FaultAnswer(int(status.split(" ", 1)[0]), headers, content)


def new_server(host: str, port: int) -> BaseWSGIServer:
    """A server that listens already; `serve_forever` answers. Port 0 takes a free one (`server.server_port`)."""
    aws_behaviour.install()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    return make_server(host, port, Serialised(), threaded=True, request_handler=StandinHandler)


def wait_ready(url: str, timeout_s: float = 60) -> None:
    """Return once the stand-in at `url` answers.

    Raises:
        LocalStackError: no answer within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urlopen(url.rstrip("/") + HEALTH_PATH, timeout=5) as answer:
                answer.read()
                return
        except (URLError, OSError) as exc:
            if time.monotonic() > deadline:
                raise LocalStackError(f"the AWS stand-in at {url} does not answer: {exc}") from exc
            time.sleep(0.05)


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m app.local.services.aws", description="stand-in for S3, Kinesis and DynamoDB"
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    arguments = parser.parse_args(argv)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: os._exit(0))  # nothing to save, and freeing it all takes seconds
    server = new_server(arguments.host, arguments.port)
    try:
        server.serve_forever()
    finally:
        server.server_close()


if __name__ == "__main__":
    main()
