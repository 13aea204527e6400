"""Words on the command line, read back by Hydra itself."""

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir

from crossrank.analysis.command_line import with_run, with_systems


def systems_of(words):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return list(compose("compare", with_systems(words)).systems)


@pytest.mark.parametrize("word", [
    "runs/a", "runs/a/1,runs/a/2", "with blanks", 'a "quotation"', "it's", "[a]", "{a: 1}", "${a}", "\\${a}", "a\\",
    'a\\"b', "a\\b", "null", "7", "pypi:x", "a~b", "ü", "a#b", "$HOME", "\\\\${a}\\",
])  # fmt: skip
def test_every_word_reaches_the_program_as_it_was_typed(word):
    assert systems_of([word, "b"]) == [word, "b"]


def test_other_arguments_stay_as_they_are():
    given = ["--cfg", "job", "a", "metrics=[map]", "b", "++seed=3", "--config-name", "compare", "~output"]
    rest = ["--cfg", "job", "metrics=[map]", "++seed=3", "--config-name", "compare", "~output"]
    assert with_systems(given) == [*rest, 'systems=["a","b"]']


def test_without_words_nothing_changes():
    assert with_systems(["systems=[a,b]", "--help"]) == ["systems=[a,b]", "--help"]


def test_a_path_with_an_equals_sign_is_a_system_if_it_is_there(tmp_path):
    (tmp_path / "lr=1e-5").mkdir()
    path = str(tmp_path / "lr=1e-5")
    assert with_systems([path, f"{path},{tmp_path}/b"]) == [f'systems=["{path}","{path},{tmp_path}/b"]']
    assert with_systems(["lr=1e-5"]) == ["lr=1e-5"]


def test_systems_given_both_ways_are_refused():
    with pytest.raises(ValueError, match="give them once"):
        with_systems(["a", "systems=[b]"])


@pytest.mark.parametrize("word", ["runs/a", "with blanks", "${a}", "a,b", "ü"])
def test_a_run_reaches_the_program_as_it_was_typed(word):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert compose("verify", with_run([word, "cache_dir=x"])).run == word


def test_one_run_at_a_time():
    assert with_run(["run=a", "--cfg", "job"]) == ["run=a", "--cfg", "job"]
    for words in (["a", "b"], ["a", "run=b"]):
        with pytest.raises(ValueError, match="one run at a time, got 2"):
            with_run(words)
