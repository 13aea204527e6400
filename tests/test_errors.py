import inspect

import pytest

import crossrank
from crossrank import errors
from crossrank.errors import ConfigError, CrossrankError, DataError, one_sentence

ALL = [e for _, e in inspect.getmembers(errors, inspect.isclass) if issubclass(e, CrossrankError)]


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_caught_as_ours_drawn_in_the_tree_and_exported(error):
    assert issubclass(error, CrossrankError)
    assert error.__name__ in errors.__doc__
    assert getattr(crossrank, error.__name__) is error


@pytest.mark.parametrize(("problems", "head"), [(["a: x"], "1 problem in"), (["a: x", "b: y"], "2 problems in")])
def test_a_config_error_lists_every_problem_on_its_own_line(problems, head):
    error = ConfigError(problems)
    assert error.problems == problems
    first, *rest = str(error).splitlines()
    assert first.startswith(head)
    assert rest == [f"  - {problem}" for problem in problems]


def test_a_program_ends_with_one_sentence_and_code_2(capsys):
    with pytest.raises(SystemExit) as end, one_sentence():
        raise DataError("a.jsonl, row 3: no question")
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: a.jsonl, row 3: no question\n"


def test_where_other_jobs_are_to_run_the_error_goes_on(capsys):
    with pytest.raises(DataError, match="row 3"), one_sentence(passed_on=True):
        raise DataError("row 3")
    assert capsys.readouterr().err == ""


def test_an_error_that_is_not_ours_keeps_its_trace():
    with pytest.raises(KeyError), one_sentence():
        raise KeyError("x")
