"""Does Infinity serve an export's scores? Asks a running server: python -m bench.infinity EXPORT --url URL.

The server is Infinity's own, started as its users do: `infinity_emb v2 --model-id EXPORT --device cpu`.
"""

import argparse
import json
import math
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from crossrank.inference.parity import TOLERANCE, largest_gap
from crossrank.inference.probe import Probe
from crossrank.inference.reranker import Reranker


def served(url: str, model: str, query: str, documents: list[str], raw: bool) -> np.ndarray:
    """Return the server's scores of a query's documents, float64 [documents]: logits, or what it makes of them."""
    answer = _asked(f"{url}/rerank", query=query, documents=documents, raw_scores=raw, model=model)
    scores = np.full(len(documents), np.nan)
    for result in answer["results"]:
        scores[result["index"]] = result["relevance_score"]
    return scores


def gaps(reranker: Reranker, url: str) -> dict[str, float]:
    """Return the largest difference of a logit and of a score, over the pairs that the parity gate scores.

    They are asked for one by one, and the documents also in one request. A difference is a share of the largest number
    expected where that is beyond 1, as the gate takes it; it is NaN where the server leaves a document out.
    """
    pairs, model = Probe(reranker.max_length).pairs, _asked(f"{url}/models")["data"][0]["id"]
    query, documents = pairs[0][0], [document for _, document in pairs]
    logits = reranker.score(pairs).logits
    scores = np.asarray(reranker.activated(logits))
    of_one_query = reranker.score([(query, document) for document in documents]).logits
    return {
        "logits": _gap(np.concatenate([served(url, model, q, [document], True) for q, document in pairs]), logits),
        "scores": _gap(np.concatenate([served(url, model, q, [document], False) for q, document in pairs]), scores),
        "logits, one request": _gap(served(url, model, query, documents, True), of_one_query),
    }


def _gap(found: np.ndarray, expected: np.ndarray) -> float:
    return math.nan if (gap := largest_gap(found, expected)) is None else gap


def _asked(url: str, **words: Any) -> Any:
    request = urllib.request.Request(url, headers={"Content-Type": "application/json"})
    request.data = json.dumps(words).encode() if words else None
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("export", type=Path)
    parser.add_argument("--url", default="http://localhost:7997")
    given = parser.parse_args()
    found = gaps(Reranker(str(given.export), device="cpu"), given.url)
    print(json.dumps(found))
    if not all(gap < TOLERANCE for gap in found.values()):
        raise SystemExit(f"the server's scores are not the export's: at most {TOLERANCE:g} is allowed")


if __name__ == "__main__":
    main()
