from omegaconf import OmegaConf

from crossrank.identity import differences, flat, identity, placed


def config(folder, **changes):
    places = {"run_dir": f"{folder}/run", "cache_dir": f"{folder}/cache"}
    more = {"pool": "${cache_dir}/pools", "resume": None, "model": {"lr": 1, "sizes": [1, 2]}, "hydra": {"x": 1}}
    return OmegaConf.create({**places, **more, **changes})


def test_where_a_run_lies_is_no_part_of_what_it_is():
    assert identity(config("a")) == identity(config("b", resume="auto"))
    assert identity(config("a")) == {"pool": "<cache_dir>/pools", "model": {"lr": 1, "sizes": [1, 2]}}
    assert identity(config("a")) != identity(config("a", seed=1))


def test_folders_are_put_somewhere_else_with_what_lies_in_them():
    tree = {"a": ["x/run", "x/run/deep", "x/runner"], "b": {"c": "x"}, "d": 3}
    assert placed(tree, {"x/run": "y"}) == {"a": ["y", "y/deep", "x/runner"], "b": {"c": "x"}, "d": 3}


def test_values_by_keys_with_dots():
    assert flat({"a": {"b": 1, "c": {}}, "d": [1, {"e": 2}]}) == {"a.b": 1, "a.c": {}, "d": [1, {"e": 2}]}
    assert flat({}) == {}


def test_each_difference_is_named_but_for_how_it_is_trained():
    was = {"data": {"workers": 0, "pairs": 8}, "seed": 1}
    now = {"data": {"workers": 2, "pairs": 9}, "name": "x"}
    assert list(differences(was, now)) == [("data.pairs", 8, 9), ("seed", 1, None), ("name", None, "x")]
    assert ("data.workers", 0, 2) in differences(was, now, how=())
