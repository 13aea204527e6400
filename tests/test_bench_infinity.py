"""What bench.infinity says of a server, against one that answers as Infinity does, rightly or not."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from conftest import MINILM

from bench import infinity
from crossrank.inference.reranker import Reranker
from crossrank.models.backbones import RandomInit
from crossrank.models.export import export


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    backbone = RandomInit(MINILM, "bert", hidden_size=16, max_length=64)
    model = backbone.build(3)
    for weight in model.parameters():
        weight.data *= 8
    return Reranker(str(export(model, backbone.encoder(), tmp_path_factory.mktemp("infinity") / "tiny")), device="cpu")


@pytest.fixture
def url(reranker):
    """A server that scores by the export itself, plus its `wrong`, and leaves out as many documents as `missing`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/models"
            self._answer({"data": [{"id": "tiny"}]})

        def do_POST(self):
            words = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert (self.path, words["model"]) == ("/rerank", "tiny")
            logits = reranker.score([(words["query"], document) for document in words["documents"]]).logits
            scores = logits if words["raw_scores"] else 1 / (1 + np.exp(-logits.astype(np.float64)))
            rows = [{"index": i, "relevance_score": float(score) + server.wrong} for i, score in enumerate(scores)]
            rows.sort(key=lambda row: -row["relevance_score"])
            self._answer({"results": rows[: len(rows) - server.missing]})

        def _answer(self, content):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.wrong, server.missing = 0.0, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_that_scores_as_the_export_agrees(reranker, url):
    assert max(infinity.gaps(reranker, url[1]).values()) < infinity.TOLERANCE


@pytest.mark.parametrize("fault", [{"wrong": 1e-3}, {"missing": 1}])
def test_one_that_does_not_is_told(fault, reranker, url, monkeypatch, capsys):
    server, address = url
    vars(server).update(fault)
    monkeypatch.setattr("sys.argv", ["infinity", str(reranker.folder), "--url", address])
    with pytest.raises(SystemExit, match="the server's scores are not the export's"):
        infinity.main()
    found = json.loads(capsys.readouterr().out)
    expected = fault.get("wrong", float("nan")) / max(1.0, np.abs(reranker.score(_pairs(reranker)).logits).max())
    assert found["logits"] == pytest.approx(expected, rel=0.01, nan_ok=True)


def _pairs(reranker):
    return infinity.Probe(reranker.max_length).pairs
