import pytest
from made_runs import HOSTILE, write_job, write_sweep
from page_reader import Reader

from crossrank.analysis.sweeps import SweepFolder
from crossrank.pages.sweep_report import sweep_page


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = write_sweep(tmp_path_factory.mktemp("sweeps") / "lr_sweep")
    (folder / "job11" / "report.html").write_text("")
    return SweepFolder(folder)


@pytest.fixture(scope="module")
def reader(sweep):
    return Reader(sweep_page(sweep))


def test_the_page_holds_every_job_with_its_value_and_interval(sweep, reader):
    best = sweep.best
    for job in sweep.jobs.itertuples():
        assert job.job in reader.text
        if job.state == "finished":
            curve = {end: sweep.runs[job.job].curve(f"{sweep.monitor}_{end}")[job.best_step] for end in ("low", "high")}
            assert f"{job.value:.4f} [{curve['low']:.4f}, {curve['high']:.4f}]" in reader.text
    assert f"The best job is {best}" in reader.text
    assert "4 finished, 1 failed, 1 unfinished" in reader.text


def test_the_override_line_of_the_best_is_ready_to_paste(sweep, reader):
    rate, seed, kind = sweep.jobs.iloc[0][["optimizer.lr", "seed", "policy.kind"]]
    line = f"python -m src.train experiment=smoke optimizer.lr={rate} seed={seed} 'policy.kind={kind}'"
    assert line in reader.seen


def test_a_best_job_whose_command_is_not_known_says_so(tmp_path):
    write_job(tmp_path, "a", {"optimizer.lr": 1.0})
    (tmp_path / "a" / "origin.json").unlink()
    text = Reader(sweep_page(SweepFolder(tmp_path))).text
    assert "its command was not recorded" in text
    assert "python -m src.train" not in text


def test_only_jobs_that_have_a_page_are_linked(reader):
    links = [attributes["href"] for tag, attributes in reader.elements if tag == "a"]
    assert [link for link in links if not link.startswith("#")] == ["./job11/report.html"]


def test_errors_and_hostile_choices_are_shown_as_they_are(reader):
    for text in HOSTILE[:2]:
        assert text in reader.text
    assert f"nan {HOSTILE[0]}" in reader.text


def test_importance_and_seeds_are_there(reader):
    assert "What the choices explain" in reader.text
    assert "Seed variance" in reader.text


def test_a_sweep_of_which_nothing_has_finished_says_so(tmp_path):
    write_job(tmp_path, "a", {"optimizer.lr": 1.0}, failure="broken")
    write_job(tmp_path, "b", {"optimizer.lr": 2.0}, finished=False)
    text = Reader(sweep_page(SweepFolder(tmp_path))).text
    for said in (
        "No job has finished",
        "fewer than two finished jobs",
        "there are 0",
        "All jobs have one seed",
        "broken",
    ):
        assert said in text


def test_a_sweep_of_one_job_has_a_page(tmp_path):
    write_job(tmp_path, "a", {"optimizer.lr": 1.0})
    assert "The best job is a. To train it again:" in Reader(sweep_page(SweepFolder(tmp_path))).text


def test_groups_with_long_names_are_numbered(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        write_job(tmp_path, name, {"seed": seed, "policy.kind": "k" * 20, "policy.other": seed * 0})
        write_job(tmp_path, f"{name}2", {"seed": seed, "policy.kind": "l" * 20, "policy.other": 1})
    text = Reader(sweep_page(SweepFolder(tmp_path))).text
    assert "group 1" in text
    assert "group 2" in text
