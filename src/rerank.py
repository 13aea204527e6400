"""Rerank documents for a question, or the lists of a run: python -m src.rerank reranker=FOLDER run=FILE ..."""

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from crossrank.errors import one_sentence


@hydra.main(version_base="1.3", config_path="../conf", config_name="rerank")
def main(cfg: DictConfig) -> None:
    """Show the ranking of one question, or write those of a run or a table of candidates."""
    with one_sentence():
        _run(cfg)


def _run(cfg: DictConfig) -> None:
    from crossrank.analysis.closing import close
    from crossrank.gate import validate
    from crossrank.inference.one_question import Question, answer, as_table
    from crossrank.inference.rerank_inputs import RerankInputs, refuse_unless_one
    from crossrank.inference.rerank_run import RerankRun, execute, said
    from crossrank.inference.reranker_spec import RerankerSpec
    from crossrank.process import prepare_process
    from crossrank.quiet import quieten
    from crossrank.schema import RerankConfig

    prepare_process()
    quieten()
    validate(cfg, RerankConfig)
    given = RerankConfig.model_validate(OmegaConf.to_container(cfg, resolve=True))
    refuse_unless_one(query=given.query, run=given.run, candidates=given.candidates)
    model = RerankerSpec(given.reranker, given.max_length, given.tokens_per_batch, given.precision)
    run, candidates, queries, corpus, documents, output = (
        None if place is None else Path(place)
        for place in (given.run, given.candidates, given.queries, given.corpus, given.documents, given.output)
    )
    if given.query is not None:
        ranking = answer(Question(given.query, documents, given.rerank_k, given.top_k or 10), model)
        close([as_table(given.query, ranking)], [], {"query": given.query, "ranking": ranking})
        return
    inputs = RerankInputs(run, candidates, queries, corpus, given.rerank_k, given.with_titles, Path(given.cache_dir))
    facts = execute(RerankRun(model, inputs, output, given.top_k, given.pairs_per_chunk))
    close([], said(facts), facts)


if __name__ == "__main__":
    main()
