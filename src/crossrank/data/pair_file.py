"""Pairs in an Arrow file: written in blocks, read as a memory map."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from crossrank.data.pairs import QAPairs
from crossrank.data.texts import Texts

PAIRS_PER_BLOCK = 8192
LABELS = {"label": False, "score": True}  # the column that holds labels, and whether they are a teacher's scores


class PairWriter:
    """Writes columns question and answer, and, if so named, `label` or `score`, and copies."""

    def __init__(self, file: Path, labels: Literal["label", "score"] | None = None, copies: bool = False) -> None:
        fields = [("question", pa.large_string()), ("answer", pa.large_string())]
        fields += [(labels, pa.float32())] if labels else []
        fields += [("copies", pa.int32())] if copies else []
        self._schema = pa.schema(fields)
        self._stream = file.open("wb")  # Python's own: it tells a full disk from other errors
        self._writer = pa.ipc.new_file(self._stream, self._schema)

    def write(self, *columns: Iterable[str] | npt.NDArray[np.generic] | None) -> None:
        """Append one block: a value a pair of every column that there is, in the schema's order."""
        given = [column for column in columns if column is not None]
        arrays = [
            pa.array(column if isinstance(column, np.ndarray) else list(column), field.type)
            for column, field in zip(given, self._schema, strict=True)
        ]
        self._writer.write_batch(pa.record_batch(arrays, self._schema))

    def __enter__(self) -> "PairWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._writer.close()
        finally:
            self._stream.close()


def write_pairs(file: Path, pairs: QAPairs) -> None:
    """Write pairs a block at a time."""
    labels = None if pairs.labels is None else "score" if pairs.scored else "label"
    with PairWriter(file, labels, pairs.copies is not None) as writer:  # type: ignore[arg-type]
        questions, answers = iter(pairs.questions), iter(pairs.answers)
        for start in range(0, len(pairs), PAIRS_PER_BLOCK):
            block = slice(start, start + PAIRS_PER_BLOCK)
            numbers = (None if column is None else column[block] for column in (pairs.labels, pairs.copies))
            writer.write(islice(questions, PAIRS_PER_BLOCK), islice(answers, PAIRS_PER_BLOCK), *numbers)


def write_stream(file: Path, rows: Iterable[tuple[Any, ...]], labels: Literal["label", "score"] | None = None) -> None:
    """Write (question, answer), or with `labels` (question, document, label), as they come, a block at a time."""
    rows = iter(rows)
    with PairWriter(file, labels) as writer:
        while block := list(islice(rows, PAIRS_PER_BLOCK)):
            writer.write(*zip(*block, strict=True))


def open_pairs(file: Path) -> QAPairs:
    """Map the pairs of a file; their texts stay on the disk until they are looked at."""
    reader = pa.ipc.open_file(pa.memory_map(str(file)))
    batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
    columns = {name: [batch.column(name) for batch in batches] for name in reader.schema.names}
    labels = next((name for name in LABELS if name in columns), None)
    return QAPairs(
        Texts(columns["question"]),
        Texts(columns["answer"]),
        _numbers(columns[labels], np.float32) if labels else None,
        LABELS.get(labels or "", False),
        _numbers(columns["copies"], np.int32) if "copies" in columns else None,
    )


def _numbers(arrays: list[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *(array.to_numpy() for array in arrays)], dtype=dtype)
