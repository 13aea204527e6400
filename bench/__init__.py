"""Speed beside the peer's, sentence-transformers: same weights, same batches, one process, turn and turn about."""
