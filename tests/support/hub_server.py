"""A small Hub on loopback, in memory: as much of its interface as pushing and loading need.

    with HubServer() as hub:
        run_in_another_process(environment=hub.environment(home))
        assert "config.json" in hub.files("tester/some-model")

It keeps what it is sent and checks what the real Hub checks at the door: tokens, names of owners,
hashes of large files, branches that do not exist. That a push works here shows that client and
library fit together; it says nothing about the real Hub's limits.

huggingface_hub reads its settings when it is imported, so a client runs in a process of its own.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

USER = "tester"
TOKEN = "hf_of_tester"
LICENSES = ("apache-2.0", "mit")  # that it knows
LARGE_FILES = (".safetensors", ".bin")  # stored aside by their hash, as git LFS does


@dataclass(frozen=True)
class Blob:
    """Content of a file in a repository."""

    data: bytes
    large: bool = False

    @property
    def oid(self) -> str:
        """Git's hash of a small file, SHA-256 of a large one; serves as the ETag too."""
        if self.large:
            return hashlib.sha256(self.data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


Files = dict[str, Blob]


@dataclass
class Repository:
    """Commits by their hash, and the branches that point at them."""

    name: str
    private: bool
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin as the Hub does, with an empty commit on main."""
        self.commit("main", {})

    def commit(self, branch: str, files: Files) -> str:
        """Put the files on the branch; return the commit's hash."""
        sha = hashlib.sha1(f"{self.name} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def find(self, revision: str) -> str:
        """Return the hash of the commit that a branch or a hash names."""
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha


class Refusal(Exception):
    """An answer that is an error, told in the way the Hub tells it."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message, **headers}


@dataclass
class Answer:
    """A status, a body (JSON unless it is bytes) and headers."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class HubServer:
    """The server; a context manager that starts and stops it.

    Attributes:
        repositories: by name, "owner/model".
        requests: method and path of everything that was asked, in order.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str]] = []
        self.large_files: dict[str, bytes] = {}
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """What a client's process needs in its environment to talk to this server."""
        settings = {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",  # that protocol needs a second server
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        return settings if token is None else {**settings, "HF_TOKEN": token}

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Contents of a repository at a revision, by path."""
        repository = self.repositories[name]
        found = repository.commits[repository.find(revision)]
        return {path: blob.data for path, blob in found.items()}


class _Handler(BaseHTTPRequestHandler):
    """One request: find its route, check who may, answer."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the tests' output is not a server's log."""

    def _handle(self) -> None:
        body = self._read_body()
        path = urlsplit(self.path).path
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
            try:
                answer = self._route(path, body)
            except Refusal as refusal:
                answer = Answer({"error": str(refusal)}, refusal.status, refusal.headers)
        self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _route(self, path: str, body: bytes) -> Answer:
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, answer in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and wanted == method:
                return answer(self, body, **{k: unquote(v) for k, v in found.groupdict().items()})
        raise Refusal(404, "NotFound", f"This small Hub knows no {method} {path}")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, answer: Answer) -> None:
        raw = isinstance(answer.body, bytes)
        data = answer.body if raw else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/octet-stream" if raw else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # Who may

    @property
    def _is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _must_be_known(self) -> None:
        if not self._is_known:
            raise Refusal(401, "Unauthorized", "Invalid username or password.")

    def _must_own(self, name: str) -> None:
        self._must_be_known()
        owner = name.split("/")[0]
        if owner != USER:
            raise Refusal(403, "Forbidden", f"You have no right to write under {owner}")

    def _repository(self, name: str) -> Repository:
        """Find a repository; who may not see it learns no more than that it is not there."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._is_known):
            status = 404 if self._is_known else 401
            raise Refusal(status, "RepoNotFound", f"Repository Not Found: {name}")
        return repository

    # Account and repositories

    def who_am_i(self, body: bytes) -> Answer:
        self._must_be_known()
        return Answer({"type": "user", "name": USER, "orgs": []})

    def create(self, body: bytes) -> Answer:
        wanted = json.loads(body)
        name = f"{wanted.get('organization') or USER}/{wanted['name']}"
        self._must_own(name)
        url = f"{self.hub.address}/{name}"
        if name in self.hub.repositories:
            return Answer({"error": "You already created this model repo", "url": url}, 409)
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.hub.repositories[name] = Repository(name, private)
        return Answer({"url": url, "name": name})

    def may_write(self, body: bytes, name: str) -> Answer:
        self._must_own(name)
        self._repository(name)
        return Answer()

    def branch(self, body: bytes, name: str, branch: str) -> Answer:
        self._must_own(name)
        repository = self._repository(name)
        if not re.fullmatch(r"[\w./-]+", branch):
            raise Refusal(400, "BadRequest", f"Invalid branch name: {branch}")
        if branch in repository.branches:
            raise Refusal(409, "Conflict", f"Reference already exists: {branch}")
        start = json.loads(body or b"{}").get("startingPoint", "main")
        repository.branches[branch] = repository.find(start)
        return Answer()

    def refs(self, body: bytes, name: str) -> Answer:
        branches = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": sha}
            for branch, sha in self._repository(name).branches.items()
        ]
        return Answer({"branches": branches, "tags": [], "converts": []})

    # Upload

    def validate_yaml(self, body: bytes) -> Answer:
        text = json.loads(body)["content"]
        front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
        data = yaml.safe_load(front[1] if front else "") or {}
        if data.get("license", LICENSES[0]) in LICENSES:
            return Answer({"errors": [], "warnings": []})
        fault = f'"license" must be one of {list(LICENSES)}'
        if self.headers.get("Accept") == "text/plain":
            return Answer(fault.encode(), 400)
        return Answer({"errors": [{"message": fault}], "warnings": []}, 400)

    def preupload(self, body: bytes, name: str, revision: str) -> Answer:
        self._must_own(name)
        repository = self._repository(name)
        files = repository.commits[repository.find(revision)]
        asked = json.loads(body)["files"]
        return Answer(
            {
                "files": [
                    {
                        "path": file["path"],
                        "shouldIgnore": False,
                        "uploadMode": "lfs" if file["path"].endswith(LARGE_FILES) else "regular",
                        "oid": files[file["path"]].oid if file["path"] in files else None,
                    }
                    for file in asked
                ]
            }
        )

    def large_batch(self, body: bytes, name: str) -> Answer:
        """Say where large files go; those that are here already go nowhere."""
        self._must_own(name)
        self._repository(name)
        answers = []
        for wanted in json.loads(body)["objects"]:
            answer: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.large_files:
                address = f"{self.hub.address}/large/{wanted['oid']}"
                answer["actions"] = {
                    "upload": {"href": address},
                    "verify": {"href": f"{address}/verify"},
                }
            answers.append(answer)
        return Answer({"transfer": "basic", "objects": answers})

    def put_large(self, body: bytes, oid: str) -> Answer:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(400, "BadRequest", "The content is not the one of the hash.")
        self.hub.large_files[oid] = body
        return Answer()

    def verify_large(self, body: bytes, oid: str) -> Answer:
        if len(self.hub.large_files.get(oid, b"")) != json.loads(body)["size"]:
            raise Refusal(404, "NotFound", f"There is no file {oid} of that size.")
        return Answer()

    def commit(self, body: bytes, name: str, revision: str) -> Answer:
        """Take a commit: one JSON object per line, each a header, a file or a deletion."""
        self._must_own(name)
        repository = self._repository(name)
        if revision not in repository.branches:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = dict(repository.commits[repository.find(revision)])
        for line in filter(None, body.splitlines()):
            operation = json.loads(line)
            what, value = operation["key"], operation["value"]
            if what == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]))
            elif what == "lfsFile":
                if value["oid"] not in self.hub.large_files:
                    raise Refusal(400, "BadRequest", f"{value['path']} was never sent.")
                files[value["path"]] = Blob(self.hub.large_files[value["oid"]], large=True)
            elif what == "deletedFile":
                del files[value["path"]]
            elif what != "header":
                raise Refusal(400, "BadRequest", f"This small Hub knows no operation {what!r}.")
        sha = repository.commit(revision, files)
        return Answer(
            {
                "success": True,
                "commitOid": sha,
                "commitUrl": f"{self.hub.address}/{name}/commit/{sha}",
            }
        )

    # Download

    def model_info(self, body: bytes, name: str, revision: str = "main") -> Answer:
        repository = self._repository(name)
        sha = repository.find(revision)
        return Answer(
            {
                "id": name,
                "sha": sha,
                "private": repository.private,
                "tags": [],
                "siblings": [{"rfilename": path} for path in sorted(repository.commits[sha])],
            }
        )

    def tree(self, body: bytes, name: str, revision: str, folder: str = "") -> Answer:
        repository = self._repository(name)
        files = repository.commits[repository.find(revision)]
        inside = [path for path in sorted(files) if not folder or path.startswith(f"{folder}/")]
        if folder and not inside:
            raise Refusal(404, "EntryNotFound", f"{folder} does not exist")
        return Answer(
            [
                {
                    "type": "file",
                    "path": path,
                    "oid": files[path].oid,
                    "size": len(files[path].data),
                }
                for path in inside
            ]
        )

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> Answer:
        repository = self._repository(name)
        sha = repository.find(revision)
        blob = repository.commits[sha].get(path)
        headers = {"X-Repo-Commit": sha}
        if blob is None:
            raise Refusal(404, "EntryNotFound", f"Entry not found: {path}", **headers)
        return Answer(blob.data, headers={**headers, "ETag": f'"{blob.oid}"'})


_NAME = r"(?P<name>[^/]+/[^/]+)"
_MODEL = rf"/api/models/{_NAME}"
_REVISION = r"(?P<revision>[^/]+)"  # a slash in a branch's name comes quoted
_ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("GET", r"/api/whoami-v2", _Handler.who_am_i),
    ("POST", r"/api/repos/create", _Handler.create),
    ("GET", rf"{_MODEL}/auth-check/write", _Handler.may_write),
    ("POST", rf"{_MODEL}/branch/(?P<branch>[^/]+)", _Handler.branch),
    ("GET", rf"{_MODEL}/refs", _Handler.refs),
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
    ("POST", rf"{_MODEL}/preupload/{_REVISION}", _Handler.preupload),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.large_batch),
    ("PUT", r"/large/(?P<oid>\w+)", _Handler.put_large),
    ("POST", r"/large/(?P<oid>\w+)/verify", _Handler.verify_large),
    ("POST", rf"{_MODEL}/commit/{_REVISION}", _Handler.commit),
    ("GET", _MODEL, _Handler.model_info),
    ("GET", rf"{_MODEL}/revision/{_REVISION}", _Handler.model_info),
    ("GET", rf"{_MODEL}/tree/{_REVISION}", _Handler.tree),
    ("GET", rf"{_MODEL}/tree/{_REVISION}/(?P<folder>.+)", _Handler.tree),
    ("GET", rf"/{_NAME}/resolve/{_REVISION}/(?P<path>.+)", _Handler.resolve),
]
