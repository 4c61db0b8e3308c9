"""A stand-in of the Hugging Face Hub on the loopback address, as far as push and pull use it."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest


@dataclass
class Repository:
    """One repository: the files of every commit, the newest last."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def files(self, revision: str) -> dict[str, bytes] | None:
        if revision == "main":
            return self.commits[self.head] if self.commits else {}
        return self.commits.get(revision)

    @property
    def head(self) -> str:
        return list(self.commits)[-1] if self.commits else "0" * 40


@dataclass
class Hub:
    """The server.

    Attributes:
        url: Its address, for HF_ENDPOINT.
        repositories: Repositories by ``owner/name``.
        asked: Method and path of every request.
        stored: Uploaded contents by SHA-256.
        refuses: Status that every upload gets; None for none.
    """

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    refuses: int | None = None


@contextmanager
def serving_hub(patch: pytest.MonkeyPatch, cache: str) -> Iterator[Hub]:
    """Serve an empty Hub within a block, and let huggingface_hub use it and a cache."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._get(with_body=False)

        def do_GET(self) -> None:
            self._get(with_body=True)

        def do_POST(self) -> None:
            body = self._body()
            hub.asked.append(("POST", urlsplit(self.path).path))
            _answer_post(self, hub, urlsplit(self.path).path, body)

        def do_PUT(self) -> None:
            body = self._body()
            hub.asked.append(("PUT", self.path))
            hub.stored[sha256(body).hexdigest()] = body
            self.send(200, {})

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _get(self, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path))
            _answer_get(self, hub, path, with_body)

        def send(self, status: int, value: Any) -> None:
            kind = {"Content-Type": "application/json"}
            self.send_bytes(status, json.dumps(value).encode(), kind)

        def send_bytes(
            self, status: int, body: bytes, headers: dict[str, str], with_body: bool = True
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    _point_to(patch, hub.url, cache)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        import huggingface_hub

        huggingface_hub.close_session()
        server.shutdown()
        thread.join()
        server.server_close()


def _point_to(patch: pytest.MonkeyPatch, url: str, cache: str) -> None:
    """Name the server, and set what huggingface_hub read from the environment at its import."""
    from huggingface_hub import constants

    patch.setenv("HF_ENDPOINT", url)
    patch.setattr(constants, "HF_HUB_CACHE", cache)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    # The protocol of Xet has a server of its own; without it, large files go by Git LFS.
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setenv("HF_TOKEN", "hf_made_up")


def _answer_post(handler: Any, hub: Hub, path: str, body: bytes) -> None:
    if hub.refuses is not None and path != "/api/validate-yaml":
        handler.send(hub.refuses, {"error": "You may not write here"})
    elif path == "/api/repos/create":
        _create(handler, hub, json.loads(body))
    elif path == "/api/validate-yaml":
        handler.send(200, {"errors": [], "warnings": []})
    elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        handler.send(200, {"files": files})
    elif match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
        objects = [
            {**one, "actions": {"upload": {"href": f"{hub.url}/storage/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        handler.send(200, {"transfer": "basic", "objects": objects})
    elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
        _commit(handler, hub, match[1], body)
    else:
        handler.send(404, {"error": "not found"})


def _create(handler: Any, hub: Hub, asked: dict[str, Any]) -> None:
    name = f"{asked['organization']}/{asked['name']}"
    status = 409 if name in hub.repositories else 200
    private = asked.get("visibility") == "private" or asked.get("private") is True
    hub.repositories.setdefault(name, Repository(private))
    handler.send(status, {"url": f"{hub.url}/{name}"})


def _commit(handler: Any, hub: Hub, name: str, body: bytes) -> None:
    repository = hub.repositories[name]
    files = dict(repository.files("main") or {})
    for line in body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif item["key"] == "lfsFile":
            files[value["path"]] = hub.stored[value["oid"]]
    oid = sha1(body + repository.head.encode()).hexdigest()
    repository.commits[oid] = files
    handler.send(
        200, {"success": True, "commitOid": oid, "commitUrl": f"{hub.url}/{name}/commit/{oid}"}
    )


def _answer_get(handler: Any, hub: Hub, path: str, with_body: bool) -> None:
    match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
    resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
    found = match or resolve
    repository = hub.repositories.get(found[1]) if found else None
    if found is None or repository is None:
        headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
        handler.send_bytes(404, b"{}", headers, with_body)
        return
    revision = (match[3] if match else resolve[2] if resolve else None) or "main"
    files = repository.files(revision)
    commit = repository.head if revision == "main" else revision
    if files is None:
        handler.send_bytes(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, with_body)
    elif resolve is not None:
        _send_file(handler, files.get(resolve[3]), commit, with_body)
    elif match is not None and match[2] == "tree":
        handler.send(200, [_tree_entry(name, content) for name, content in files.items()])
    else:
        siblings = [{"rfilename": name} for name in files]
        handler.send(200, {"id": found[1], "sha": commit, "siblings": siblings, "private": False})


def _tree_entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content)}
    entry["oid"] = sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if name.endswith(".safetensors"):
        entry["lfs"] = {
            "oid": sha256(content).hexdigest(),
            "size": len(content),
            "pointerSize": 130,
        }
    return entry


def _send_file(handler: Any, content: bytes | None, commit: str, with_body: bool) -> None:
    if content is None:
        handler.send_bytes(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)
        return
    headers = {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": commit}
    handler.send_bytes(200, content, headers, with_body)
