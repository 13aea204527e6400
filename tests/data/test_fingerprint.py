import hashlib

from crossrank.data.fingerprint import file_fingerprint, fingerprint


def test_it_changes_with_every_part_and_with_their_order():
    same = fingerprint("a", {"x": 1, "y": 2}, 3.0)
    assert same == fingerprint("a", {"y": 2, "x": 1}, 3.0)
    others = {fingerprint("a", {"x": 1, "y": 3}, 3.0), fingerprint({"x": 1, "y": 2}, "a", 3.0), fingerprint("a", 3.0)}
    assert same not in others
    assert len(others) == 3
    assert fingerprint("ab", "c") != fingerprint("a", "bc")


def test_it_is_the_same_in_every_process():
    assert fingerprint("a", [1, None]) == hashlib.sha256(b'["a",[1,null]]').hexdigest()[:16]


def test_a_file_is_known_by_its_content(tmp_path):
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (file_fingerprint(tmp_path / name) for name in "abc")
    assert a == b != c
