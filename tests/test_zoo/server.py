"""A web server on the loopback that serves what a test gives it, as the hub or as a plain server, with faults."""

import re
import socket
import struct
from collections import defaultdict
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread


class Server:
    """Files by path, and for each path the faults of its next GET requests.

    Attributes:
        files (dict[str, bytes]): What is served.
        moved (dict[str, str]): Redirections.
        faults (dict[str, list]): A status code to answer, 'drop' to close after half of what was asked for, 'reset' to
            abort there, or 'slow'; one a request, then none.
        hashes (dict[str, str]): SHA-256 that the hub's answers give for a file, if it is not the true one.
        requests (list[tuple[str, str, str | None]]): Method, path and range of every request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.moved: dict[str, str] = {}
        self.faults: dict[str, list] = defaultdict(list)
        self.hashes: dict[str, str] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        handler = type('Handler', (_Handler,), {'site': self})
        self._server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
        self._server.daemon_threads = True
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def gets(self) -> list[str | None]:
        """The range of every GET request that was for a file itself."""
        return [wanted for method, path, wanted in self.requests if method == 'GET' and path in self.files]


class _Handler(BaseHTTPRequestHandler):
    site: Server
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        site, path, wanted = self.site, self.path, self.headers.get('Range')
        site.requests.append((self.command, path, wanted))
        fault = site.faults[path].pop(0) if body and site.faults[path] else None
        if path in site.moved:
            return self._head(302, 0, Location=site.moved[path])
        if path not in site.files or isinstance(fault, int):
            return self._head(fault if isinstance(fault, int) else 404, 0)
        content = site.files[path]
        start = int(re.match(r'bytes=(\d+)-', wanted)[1]) if wanted else 0
        if start >= len(content):
            return self._head(416, 0)
        part = content[start:]
        partial = {'Content-Range': f'bytes {start}-{len(content) - 1}/{len(content)}'} if wanted else {}
        hub = {}
        if '/resolve/' in path:
            digest = site.hashes.get(path) or sha256(content).hexdigest()
            hub = {'ETag': f'"{digest}"', 'X-Repo-Commit': 'a' * 40, 'X-Linked-Size': str(len(content))}
        self._head(206 if wanted else 200, len(part), **partial, **hub)
        if body:
            self._send(part, fault)
        return None

    def _head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header('Content-Length', str(length))
        self.end_headers()

    def _send(self, part: bytes, fault: str | None) -> None:
        if fault == 'slow':
            step = max(len(part) // 10, 1)
            for start in range(0, len(part), step):
                self.wfile.write(part[start : start + step])
                Event().wait(0.1)
            return
        self.wfile.write(part[: len(part) // 2] if fault else part)
        if fault:
            self.wfile.flush()
            Event().wait(0.2)  # until it has arrived: an abort takes back what has not
            if fault == 'reset':
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            self.connection.close()
            self.close_connection = True
