"""A Hugging Face Hub on loopback: model repositories with one branch, files sent as they are."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: The files of each repository.
Repos = dict[str, dict[str, bytes]]

REVISION = "0" * 40


class _Handler(BaseHTTPRequestHandler):
    repos: Repos

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != "Bearer hf_fake":
            return self._answer(401, {"error": "Invalid username or password."})
        match self.path.partition("?")[0].split("/")[1:]:
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                self.repos.setdefault(name, {})
                return self._answer(200, {"url": f"http://{self.headers['Host']}/{name}", "name": name})
            case ["api", "validate-yaml"]:
                return self._answer(200, {"errors": [], "warnings": []})
            case ["api", "models", user, repo, "preupload", "main"] if f"{user}/{repo}" in self.repos:
                files = [f["path"] for f in json.loads(body)["files"]]
                reported = [{"path": f, "uploadMode": "regular", "shouldIgnore": False} for f in files]
                return self._answer(200, {"files": reported})
            case ["api", "models", user, repo, "commit", "main"]:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        content = base64.b64decode(line["value"]["content"])
                        self.repos[f"{user}/{repo}"][line["value"]["path"]] = content
                url = f"http://{self.headers['Host']}/{user}/{repo}/commit/{REVISION}"
                return self._answer(200, {"commitUrl": url, "commitOid": REVISION})
        self._answer(404, {"error": "not found"})

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].split("/")[1:]
        if parts[0] == "api":
            files = self.repos.get("/".join(parts[2:4]))
            if files is None:
                return self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            if parts[4:5] == ["tree"]:
                tree = [
                    {"type": "file", "path": name, "oid": "1", "size": len(content)}
                    for name, content in files.items()
                ]
                return self._answer(200, tree)
            reported = {
                "id": "/".join(parts[2:4]),
                "sha": REVISION,
                "private": False,
                "tags": [],
                "downloads": 0,
            }
            return self._answer(200, reported | {"siblings": [{"rfilename": name} for name in files]})
        content = self.repos.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
        if content is None:
            return self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        return self._answer(200, content, {"ETag": etag, "X-Repo-Commit": REVISION})

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, code: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def fake_hub() -> Iterator[tuple[str, Repos]]:
    """Give its address, and what is in it."""
    repos: Repos = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"repos": repos}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", repos
    finally:
        server.shutdown()
        server.server_close()
