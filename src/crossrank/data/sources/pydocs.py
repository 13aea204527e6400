"""Questions and answers from the docstrings of installed packages: real text, no network.

The question is a docstring's summary, the answer is the prose of its body, up to the first section (parameters,
examples, formulas). Files are parsed, never imported or executed.
"""

import ast
import gc
import importlib.metadata
import platform
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crossrank.data.pairs import Ingredients, QAPairs, Splits, check_counts, split_dev
from crossrank.data.readers import is_unicode
from crossrank.errors import DataError
from crossrank.hub import Asset

STDLIB = "stdlib"
SKIPPED_FOLDERS = {"test", "tests", "testing", "site-packages", "idlelib", "lib2to3", "turtledemo", "__pycache__"}
QUESTION_WORDS = (4, 25)
ANSWER_WORDS = (12, 80)
TRIVIAL_SHARE = 0.5  # of the question's words of 4 letters or more; none at all is as useless
ROLE = re.compile(r":[\w:+-]+:`~?([^`<]*?)(?:\s*<[^`>]*>)?`")  # :class:`~torch.Tensor`, :ref:`text <target>`
MARKS = re.compile(r"[`*|]+_{0,2}")
UNDERLINE = re.compile(r"\s*[-=~^*#]{3,}\s*")
SECTION_TITLES = (
    "arguments|args|attributes|examples?|inputs?|keyword args|notes?|outputs?|parameters|params|raises|references|"
    "returns?|see also|shape|usage|warnings?|yields"
)
SECTION = re.compile(rf"\s*(?:(?:{SECTION_TITLES})\b.{{0,20}}:?\s*$|>>>|```|\.\. |::|:\w+[^:]*:)", re.IGNORECASE)


@dataclass(frozen=True)
class PyDocs:
    """Docstrings of the standard library and of the named distributions, `dev_size` of them held out by `seed`.

    The same on every machine that has the same versions. `limit` keeps a random part of the training pairs.
    """

    packages: tuple[str, ...]
    dev_size: int
    limit: int | None = None
    seed: int = 12

    def __post_init__(self) -> None:
        if not self.packages:
            raise ValueError(f"packages must name at least one distribution or {STDLIB!r}, got none")
        check_counts(dev_size=("held-out questions", self.dev_size), limit=("training pairs", self.limit))

    def assets(self) -> Sequence[Asset]:
        """Return nothing: the packages are installed."""
        return ()

    def ingredients(self) -> Ingredients:
        """Return the packages' versions, the filter and the split.

        Raises:
            DataError: a package is not installed.
        """
        content = {
            "kind": "pydocs-10", "packages": [f"{package} {_version(package)}" for package in self.packages],
            "question_words": QUESTION_WORDS, "answer_words": ANSWER_WORDS, "trivial_share": TRIVIAL_SHARE,
        }  # fmt: skip
        return Ingredients(content, {"limit": self.limit, "dev_size": self.dev_size, "seed": self.seed})

    def fingerprint(self) -> str:
        """Return an id of the packages' versions, the filter and the split."""
        return self.ingredients().fingerprint

    def load(self) -> Splits:
        """Parse the packages and split their pairs.

        Raises:
            DataError: a package is not installed, or too few pairs are found.
        """
        with _no_collection():
            found = [pair for package in self.packages for pair in _package_pairs(package)]
        splits = split_dev(_distinct(found), self.dev_size, self.seed)
        return Splits(_first(splits.train, self.limit), splits.dev)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Syntax trees are many small objects without cycles; looking for some takes a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _first(pairs: QAPairs, limit: int | None) -> QAPairs:
    return QAPairs(pairs.questions[:limit], pairs.answers[:limit])


def _distinct(found: Sequence[tuple[str, str]]) -> QAPairs:
    """Drop every question and every answer that stands in more than one place: they do not tell which is meant."""
    questions = Counter(question.lower() for question, _ in found)
    answers = Counter(answer.lower() for _, answer in found)
    kept = [(q, a) for q, a in found if questions[q.lower()] == 1 and answers[a.lower()] == 1]
    return QAPairs([q for q, _ in kept], [a for _, a in kept])


def _package_pairs(package: str) -> Iterator[tuple[str, str]]:
    for file in _python_files(package):
        for docstring in _docstrings(file):
            summary, _, body = docstring.partition("\n\n")
            question, answer = _plain(summary), _plain(_prose(body))
            if _within(question, QUESTION_WORDS) and _within(answer, ANSWER_WORDS) and _telling(question, answer):
                yield question, answer


def _prose(body: str) -> str:
    """Return the text before the first section, on one line."""
    kept: list[str] = []
    for line in body.splitlines():
        if SECTION.match(line):
            break
        if UNDERLINE.fullmatch(line):
            kept = kept[:-1]  # what it underlines is a section's title
            break
        kept.append(line)
    return " ".join(kept)


def _plain(text: str) -> str:
    """Return the text on one line, without reStructuredText's roles and marks."""
    return " ".join(MARKS.sub("", ROLE.sub(r"\1", text)).split())


def _telling(question: str, answer: str) -> bool:
    """Whether a reader could tell the answer from others, and a word counter would not do it alone.

    The answer repeats some of the question's longer words, but at most half of them.
    """
    asked, said = (set(re.findall(r"\w{4,}", text.lower())) for text in (question, answer))
    return 0 < len(asked & said) <= TRIVIAL_SHARE * len(asked)


def _within(text: str, words: tuple[int, int]) -> bool:
    return words[0] <= len(text.split()) <= words[1]


def _docstrings(file: Path) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's escape sequences; a DeprecationWarning until Python 3.12
        try:
            tree = ast.parse(file.read_bytes())
        except OSError as error:
            raise DataError(
                f"{file}: {error.strerror}, though its package lists it; install the package anew"
            ) from error
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return  # templates, deliberately broken files, and expressions too deep to parse
    for node in (tree, *_statements(tree)):
        if isinstance(node, documented):
            docstring = ast.get_docstring(node)
            if docstring and is_unicode(docstring):
                yield docstring


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Walk the statements below a node; expressions, which are most of a tree, define nothing with a docstring."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child
            yield from _statements(child)


def _python_files(package: str) -> list[Path]:
    """List a package's files in a fixed order, without its tests."""
    if package == STDLIB:
        root = Path(sysconfig.get_path("stdlib"))
        files = {file.relative_to(root): file for file in root.rglob("*.py")}
    else:
        listed = _distribution(package).files or []
        files = {Path(str(file)): Path(str(file.locate())) for file in listed if file.suffix == ".py"}
    return [files[name] for name in sorted(files) if not SKIPPED_FOLDERS.intersection(name.parts)]


def _version(package: str) -> str:
    return platform.python_version() if package == STDLIB else _distribution(package).version


def _distribution(package: str) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise DataError(f"the package {package!r}, whose docstrings are wanted, is not installed") from None
