"""The part of the hub's API that an upload needs, served from this machine: it keeps what arrives."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_" + "writes" * 4
LARGE = (".safetensors", ".onnx")  # travel by themselves, and their hash in the commit


class FakeHub(ThreadingHTTPServer):
    """Repositories by name: who sees each, its branches, and the commits it took."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos, self.objects, self.asked = {}, {}, []
        self.refuse = None  # a status and a message that a commit is answered with

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, commit):
        """What a checkout of a commit would hold."""
        return {path: self.objects[kept] if isinstance(kept, str) else kept for path, kept in commit.items()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        hub, path = self.server, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        hub.asked.append((path, self.headers.get("Authorization")))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            places = [(one, f"{hub.address}/objects/{one['oid']}") for one in json.loads(body)["objects"]]
            objects = [one | {"actions": {"upload": {"href": place}}} for one, place in places]
            return self._answer(200, {"objects": objects})
        repo, action, revision = path.removeprefix("/api/models/").rsplit("/", 2)
        if action == "branch":
            hub.repos[repo]["branches"].append(revision)
            return self._answer(200, {})
        if action == "preupload":
            paths = [one["path"] for one in json.loads(body)["files"]]
            modes = [(path, "lfs" if path.endswith(LARGE) else "regular") for path in paths]
            files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]
            return self._answer(200, {"files": files})
        assert action == "commit"
        return self._commit(repo, revision, body)

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.objects[oid] = body
        self._answer(200, {})

    def _create(self, asked):
        name = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.server.address}/{name}", "name": name}
        if name in self.server.repos:
            return self._answer(409, {"error": "You already created this model repo", **url})
        self.server.repos[name] = {"visibility": asked["visibility"], "branches": ["main"], "commits": []}
        return self._answer(200, url)

    def _commit(self, repo, revision, body):
        if self.server.refuse:
            return self._answer(self.server.refuse[0], {"error": self.server.refuse[1]})
        lines = [(line["key"], line["value"]) for line in map(json.loads, body.splitlines())]
        files = {value["path"]: base64.b64decode(value["content"]) for key, value in lines if key == "file"}
        files |= {value["path"]: value["oid"] for key, value in lines if key == "lfsFile"}
        summary = next(value["summary"] for key, value in lines if key == "header")
        pull = "create_pr=1" in self.path
        self.server.repos[repo]["commits"].append((revision, summary, pull, files))
        answer = {"commitOid": "a" * 40, "commitUrl": f"{self.server.address}/{repo}/commit/{'a' * 40}"}
        if pull:
            answer["pullRequestUrl"] = f"{self.server.address}/{repo}/discussions/1"
        return self._answer(200, answer)

    def _answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status >= 400:
            self.send_header("X-Error-Message", content["error"])
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def fake_hub():
    hub = FakeHub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
