"""Downloads from a loopback server that resumes, does not resume, dies, lies or hangs."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request

import pytest
from helpers.web import Page, Web, serving

from rscl_bench.archives import download as module
from rscl_bench.archives.download import DownloadError, RemoteFile, download, size_of
from rscl_bench.errors import ArchiveError, ArtefactError
from rscl_bench.scratch import locked

CONTENT = bytes(range(256)) * 12_000  # 3 MB
MD5 = f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
HALF = 2**20 + 17


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.001)
    monkeypatch.setattr(module, "TIMEOUT", 2.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


class Fetched:
    """A download into a folder, with what it reported."""

    def __init__(
        self, web: Web, folder: Path, page: Page, digest: str = "", size: int | None = None
    ):
        self.web, self.target = web, folder / "below" / "file.zip"
        web.pages["/file.zip"] = page
        self.file = RemoteFile(f"{web.url}/file.zip", "file.zip", digest, size)
        self.progress: list[tuple[str, int, int]] = []
        self.notes: list[str] = []

    def run(self) -> None:
        download(
            self.file, self.target, lambda *done: self.progress.append(done), self.notes.append
        )

    def refused(self) -> str:
        with pytest.raises((DownloadError, ArtefactError)) as raised:
            self.run()
        assert not self.target.exists()
        return str(raised.value)

    def left(self) -> list[str]:
        return sorted(path.name for path in self.target.parent.iterdir())

    def check(self) -> None:
        assert self.target.read_bytes() == CONTENT
        assert self.left() == ["file.zip"]


@pytest.mark.parametrize("digest", ["", MD5, SHA256, SHA256.upper().replace("SHA256", "sha256")])
def test_file_is_downloaded(web: Web, tmp_path: Path, digest: str) -> None:
    fetched = Fetched(web, tmp_path, Page(CONTENT), digest, len(CONTENT))
    fetched.run()
    fetched.check()
    assert {what for what, _, _ in fetched.progress} <= {
        "downloading file.zip (MB)",
        "checking file.zip (MB)",
    }
    assert all(done <= total == 4 for _, done, total in fetched.progress)
    assert ("downloading file.zip (MB)", 4, 4) in fetched.progress
    assert not fetched.notes


def test_empty_file(web: Web, tmp_path: Path) -> None:
    fetched = Fetched(web, tmp_path, Page(b""), size=0)
    fetched.run()
    assert fetched.target.read_bytes() == b""


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_connection_is_tried_again(web: Web, tmp_path: Path, ranges: bool) -> None:
    page = Page(CONTENT, ranges=ranges, dies_after=[HALF, HALF // 2])
    fetched = Fetched(web, tmp_path, page, SHA256)
    fetched.run()
    fetched.check()
    second = HALF + HALF // 2 if ranges else HALF // 2
    assert web.gets() == ["", f"bytes={HALF}-", f"bytes={second}-"]
    assert len(fetched.notes) == (0 if ranges else 2)


@pytest.mark.parametrize("ranges", [True, False])
def test_next_call_resumes(web: Web, tmp_path: Path, ranges: bool) -> None:
    page = Page(CONTENT, ranges=ranges, dies_after=[HALF, 0, 0, 0, 0, 0, 0])
    fetched = Fetched(web, tmp_path, page, SHA256)
    sentence = fetched.refused()
    assert sentence.endswith(
        f"the connection ended after {HALF if ranges else 0} of {len(CONTENT)} bytes; the same "
        "command resumes the download."
    )
    page.dies_after.clear()
    web.asked.clear()
    fetched.run()
    fetched.check()
    assert web.gets() == [f"bytes={HALF}-" if ranges else ""]


def test_killed_download_resumes_from_what_arrived(web: Web, tmp_path: Path) -> None:
    fetched = Fetched(web, tmp_path, Page(CONTENT), SHA256)

    def kill(_what: str, done: int, _total: int) -> None:
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(fetched.file, fetched.target, kill, fetched.notes.append)
    assert fetched.left() == [".file.zip.part", ".file.zip.part.json"]
    arrived = fetched.target.with_name(".file.zip.part").stat().st_size
    assert 2_000_000 <= arrived < len(CONTENT)
    fetched.run()
    fetched.check()
    assert web.gets() == ["", f"bytes={arrived}-"]


def test_file_that_changed_on_the_server_starts_over(web: Web, tmp_path: Path) -> None:
    page = Page(bytes(len(CONTENT)), dies_after=[HALF, 0, 0, 0, 0, 0, 0])
    fetched = Fetched(web, tmp_path, page)
    fetched.refused()
    web.pages["/file.zip"] = Page(CONTENT, tag='"2"')
    fetched.run()
    fetched.check()
    assert len(fetched.notes) == 1
    assert (
        "cannot resume file.zip, or has another file by now; the download starts over"
        in (fetched.notes[0])
    )


@pytest.mark.parametrize("tag", ["", 'W/"1"'])
def test_without_digest_and_tag_nothing_is_resumed(web: Web, tmp_path: Path, tag: str) -> None:
    page = Page(CONTENT, tag=tag, dies_after=[HALF])
    fetched = Fetched(web, tmp_path, page)
    fetched.run()
    fetched.check()
    assert web.gets() == ["", ""]


def test_with_digest_a_tag_is_not_needed(web: Web, tmp_path: Path) -> None:
    fetched = Fetched(web, tmp_path, Page(CONTENT, tag="", dies_after=[HALF]), SHA256)
    fetched.run()
    fetched.check()
    assert web.gets() == ["", f"bytes={HALF}-"]


def test_kept_part_longer_than_the_file_starts_over(web: Web, tmp_path: Path) -> None:
    fetched = Fetched(web, tmp_path, Page(CONTENT), SHA256)
    part = fetched.target.with_name(".file.zip.part")
    part.parent.mkdir()
    part.write_bytes(bytes(len(CONTENT) + 5))
    state = {"url": fetched.file.url, "validator": '"1"', "total": len(CONTENT) + 9}
    part.with_name(".file.zip.part.json").write_text(json.dumps(state))
    fetched.run()
    fetched.check()


def test_damaged_state_starts_over(web: Web, tmp_path: Path) -> None:
    fetched = Fetched(web, tmp_path, Page(CONTENT), SHA256)
    part = fetched.target.with_name(".file.zip.part")
    part.parent.mkdir()
    part.write_bytes(b"rubbish")
    part.with_name(".file.zip.part.json").write_text("[")
    fetched.run()
    fetched.check()
    assert web.gets() == [""]


def test_wrong_bytes_are_refused_and_removed(web: Web, tmp_path: Path) -> None:
    fetched = Fetched(web, tmp_path, Page(CONTENT[:-1] + b"?"), SHA256)
    sentence = fetched.refused()
    assert f", not {SHA256[7:]}; the download was removed." in sentence
    assert fetched.left() == []


def test_file_in_place_is_checked(web: Web, tmp_path: Path) -> None:
    fetched = Fetched(web, tmp_path, Page(CONTENT), SHA256)
    fetched.target.parent.mkdir()
    fetched.target.write_bytes(CONTENT)
    fetched.run()
    assert not web.asked
    fetched.target.write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError, match="; move it away, so that "):
        fetched.run()
    assert fetched.target.stat().st_size == len(CONTENT) - 1


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (Page(status=404), "does not exist there any more (404 Not Found); fetch the file by hand"),
        (Page(status=401), "asks for a login (401 Unauthorized)"),
        (Page(status=403), "is not given out (403 Forbidden)"),
        (Page(status=503), "the server answers 503 Service Unavailable; the same command resumes"),
        (Page(CONTENT, kind="text/html"), "answers with a web page in place of file.zip"),
        (Page(CONTENT, length=len(CONTENT) + 1), f"{len(CONTENT)} are declared"),
        (Page(CONTENT, length=len(CONTENT) - 1), f"{len(CONTENT)} are declared"),
        (Page(CONTENT + b"more", length=None), f"sends more than its {len(CONTENT)} bytes"),
        (Page(CONTENT[:-9], length=None), f"has {len(CONTENT) - 9} bytes where {len(CONTENT)} are"),
        (Page(status=302, location="/file.zip"), "redirects without end or to no web address"),
        (Page(status=302, location="ftp://127.0.0.1/file.zip"), "file.zip, which is not followed"),
        (Page(status=302, location="file:///etc/passwd"), "redirects without end or to no"),
    ],
)
def test_answers_that_are_refused(web: Web, tmp_path: Path, page: Page, reason: str) -> None:
    fetched = Fetched(web, tmp_path, page, SHA256, len(CONTENT))
    sentence = fetched.refused()
    assert reason in sentence
    assert sentence.startswith(web.url)
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_length_that_is_too_long_is_a_broken_connection(web: Web, tmp_path: Path) -> None:
    fetched = Fetched(web, tmp_path, Page(CONTENT, length=len(CONTENT) + 1, ranges=False))
    assert f"the connection ended after {len(CONTENT)} of" in fetched.refused()


def test_length_that_is_too_short_is_noticed_by_the_digest(web: Web, tmp_path: Path) -> None:
    fetched = Fetched(web, tmp_path, Page(CONTENT, length=len(CONTENT) - 1), SHA256)
    assert "has the sha256" in fetched.refused()


def test_server_that_hangs(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    fetched = Fetched(web, tmp_path, Page(CONTENT, hangs=True))
    assert "no answer came within 0.1 s; the same command resumes" in fetched.refused()
    assert len(web.asked) == module.ATTEMPTS


def test_server_that_is_away(tmp_path: Path) -> None:
    with serving() as gone:
        url = gone.url
    file = RemoteFile(f"{url}/file.zip", "file.zip")
    with pytest.raises(DownloadError, match=r"Connection refused.*; the same command resumes"):
        download(file, tmp_path / "file.zip", lambda *_: None, lambda _: None)
    with pytest.raises(DownloadError, match=r"cannot be reached \(.*Connection refused"):
        size_of(file.url)


def test_redirect_is_followed_with_the_range(web: Web, tmp_path: Path) -> None:
    web.pages["/real.zip"] = Page(CONTENT, dies_after=[HALF])
    fetched = Fetched(web, tmp_path, Page(status=302, location="/real.zip"), SHA256)
    fetched.run()
    fetched.check()
    assert [path for _, path, given in web.asked if given] == ["/file.zip", "/real.zip"]


def test_redirect_away_from_https_is_refused() -> None:
    secure = Request("https://example.org/file.zip")
    with pytest.raises(DownloadError, match=r"redirects to http://example\.org/x, which"):
        module._Redirects().redirect_request(secure, None, 302, "", {}, "http://example.org/x")


def test_no_web_address(tmp_path: Path) -> None:
    for url in ("file:///etc/passwd", "nothing", "ftp://127.0.0.1/x"):
        with pytest.raises(DownloadError, match="is no web address"):
            download(RemoteFile(url, "x"), tmp_path / "x", lambda *_: None, lambda _: None)
    assert not (tmp_path / "x").exists()


def test_disk_without_room(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(CONTENT) - 1))
    fetched = Fetched(web, tmp_path, Page(CONTENT))
    sentence = fetched.refused()
    assert sentence.startswith("file.zip needs 0.00 GB in ")
    assert sentence.endswith("make room, or give another folder with --data-root.")
    usage = usage._replace(free=len(CONTENT))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    fetched.run()
    fetched.check()


def test_folder_that_cannot_be_written(web: Web, tmp_path: Path) -> None:
    (tmp_path / "below").touch()
    fetched = Fetched(web, tmp_path, Page(CONTENT))
    with pytest.raises(ArtefactError, match="cannot be written"):
        fetched.run()


def test_two_downloads_of_one_file(web: Web, tmp_path: Path) -> None:
    fetched = Fetched(web, tmp_path, Page(CONTENT))
    part = fetched.target.with_name(".file.zip.part")
    part.parent.mkdir()
    with locked(part) as lock:
        assert lock is not None
        with pytest.raises(ArchiveError, match="Another process downloads"):
            fetched.run()
    fetched.run()
    fetched.check()


def test_size_of(web: Web) -> None:
    web.pages["/a"] = Page(CONTENT)
    web.pages["/unknown"] = Page(CONTENT, length=None)
    web.pages["/get-only"] = Page(CONTENT, status=405)
    assert size_of(f"{web.url}/a") == len(CONTENT)
    assert size_of(f"{web.url}/unknown") is None
    assert size_of(f"{web.url}/get-only") is None
    with pytest.raises(DownloadError, match="404 Not Found"):
        size_of(f"{web.url}/none")
    assert not web.gets()
