"""The README is executable: what it tells a person to type is checked here."""

import re
import shlex
import subprocess

import pytest
from conftest import ROOT, composed
from omegaconf import OmegaConf

from crossrank.analysis.command_line import with_run, with_systems
from crossrank.config import build_audit, build_evaluation, build_training_run
from crossrank.gate import validate
from crossrank.schema import (
    CompareConfig,
    EvaluateConfig,
    ExportConfig,
    ReportConfig,
    RerankConfig,
    RunConfig,
    VerifyConfig,
)

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README, *(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md")))]
BLOCKS = [block for page in PAGES for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)]
COMMANDS = [line.partition(" #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
PROGRAMS = sorted(
    {c for c in COMMANDS if c.startswith("python -m src.")} | set(re.findall(r"`(python -m src\.[^`]*=[^`]*)`", README))
)
SCHEMAS = {
    "compare": CompareConfig, "export": ExportConfig, "report": ReportConfig, "rerank": RerankConfig,
    "verify": VerifyConfig,
}  # fmt: skip
WORDED = {"compare": with_systems, "export": with_run, "report": with_run, "verify": with_run}
PLACEHOLDERS = {
    "FILE": str(ROOT / "README.md"),
    "FOLDER": str(ROOT),
    "DEV_FILE": str(ROOT / "README.md"),
    "NAME": "gooaq_bce",
}


def _overrides(command):
    of_a_sweep = ("hydra/launcher=", "hydra.launcher.", "hydra.sweeper.")  # test_configs.py has them
    words = [word for word in shlex.split(command)[3:] if word != "-m" and not word.startswith(of_a_sweep)]
    for name, path in PLACEHOLDERS.items():
        words = [re.sub(rf"(?<=[=\[,]){name}(?=[\],]|$)", path, word) for word in words]
    first = [re.sub(r"=.*interval\(([^,]+),.*", r"=\1", word) for word in words]  # of a sweep, the first value
    return [re.sub(r"=([^\[{,]+),.*", r"=\1", word) for word in first]


def test_it_is_short_and_names_commands():
    assert len(README.splitlines()) <= 150
    assert {"make train", "make test"} <= set(COMMANDS)
    assert len(PROGRAMS) >= 5


@pytest.mark.parametrize("command", PROGRAMS)
def test_each_program_call_composes_and_passes_the_gate(command, tmp_path):
    program = shlex.split(command)[2].removeprefix("src.")
    assert (ROOT / "src" / f"{program}.py").is_file()
    cfg = composed(*WORDED.get(program, list)(_overrides(command)), root=program)
    OmegaConf.set_struct(cfg, False)
    if "run_dir" in cfg:
        cfg.run_dir = str(tmp_path)
    if program in ("train", "mine"):
        if "FILE" not in command:
            build_training_run(cfg)
        else:
            validate(cfg, RunConfig)
    elif program == "audit":
        build_audit(cfg)
    elif program == "evaluate":
        build_evaluation(cfg, EvaluateConfig)
    else:
        validate(cfg, SCHEMAS[program])


@pytest.mark.parametrize("command", sorted({c for c in COMMANDS if c.startswith("make ")}))
def test_each_make_target_exists(command):
    done = subprocess.run(["make", "-n", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_tree_is_true():
    tree = README.split("```text\n", 1)[1].split("```", 1)[0]
    named, parents = set(), {0: ROOT}
    for line in tree.splitlines():
        match = re.match(r"^([│ ]*)[├└]── (\S+(?: \S+)*)", line)  # names, before two blanks and what they are
        if match:
            depth = len(match[1]) // 4
            paths = [parents[depth] / name.rstrip("/") for name in match[2].split()]
            parents[depth + 1] = paths[0]
            named.update(paths)
            missing = [str(path.relative_to(ROOT)) for path in paths if not path.exists()]
            assert not missing, f"the README's tree names {missing}, which are not there"
    folders = {path for path in (ROOT / "src" / "crossrank").iterdir() if path.is_dir() and path.name != "__pycache__"}
    folders = {path for path in folders if path.suffix != ".egg-info"}
    assert folders <= named
    assert {path for path in (ROOT / "src").glob("*.py") if path.name != "__init__.py"} <= named
