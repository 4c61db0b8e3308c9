"""Downloads a file over HTTP: resumed after an interruption, checked, and moved into place whole.

Neither torchvision's nor TorchGeo's ``download_url`` resumes, and torchvision's falls back from
https to http. So the standard library's opener is used here, with bounds of our own.
"""

import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from rscl_bench.atomic import sync_folder, write_atomic
from rscl_bench.errors import ArchiveError, ArtefactError, shown
from rscl_bench.progress import Progress
from rscl_bench.scratch import locked

_BLOCK = 2**20
_MEGABYTE = 10**6
#: Seconds without an answer after which a connection is given up.
TIMEOUT = 60.0
#: Attempts in a row that bring nothing new before a download is given up, and the first pause
#: between two of them in seconds; every further pause is twice as long.
ATTEMPTS, PAUSE = 4, 2.0
#: Kinds of digests, the strongest first.
DIGESTS = ("sha512", "sha256", "sha1", "md5")
_AGAIN = "the same command resumes the download"


class DownloadError(ArchiveError):
    """A file cannot be downloaded."""


class _BrokenError(Exception):
    """A connection failed in a way that another attempt may mend."""


@dataclass(frozen=True)
class RemoteFile:
    """A file that its publisher serves without a login.

    Attributes:
        url: Where the file is.
        path: Where it belongs below the archive's folder, with ``/`` between folders.
        digest: Its digest, such as ``sha256:...``, of one of `DIGESTS`; empty if none is known.
        size: Its number of bytes, or None where unknown.
        unpack_into: Folder below the archive's folder to unpack it into, ``"."`` for the archive's
            folder itself; None for a file that is used as it is.
    """

    url: str
    path: str
    digest: str = ""
    size: int | None = None
    unpack_into: str | None = None


def size_of(url: str) -> int | None:
    """Ask a server for the size of a file.

    Returns:
        Number of bytes; None if the server does not say.

    Raises:
        DownloadError: If there is no such file, or the server cannot be reached.
    """
    try:
        with _opened(url, {}, "HEAD") as response:
            return _length(response.headers)
    except HTTPError as error:
        if error.code in (403, 405, 501):  # of servers that know GET only
            return None
        raise _refusal(url, error) from error
    except _BrokenError as error:
        raise DownloadError(f"{url} cannot be reached ({error}); try again later.") from error


def download(
    file: RemoteFile, target: Path, progress: Progress, note: Callable[[str], None]
) -> None:
    """Download a file, or the rest of one.

    What has arrived is kept beside ``target`` in a hidden file, from which a later call resumes. A
    server that cannot resume, or has another file by now, sends the file anew. ``target`` exists
    only when the file is complete and its digest is right.

    Args:
        file: The file.
        target: Where to write it; its folder is made. A right file there is kept.
        progress: Called with megabytes, where the size is known.
        note: Called with a sentence when a download starts over.

    Raises:
        DownloadError: If the file cannot be had, or is another than the declared one.
        ArtefactError: If the file cannot be written, or the disk has too little room for it.
    """
    if target.exists():
        _check_existing(file, target, progress)
        return
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(part) as lock:
            if lock is None:
                raise DownloadError(f"Another process downloads {target}; wait for its end.")
            _Download(file, target, part, progress, note).complete()
    except OSError as error:
        raise _unwritable(target, error) from error


class _Download:
    """A download with what is kept of it between attempts."""

    def __init__(
        self,
        file: RemoteFile,
        target: Path,
        part: Path,
        progress: Progress,
        note: Callable[[str], None],
    ):
        self.file, self.target, self.part = file, target, part
        self.progress, self.note = progress, note
        self.state = part.with_name(f"{part.name}.json")

    def complete(self) -> None:
        """Download all bytes, check them and move the file into place."""
        farthest, failures = self._size(), 0
        while True:
            try:
                self._attempt()
                break
            except _BrokenError as error:
                failures = failures + 1 if self._size() <= farthest else 0
                farthest = max(farthest, self._size())
                if failures >= ATTEMPTS:
                    raise DownloadError(
                        f"{self.file.url} cannot be downloaded: {error}; {_AGAIN}."
                    ) from error
                time.sleep(PAUSE * 2 ** max(failures - 1, 0))
        self._check()
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        self.part.replace(self.target)
        self.state.unlink(missing_ok=True)
        sync_folder(self.target.parent)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)

    def _attempt(self) -> None:
        """Request what is lacking, and append it."""
        offset = self._size()
        kept = _kept(self.state)
        validator = str(kept.get("validator", ""))
        if kept.get("url") != self.file.url or not (validator or self.file.digest):
            offset = 0
        if offset and offset == kept.get("total"):
            return
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and validator:
            headers["If-Range"] = validator
        try:
            with _opened(self.file.url, headers) as response:
                self._receive(response, offset)
        except HTTPError as error:
            if error.code == 416 and offset:
                self._discard()
                raise _BrokenError("the kept part is longer than the file") from error
            raise _refusal(self.file.url, error) from error

    def _receive(self, response: Any, offset: int) -> None:
        total = _length(response.headers)
        if response.status == 206:
            begin, total = _range(response.headers)
            if begin != offset or total != _kept(self.state).get("total"):
                self._discard()
                raise _BrokenError("the server sent another part than asked for")
        elif offset:
            self.note(
                f"note: {urlsplit(self.file.url).hostname} cannot resume {self.target.name}, or "
                "has another file by now; the download starts over"
            )
            offset = 0
        self._check_answer(response, total)
        state = {"url": self.file.url, "validator": _validator(response.headers), "total": total}
        with self.part.open("r+b" if offset else "wb") as file:
            write_atomic(self.state, json.dumps(state))
            file.seek(offset)
            self._copy(response, file, offset, total)
        received = self._size()
        if total is not None and received < total:
            raise _BrokenError(f"the connection ended after {received} of {total} bytes")

    def _check_answer(self, response: Any, total: int | None) -> None:
        """Refuse what cannot be the file before its bytes are read."""
        url, declared = self.file.url, self.file.size
        kind = response.headers.get_content_type()
        if kind == "text/html" and not self.target.name.endswith((".html", ".htm")):
            raise DownloadError(
                f"{url} answers with a web page in place of {self.target.name}; it may ask for a "
                "login, so fetch the file with a browser."
            )
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError(f"{url} answers in a compressed form that was not asked for.")
        if declared is not None and total is not None and declared != total:
            raise DownloadError(
                f"{url} has {total} bytes where {declared} are declared; its publisher may have "
                "replaced the file."
            )
        needed = (total or declared or 0) - self._size()
        check_room(self.target.parent, needed, self.target.name)

    def _copy(self, response: Any, file: BinaryIO, offset: int, total: int | None) -> None:
        most = total if total is not None else self.file.size
        what = f"downloading {self.target.name} (MB)"
        while total is None or offset < total:
            block = _read(response)
            if not block:
                break
            offset += len(block)
            if most is not None and offset > most:
                self._discard()
                raise DownloadError(f"{self.file.url} sends more than its {most} bytes.")
            file.write(block)
            if most:
                self.progress(what, offset // _MEGABYTE, -(-most // _MEGABYTE))
        if most and offset == most:
            self.progress(what, -(-most // _MEGABYTE), -(-most // _MEGABYTE))

    def _check(self) -> None:
        problem = _difference(self.file, self.part, self.target.name, self.progress)
        if problem:
            self._discard()
            raise DownloadError(
                f"{self.file.url} {problem}; the download was removed. Try again, and if that "
                "does not help, fetch the file by hand from its publisher."
            )


def check_room(folder: Path, needed: int, what: str) -> None:
    """Refuse to write more bytes than the file system of a folder has room for.

    Raises:
        ArtefactError: If the room does not suffice.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ArtefactError(
            f"{what} needs {needed / 1e9:.2f} GB in {folder}, which has {free / 1e9:.2f} GB free; "
            "make room, or give another folder with --data-root."
        )


def _check_existing(file: RemoteFile, target: Path, progress: Progress) -> None:
    problem = _difference(file, target, target.name, progress)
    if problem:
        raise DownloadError(
            f"{target} {problem}; move it away, so that {file.url} can be downloaded."
        )


def _difference(file: RemoteFile, path: Path, name: str, progress: Progress) -> str:
    """Return what a file has otherwise than declared, as a predicate; empty if nothing."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"has {size} bytes where {file.size} are declared"
    algorithm, _, declared = file.digest.partition(":")
    if not declared:
        return ""
    hasher, done = hashlib.new(algorithm, usedforsecurity=False), 0
    with path.open("rb") as opened:
        while block := opened.read(_BLOCK):
            hasher.update(block)
            done += len(block)
            progress(f"checking {name} (MB)", done // _MEGABYTE, -(-size // _MEGABYTE))
    found = hasher.hexdigest()
    return "" if found == declared.lower() else f"has the {algorithm} {found}, not {declared}"


def _unwritable(target: Path, error: OSError) -> ArtefactError:
    return ArtefactError(
        f"{target} cannot be written ({error.strerror or error}); make room, or give another "
        "folder with --data-root."
    )


def _kept(state: Path) -> dict[str, Any]:
    """Return what was noted of an unfinished download; empty if nothing or damaged."""
    with suppress(OSError, ValueError):
        kept = json.loads(state.read_text(encoding="utf-8"))
        if isinstance(kept, dict):
            return kept
    return {}


# HTTP


class _Redirects(request.HTTPRedirectHandler):
    """Follows redirects to web addresses, but never from https to one without encryption."""

    def redirect_request(
        self, req: request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> request.Request | None:
        allowed = ("https:",) if req.full_url.startswith("https:") else ("https:", "http:")
        if not newurl.startswith(allowed):
            if fp is not None:
                fp.close()
            raise DownloadError(
                f"{req.full_url} redirects to {shown(newurl, 200)}, which is not followed; fetch "
                "the file by hand."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> request.OpenerDirector:
    """Return an opener of http and https alone, through the user's proxy."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        request.UnknownHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _opened(url: str, headers: Mapping[str, str], method: str = "GET") -> Any:
    """Send a request and return the response.

    Raises:
        HTTPError: If the server refuses the request for good.
        DownloadError: If the address cannot be used.
        _BrokenError: If another attempt may help.
    """
    every = {"User-Agent": "rscl-bench", "Accept-Encoding": "identity", **headers}
    try:
        return _opener().open(request.Request(url, headers=every, method=method), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code in (408, 425, 429) or (error.code >= 500 and error.code != 501):
            raise _BrokenError(f"the server answers {error.code} {error.reason}") from error
        raise
    except URLError as error:
        if str(error.reason).startswith(("unknown url type", "no host given")):
            raise _no_address(url) from error
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(
                f"{url} has a certificate that is not valid ({error.reason.verify_message})."
            ) from error
        raise _BrokenError(_said(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(_said(error)) from error
    except ValueError as error:
        raise _no_address(url) from error


def _no_address(url: str) -> DownloadError:
    return DownloadError(f"'{shown(url, 200)}' is no web address.")


def _said(error: object) -> str:
    """Return what is wrong with a connection, as a clause."""
    if isinstance(error, TimeoutError):
        return f"no answer came within {TIMEOUT:g} s"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return shown(said, 200)


def _read(response: Any) -> bytes:
    try:
        block: bytes = response.read1(_BLOCK)  # what has arrived: `read` waits for a whole block
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _BrokenError(_said(error)) from error
    return block


def _refusal(url: str, error: HTTPError) -> DownloadError:
    if 300 <= error.code < 400:
        return DownloadError(f"{url} redirects without end or to no web address.")
    reason = {
        401: "asks for a login",
        403: "is not given out",
        404: "does not exist there any more",
        410: "does not exist there any more",
    }.get(error.code, "is refused")
    return DownloadError(
        f"{url} {reason} ({error.code} {shown(str(error.reason), 80)}); fetch the file by hand "
        "from the page of its publisher."
    )


def _length(headers: Message) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _range(headers: Message) -> tuple[int, int | None]:
    """Return begin and total of a partial answer; begin is -1 if the header is not valid."""
    match = re.fullmatch(
        r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", headers.get("Content-Range", "")
    )
    if match is None:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _validator(headers: Message) -> str:
    """Return what tells whether a file changed on the server: a strong tag, or its date."""
    tag: str = headers.get("ETag", "")
    if tag.startswith('"'):
        return tag
    date: str = headers.get("Last-Modified", "")
    return date
