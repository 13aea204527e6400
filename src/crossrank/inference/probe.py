"""The pairs by whose scores an export is held against the model that it was written from."""

from dataclasses import dataclass
from itertools import cycle, islice

Pair = tuple[str, str]

QUESTION, DOCUMENT = "how do I sort a list in python", "Return a new sorted list from the items in iterable."
SHORT: tuple[Pair, ...] = (
    (QUESTION, DOCUMENT),
    (QUESTION, "The river Danube passes through ten countries, more than any other river in the world."),
    ("a", "b"),
    (QUESTION, ""),
    ("", DOCUMENT),
    ("   ", "\n\t\n"),
    ("?", "..."),
    ("WHAT IS THE CAPITAL OF FRANCE", "paris has been the capital of france since 508, with few interruptions"),
    ("how much is 12.5 % of 1,234.56", "154.32: multiply 1,234.56 by 0.125 and round to two decimals."),
    ("what is naïve café résumé", "Cafés naïfs: Ångström, façade, Zürich, Łódź, São Paulo — “quoted” … and ½."),
    ("cafe\u0301 with a combining accent", "café without one, and a\u00a0no-break space, a\u200bzero-width one"),
    ("什么是机器学习", "机器学习是人工智能的一个分支，使计算机能够从数据中学习。"),  # noqa: RUF001
    ("ما هي عاصمة مصر", "القاهرة هي عاصمة جمهورية مصر العربية وأكبر مدنها."),
    ("какая река самая длинная", "Самой длинной рекой обычно считают Нил или Амазонку."),
    ("what does 🙂👍🏽 mean", "👩‍👩‍👧‍👦 is one emoji made of four, joined by zero-width joiners"),
    ("python def with default", "def f(x: int = 0, *, y=None) -> dict[str, int]:\n    return {'x': x, **(y or {})}\n"),
    ("select rows where null", "SELECT * FROM t WHERE a IS NULL AND b <> 'it''s'; -- comment\n/* more */"),
    ("a literal [SEP] in a text", "which holds </s> <mask> [CLS] and [PAD] as a user may write them"),
    ("supercalifragilisticexpialidocious " * 3, "pneumonoultramicroscopicsilicovolcanoconiosis" * 4),
    ("https://example.org/a?b=c&d=%20#e", "curl -sSL 'https://example.org/a?b=c' | tar -xz -C /tmp"),
)  # fmt: skip
SENTENCE = "how do you write a file of rivers and mountains in code without losing the last line again"
MOST_WORDS = 384  # of a text that is scored: thousands of tokens would take a CPU minutes


@dataclass(frozen=True)
class Probe:
    """Pairs for a model that takes `max_length` tokens of a pair.

    The short ones are scored together, so that most are padded, and each long one alone. The long ones are cut at
    `max_length`, in the document, the question or both, where that is at most `MOST_WORDS`.
    """

    max_length: int

    @property
    def groups(self) -> list[list[Pair]]:
        """What is scored, by batches."""
        long = _text(min(self.max_length, MOST_WORDS) + 8)
        return [list(SHORT), [(QUESTION, long)], [(long, DOCUMENT)], [(long, long)]]

    @property
    def pairs(self) -> list[Pair]:
        """What is scored, in that order."""
        return [pair for group in self.groups for pair in group]

    @property
    def longest(self) -> Pair:
        """A pair that is cut, whatever `max_length` is; it is tokenised, not scored."""
        return QUESTION, _text(self.max_length + 8)


def _text(words: int) -> str:
    return " ".join(islice(cycle(SENTENCE.split()), words))
