"""A stand-in for the Hugging Face Hub on the loopback: as much of its interface as an upload and a download need."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import urllib.parse
from pathlib import Path

from .lying_server import Handler, LyingServer, send

TOKEN = "hf_secret"  # noqa: S105


class HubHandler(Handler):
    server: FakeHub

    def do_GET(self) -> None:
        path = urllib.parse.unquote(self.path)
        if path.startswith("/api/models/"):
            self._tell(*path.removeprefix("/api/models/").partition("/revision/")[::2])
        else:
            # /user/name/resolve/<commit>/<file> is a file of the folder of that commit.
            super().do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.unquote(self.path)
        if path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            send(self, b'{"error": "Invalid username or password."}', 401)
        elif path == "/api/repos/create":
            repository = "/".join(filter(None, (json.loads(body).get("organization"), json.loads(body)["name"])))
            self.server.created.append(json.loads(body))
            self._answer({"url": f"{self.server.url}/{repository}", "id": repository})
        elif "/branch/" in path:
            self._answer({})
        elif "/preupload/" in path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif "/commit/" in path:
            repository, branch = path.removeprefix("/api/models/").split("/commit/")
            self._commit(repository, branch, [json.loads(line) for line in body.splitlines()])

    def _commit(self, repository: str, branch: str, lines: list[dict]) -> None:
        commit = hashlib.sha1(json.dumps(lines).encode()).hexdigest()  # noqa: S324
        folder = self.server.folder / repository / "resolve" / commit
        folder.mkdir(parents=True)
        before = self.server.heads.get((repository, branch))
        if before is not None:
            shutil.copytree(folder.with_name(before), folder, dirs_exist_ok=True)
        for line in lines:
            if line["key"] == "header":
                self.server.messages.append(line["value"]["summary"])
            else:
                (folder / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
        self.server.heads[repository, branch] = commit
        self._answer(
            {"success": True, "commitUrl": f"{self.server.url}/{repository}/commit/{commit}", "commitOid": commit}
        )

    def _tell(self, repository: str, revision: str) -> None:
        """Of a repository at a branch or a commit."""
        known = {commit for (name, _), commit in self.server.heads.items() if name == repository}
        commit = self.server.heads.get((repository, revision or "main"), revision if revision in known else None)
        if self.server.failing:
            send(self, b"{}", 503)
        elif commit is not None:
            self._answer({"id": repository, "sha": commit, "siblings": []})
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound" if known else "RepoNotFound")
            self.send_header("X-Error-Message", "Not found here.")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _answer(self, value: object) -> None:
        send(self, json.dumps(value).encode())


class FakeHub(LyingServer):
    """A hub.

    Attributes:
        heads: Commits by repository and branch.
        messages: Messages of the commits.
        created: What was asked for repositories.
        failing: Whether it is down.
    """

    handler = HubHandler

    def __init__(self, folder: Path, certificate: Path) -> None:
        self.heads: dict[tuple[str, str], str] = {}
        self.messages: list[str] = []
        self.created: list[dict] = []
        self.failing = False
        super().__init__(folder, certificate)
