import inspect

import pytest

import crossrank
from crossrank import errors
from crossrank.errors import ConfigError, CrossrankError

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
