"""A server on the loopback that answers as the Hub does where a model is uploaded, and remembers the commits."""

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote


class FakeHub:
    """A context with the server running.

    Attributes:
        address: Address of the server.
        failing: Part of the path of the requests that are refused (403); None refuses nothing.
        requests: "METHOD /path" of every request.
        is_private: Repository -> whether it is private.
        commits: (branch, {path: content}) of every commit, in order.
    """

    def __init__(self) -> None:
        self.failing: str | None = None
        self.requests: list[str] = []
        self.is_private: dict[str, bool] = {}
        self.branches = {"main"}
        self.commits: list[tuple[str, dict[str, bytes]]] = []
        self.stored: dict[str, bytes] = {}  # large files by their hash
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "FakeHub":
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def files(self, branch: str = "main") -> dict[str, bytes]:
        """The files of a branch: those of its commits."""
        return {name: text for where, files in self.commits if where == branch for name, text in files.items()}

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON of a request."""
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.is_private:
                return 409, {"error": "You already created this model repo", "url": f"{self.address}/{name}"}
            self.is_private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            return 200, {"url": f"{self.address}/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/branch/" in path:
            self.branches.add(path.partition("/branch/")[2])
            return 200, {}
        if "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            told = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            return 200, {"files": told}
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for entry in objects:
                if entry["oid"] not in self.stored:
                    entry["actions"] = {"upload": {"href": f"{self.address}/upload/{entry['oid']}"}}
            return 200, {"transfer": "basic", "objects": objects}
        if path.startswith("/upload/"):
            self.stored[path.rpartition("/")[2]] = body
            return 200, {}
        if "/commit/" in path:
            return self._commit(path.partition("/commit/")[2], body)
        name = path.removeprefix("/api/models/")
        if name in self.is_private:
            return 200, {"id": name, "sha": "0" * 40, "private": self.is_private[name]}
        return 404, {"error": "Repository not found"}

    def _commit(self, branch: str, body: bytes) -> tuple[int, Any]:
        if branch not in self.branches:
            return 404, {"error": "Invalid rev id"}
        files = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.stored[value["oid"]]
        self.commits.append((branch, files))
        number = len(self.commits)
        url = f"{self.address}/org/name/commit/{number}"
        return 200, {"success": True, "commitOid": f"{number:040x}", "commitUrl": url, "hookOutput": ""}


class Handler(BaseHTTPRequestHandler):
    """Requests of one `FakeHub`."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer a request of any method."""
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append(f"{self.command} {path}")
        body = self._body()
        if self.hub.failing is not None and self.hub.failing in path:
            status, answer = 403, {"error": "Forbidden"}
        else:
            status, answer = self.hub.answer(path, body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        if status == 404 and "error" in answer:
            kind = "RepoNotFound" if answer["error"].startswith("Repository") else "RevisionNotFound"
            self.send_header("X-Error-Code", kind)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, format: str, *values: object) -> None:
        """Print nothing."""
