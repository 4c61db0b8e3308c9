"""An HTTP server on the loopback address, as good or as bad as a test wants it."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """What the server answers for one path.

    Attributes:
        content: The bytes of the file.
        ranges: Whether the server resumes.
        tag: The entity tag; empty for none.
        dies_after: Byte counts after which the answers end, one for each answer to GET; later
            answers are whole.
        length: The declared length, where it is not that of the content; None declares none.
        status: Another status than 200.
        location: Where the page redirects to.
        kind: The content type.
        hangs: Whether the server sends nothing.
        waits: Whether the server keeps the connection open at the end of an answer.
    """

    content: bytes = b""
    ranges: bool = True
    tag: str = '"1"'
    dies_after: list[int] = field(default_factory=list)
    length: int | None = -1
    status: int = 200
    location: str = ""
    kind: str = "application/zip"
    hangs: bool = False
    waits: bool = False


@dataclass
class Web:
    """The server.

    Attributes:
        url: Address of its root.
        pages: Pages by path; a path without a page is not found.
        asked: Method, path and range of every request.
    """

    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def gets(self) -> list[str]:
        """Return the range of every GET."""
        return [given for method, _, given in self.asked if method == "GET"]


@contextmanager
def serving() -> Iterator[Web]:
    """Serve pages on the loopback address within a block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(False)

        def do_GET(self) -> None:
            self._answer(True)

        def _answer(self, with_body: bool) -> None:
            given = self.headers.get("Range", "")
            web.asked.append((self.command, self.path, given))
            page = web.pages.get(self.path, Page(status=404, kind="text/html"))
            if page.hangs and with_body:
                web.stop.wait(20)
                return
            self.close_connection = True
            content, begin = page.content, 0
            status = page.status
            match = re.fullmatch(r"bytes=(\d+)-", given)
            wanted = self.headers.get("If-Range", page.tag) == page.tag
            if status == 200 and match and page.ranges and wanted:
                begin, status = int(match[1]), 206 if int(match[1]) < len(content) else 416
            self.send_response(status)
            if page.location:
                self.send_header("Location", page.location)
            if status == 206:
                total = f"bytes {begin}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", total)
            if page.tag:
                self.send_header("ETag", page.tag)
            self.send_header("Content-Type", page.kind)
            self.send_header("Connection", "close")
            body = content[begin:]
            if page.length is not None:
                length = len(body) if page.length < 0 else page.length
                self.send_header("Content-Length", str(length))
            self.end_headers()
            if with_body and status in (200, 206):
                dies = page.dies_after.pop(0) if page.dies_after else len(body)
                self.wfile.write(body[:dies])
                if page.waits:
                    self.wfile.flush()
                    web.stop.wait(60)

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Stay silent where a client breaks a connection off."""

    server = Server(("127.0.0.1", 0), Handler)
    web = Web(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield web
    finally:
        web.stop.set()
        server.shutdown()
        thread.join()
        server.server_close()
