"""Rank documents for a question: python -m src.rerank reranker=FOLDER documents=FILE query='...'."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from crossrank.errors import one_sentence


@hydra.main(version_base="1.3", config_path="../conf", config_name="rerank")
def main(cfg: DictConfig) -> None:
    """Find candidates with BM25, rerank them, print the best."""
    with one_sentence():
        _run(cfg)


def _run(cfg: DictConfig) -> None:
    from rich.table import Table

    from crossrank.analysis.closing import close
    from crossrank.gate import validate
    from crossrank.inference.reranker import Reranker, first_stage, read_documents
    from crossrank.process import prepare_process
    from crossrank.schema import RerankConfig

    prepare_process()
    validate(cfg, RerankConfig)
    documents = read_documents(Path(cfg.documents))
    candidates = first_stage(cfg.query, documents, cfg.rerank_k)
    ranked = Reranker(cfg.reranker).rank(cfg.query, [documents[i] for i in candidates], cfg.top_k)
    table = Table("rank", "score", "first stage", "document", title=cfg.query)
    for rank, found in enumerate(ranked, start=1):
        text = " ".join(found.text.split())
        table.add_row(
            str(rank), f"{found.score:.4f}", str(found.index + 1), text[:200] + ("..." if len(text) > 200 else "")
        )
    found_ones = [{"score": found.score, "first_stage": found.index + 1, "document": found.text} for found in ranked]
    close([table], [], {"query": cfg.query, "ranking": found_ones})


if __name__ == "__main__":
    main()
