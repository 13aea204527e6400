import sys
from pathlib import Path

import pytest

from crossrank.data.sources import pydocs
from crossrank.data.sources.pydocs import PyDocs
from crossrank.errors import DataError

BODY = "It tells at some length of the thing named {} and its uses, so that twelve words are surely reached."


def documented(name: str, summary: str | None = None, body: str | None = None) -> str:
    text = f"{summary or f'Say what thing {name} does.'}\n\n    {body or BODY.format(name)}"
    return f'def {name}():\n    """{text}\n    """\n'


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a fake distribution of the given files."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(files: dict[str, str | bytes], name: str = "fakedocs", version: str = "1.0") -> Path:
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
        for file, content in files.items():
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


def pairs_of(source: PyDocs) -> dict[str, str]:
    splits = source.load()
    return dict(
        zip([*splits.train.questions, *splits.dev.questions], [*splits.train.answers, *splits.dev.answers], strict=True)
    )


def functions(*names: str) -> str:
    return "".join(documented(name) for name in names)


def test_files_are_parsed_and_never_imported_or_executed(install):
    trap = "import pathlib, sys\npathlib.Path(__file__).with_suffix('.ran').touch()\nraise SystemExit('executed')\n"
    root = install({"fakedocs/__init__.py": trap + functions("one", "two")})
    assert set(pairs_of(PyDocs(("fakedocs",), dev_size=1))) == {"Say what thing one does.", "Say what thing two does."}
    assert not list(root.rglob("*.ran"))
    assert "fakedocs" not in sys.modules


def test_a_pair_is_the_summary_and_the_body_of_a_docstring_on_one_line_each(install):
    nested = (
        '"""Say what this module\nis good for.\n\nThe body of this goes on for a while,\n\n   over several paragraphs '
        'of text, so that it is enough.\n"""\n'
        "class Thing:\n" + "".join(f"    {line}\n" for line in documented("method").splitlines())
    )
    install({"fakedocs/a.py": nested, "fakedocs/b.py": "async " + documented("wait")})
    assert pairs_of(PyDocs(("fakedocs",), dev_size=1)) == {
        "Say what this module is good for.": (
            "The body of this goes on for a while, over several paragraphs of text, so that it is enough."
        ),
        "Say what thing method does.": BODY.format("method"),
        "Say what thing wait does.": BODY.format("wait"),
    }


@pytest.mark.parametrize(
    "section",
    [
        "Parameters\n    ----------\n    x : int", "Args:\n        x: what", "Examples\n    ========",
        "Returns:\n        y", ">>> one()", "```python", ":param x: what", ":return: what", ".. math:: x",
        "::\n\n        code", "History\n    ~~~",
    ],
)  # fmt: skip
def test_the_answer_ends_where_the_first_section_starts(install, section):
    body = BODY.format("one") + f"\n\n    {section}\n    and what follows in it"
    install({"fakedocs/a.py": documented("one", body=body) + documented("two")})
    assert pairs_of(PyDocs(("fakedocs",), dev_size=1))["Say what thing one does."] == BODY.format("one")


@pytest.mark.parametrize(("written", "read"), [
    ("Use :func:`~torch.sum` or :class:`Tensor`.", "Use torch.sum or Tensor."),
    ("See :ref:`the guide <guide-label>` on ``x``,", "See the guide on x,"),
    ("the *first* **item** of `rows`_.", "the first item of rows."),
    ("a snake_case_name, __init__ and x_1", "a snake_case_name, __init__ and x_1"),
])  # fmt: skip
def test_markup_is_no_text(written, read):
    assert pydocs._plain(written) == read


@pytest.mark.parametrize(("answer", "kept"), [
    ("This matrix and that vector are taken as they come and nothing else is said about them here.", False),
    ("This tensor and that vector are taken as they come and nothing else is said about them here.", True),
    ("This tensor and that gradient are taken as they come and nothing else is said about them here.", True),
    ("This tensor and that gradient are taken slowly as they come and nothing else is said about it here.", False),
], ids=["none", "one", "half", "most"])  # fmt: skip
def test_an_answer_shares_some_of_the_questions_longer_words_and_at_most_half(install, answer, kept):
    """They are "compute", "tensor", "gradient" and "slowly"."""
    question = "Compute the tensor gradient of it slowly"
    install({"fakedocs/a.py": documented("a", question, answer) + functions("b", "c")})
    assert (question in pairs_of(PyDocs(("fakedocs",), dev_size=1))) == kept


def test_words_that_only_look_like_a_title_do_not_end_the_answer(install):
    body = (
        "Note that arguments of a thing are kept as they are, and that a line - such as this one - may\n    hold a "
        "colon: so. Examples of that are given in the manual, which also says more."
    )
    install({"fakedocs/a.py": documented("one", body=body) + documented("two")})
    assert pairs_of(PyDocs(("fakedocs",), dev_size=1))["Say what thing one does."] == " ".join(body.split())


def test_what_is_repeated_too_short_or_too_long_is_dropped(install):
    def words(count: int, of: str) -> str:
        return " ".join(["Something", *(f"{of}{i}word" for i in range(count - 1))])

    shortest, longest = pydocs.ANSWER_WORDS
    install(
        {
            "fakedocs/a.py": functions("one", "two", "twice")
            + documented("b", summary="SAY what thing TWICE does.", body="Another thing. " * 6)
            + documented("c", summary="The first thing with this body.", body=BODY.format("same"))
            + documented("d", summary="The second thing with this body.", body=BODY.format("same").upper()),
            "fakedocs/b.py": documented("e", summary=words(3, "q"))
            + documented("f", summary=words(26, "q"))
            + documented("g", body=words(shortest - 1, "a"))
            + documented("h", body=words(longest + 1, "a"))
            + documented("i", summary=words(4, "r"), body=words(shortest, "b"))
            + documented("j", summary=words(25, "s"), body=words(longest, "c")),
        }
    )
    assert set(pairs_of(PyDocs(("fakedocs",), dev_size=1))) == {
        "Say what thing one does.", "Say what thing two does.", words(4, "r"), words(25, "s"),
    }  # fmt: skip


def test_tests_broken_files_and_other_files_are_skipped(install):
    install(
        {
            "fakedocs/good.py": functions("one", "two"),
            "fakedocs/tests/test_it.py": functions("tested"),
            "fakedocs/broken.py": functions("broken") + "def (",
            "fakedocs/null.py": b"x = 1\0",
            "fakedocs/latin.py": b'"""caf\xe9"""\n',
            "fakedocs/deep.py": "x = " + "-" * 100_000 + "1\n",
            "fakedocs/escapes.py": 'def f():\n    """Match thing \\d in a text.\n\n    '
            + BODY.format("escape")
            + '"""\n',
            "fakedocs/surrogate.py": documented("half", body="\\ud800 " + BODY.format("half")),
            "fakedocs/data.txt": functions("data"),
        }
    )
    assert set(pairs_of(PyDocs(("fakedocs",), dev_size=1))) == {
        "Say what thing one does.", "Say what thing two does.", "Match thing \\d in a text.",
    }  # fmt: skip


def test_dev_questions_are_held_out_and_a_limit_shortens_only_training(install):
    install({"fakedocs/a.py": functions(*(f"f{i}" for i in range(30)))})
    whole = PyDocs(("fakedocs",), dev_size=5, seed=1).load()
    short = PyDocs(("fakedocs",), dev_size=5, seed=1, limit=7).load()
    assert (len(whole.train), len(whole.dev)) == (25, 5)
    assert not set(whole.train.questions) & set(whole.dev.questions)
    assert not set(whole.train.answers) & set(whole.dev.answers)
    assert short.dev == whole.dev
    assert short.train.questions == whole.train.questions[:7]
    assert whole.train.questions[:7] != sorted(whole.train.questions)[:7]
    assert PyDocs(("fakedocs",), dev_size=5, seed=2).load().dev != whole.dev


def test_the_pairs_do_not_depend_on_the_order_in_which_files_are_listed(install, monkeypatch):
    install({f"fakedocs/{name}.py": functions(f"{name}1", f"{name}2") for name in "dacb"})
    first = PyDocs(("fakedocs",), dev_size=2).load()
    listed = pydocs._distribution("fakedocs").files or []

    class Reversed:
        files = listed[::-1]

    monkeypatch.setattr(pydocs, "_distribution", lambda package: Reversed)
    assert PyDocs(("fakedocs",), dev_size=2).load() == first


def test_the_standard_library_gives_the_same_real_pairs_each_time(monkeypatch):
    files = [file for file in pydocs._python_files(pydocs.STDLIB) if file.name in ("textwrap.py", "json", "shutil.py")]
    monkeypatch.setattr(pydocs, "_python_files", lambda package: files)
    source = PyDocs((pydocs.STDLIB,), dev_size=3)
    pairs = pairs_of(source)
    answer = pairs["Collapse and truncate the given text to fit in the given width."]
    assert answer == (
        "The text first has its whitespace collapsed. If it then fits in the width, it is returned as is. Otherwise, "
        "as many words as possible are joined and then the placeholder is appended::"
    )
    assert source.load() == source.load()


def test_the_fingerprint_follows_versions_and_split(install):
    install({"fakedocs/a.py": ""})
    install({"otherdocs/a.py": ""}, name="otherdocs", version="2.0")
    sources = [
        PyDocs(("fakedocs",), dev_size=1), PyDocs(("otherdocs",), dev_size=1), PyDocs(("fakedocs", "otherdocs"), 1),
        PyDocs(("fakedocs",), dev_size=2), PyDocs(("fakedocs",), 1, limit=3), PyDocs(("fakedocs",), 1, seed=3),
    ]  # fmt: skip
    assert len({source.fingerprint() for source in sources}) == len(sources)


def test_a_new_version_of_a_package_is_another_source(install, tmp_path):
    install({"fakedocs/a.py": ""})
    before = PyDocs(("fakedocs",), dev_size=1).fingerprint()
    (tmp_path / "fakedocs-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: fakedocs\nVersion: 1.1")
    assert PyDocs(("fakedocs",), dev_size=1).fingerprint() != before


def test_a_package_that_is_not_installed_is_named():
    source = PyDocs(("stdlib", "no-such-package"), dev_size=1)
    with pytest.raises(DataError, match="'no-such-package', whose docstrings are wanted, is not installed"):
        source.fingerprint()
    with pytest.raises(DataError, match="'no-such-package', whose docstrings are wanted, is not installed"):
        PyDocs(("no-such-package",), dev_size=1).load()


def test_a_file_that_is_listed_and_not_there_is_named(install):
    root = install({"fakedocs/a.py": functions("one", "two"), "fakedocs/b.py": ""})
    (root / "fakedocs" / "b.py").unlink()
    with pytest.raises(DataError, match=r"b\.py: No such file or directory, though its package lists it"):
        PyDocs(("fakedocs",), dev_size=1).load()


def test_too_few_pairs_are_refused(install):
    install({"fakedocs/a.py": functions("one")})
    with pytest.raises(DataError, match="1 pairs, of which 1 were to be held out"):
        PyDocs(("fakedocs",), dev_size=1).load()


@pytest.mark.parametrize(
    "settings", [{"packages": ()}, {"dev_size": 0}, {"limit": 0}], ids=["packages", "dev_size", "limit"]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"must (name at least one|be at least 1)"):
        PyDocs(**{"packages": ("stdlib",), "dev_size": 1, **settings})
