"""Whether a run's data, code and files are still what they were when it was made."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from crossrank.callbacks.provenance import CODE, then_and_now
from crossrank.config import build_parts
from crossrank.data.cache import contents, contents_when_built
from crossrank.data.fingerprint import fingerprint, sha256
from crossrank.data.lineage import FOLLOWS, Lineage, knowable_lineage
from crossrank.data.lineage_record import LineageRecord, differences
from crossrank.resume import read_config
from crossrank.training.checkpoints import saved_states

Verdict = Literal["same", "differs", "cannot be checked", "not cached"]
NOTHING = "-"


@dataclass(frozen=True)
class Finding:
    """What was recorded of one step or file, what it is now, and in words what of it differs."""

    step: str
    recorded: str
    now: str
    verdict: Verdict
    words: str = ""


def verify(run_dir: Path, cache_dir: Path | None = None) -> list[Finding]:
    """Compare what was recorded of a run with what its config gives now, and with its files.

    Its caches are looked for under `cache_dir`, by default where the run had them; one that is gone is no difference,
    for it would be built again.

    Raises:
        DataError: the folder holds no record of a run.
        ResumeError: the run's config.yaml or provenance.json cannot be read.
        ConfigError: its config is none that can be built.
    """
    record, config = LineageRecord.read(run_dir), read_config(run_dir)
    parts = build_parts(config, ("source", "miner", "policy", "teacher", "data", "model"))
    now, unknown = knowable_lineage(
        parts["source"], parts["miner"], parts["policy"], parts["model"].encoder, parts["data"].pool_depth,
        parts.get("teacher"),
    )  # fmt: skip
    return [
        *_steps(record.lineage, now, unknown),
        *_code(run_dir),
        *_caches(record, cache_dir or Path(config.cache_dir)),
        *_files(run_dir, record.files),
    ]


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 where anything differs, else 3 where anything could not be checked, else 0."""
    verdicts = {finding.verdict for finding in findings}
    return 1 if "differs" in verdicts else 3 if "cannot be checked" in verdicts else 0


def _steps(recorded: Lineage, now: Lineage, unknown: Mapping[str, str]) -> Iterator[Finding]:
    changed = differences(recorded, now, unknown)
    verdicts: dict[str, Verdict] = {}
    for name, before in FOLLOWS.items():
        was, is_now = recorded.ids.get(name, NOTHING), now.ids.get(name, NOTHING)
        differing = [step for step in before if verdicts.get(step) == "differs"]
        if name in changed:
            verdicts[name], words = "differs", "; ".join(changed[name])
        elif name not in unknown:
            verdicts[name], words = "same", ""
        elif differing:  # which id it has now cannot be told, but that it is another one
            verdicts[name], words = "differs", f"follows from {' and '.join(differing)}"
        else:
            verdicts[name], words = "cannot be checked", unknown[name]
        if (was, is_now) != (NOTHING, NOTHING) or name in unknown:
            yield Finding(name, was, is_now, verdicts[name], words)


def _code(run_dir: Path) -> Iterator[Finding]:
    was, now = then_and_now(run_dir)
    for name, known in (("code", [key for key in was if key == CODE]), ("packages", [k for k in was if k != CODE])):
        if not known:
            yield Finding(name, NOTHING, NOTHING, "cannot be checked", "the run has no provenance.json that names them")
            continue
        ids = [facts[CODE] if name == "code" else fingerprint({k: facts[k] for k in known}) for facts in (was, now)]
        words = "; ".join(f"{key} was {was[key]} and is {now[key]}" for key in known if was[key] != now[key])
        yield Finding(name, ids[0], ids[1], "differs" if words else "same", words)


def _caches(record: LineageRecord, cache_dir: Path) -> Iterator[Finding]:
    for kind, folder in record.lineage.folders(cache_dir).items():
        was, name = record.caches.get(kind), f"cached {kind}"
        if not folder.is_dir():
            if was:
                yield Finding(name, was, NOTHING, "not cached")
            continue
        there, built = contents(folder), contents_when_built(folder)
        now = fingerprint(there)
        if was is None:
            yield Finding(name, NOTHING, now, "cannot be checked", "the run did not record what it held")
        elif was == now:
            yield Finding(name, was, now, "same")
        else:
            spoilt = [file for file in sorted({*there, *built}) if there.get(file) != built.get(file)]
            words = f"{', '.join(spoilt)} {'is' if len(spoilt) == 1 else 'are'} not what was built; remove {folder}"
            again = f"{folder} was built again since the run, and came out another"
            yield Finding(name, was, now, "differs", words if spoilt else again)


def _files(run_dir: Path, recorded: Mapping[str, str]) -> Iterator[Finding]:
    if not recorded:
        yield Finding("export", NOTHING, NOTHING, "cannot be checked", "the run has not finished")
    states = {f"checkpoints/{state.file.name}": state.file for state in saved_states(run_dir / "checkpoints")}
    named = {name: file.stem.rpartition("-")[2] for name, file in states.items()}  # after their content
    for name, was in {**recorded, **named}.items():
        file = run_dir / name
        if not file.is_file():
            yield Finding(name, was[:16], NOTHING, "cannot be checked", f"{file}: no such file")
            continue
        now = sha256(file)
        same = now.startswith(was)
        yield Finding(name, was[:16], now[:16], "same" if same else "differs", "" if same else "its content is another")


def as_table(findings: Sequence[Finding]) -> Table:
    """Return one row a finding."""
    table = Table("step", "recorded", "now", "verdict")
    for finding in findings:
        table.add_row(*map(Text, (finding.step, finding.recorded, finding.now, finding.verdict)))
    return table


def in_words(findings: Sequence[Finding]) -> list[str]:
    """Return a sentence for each finding that there is something to say of, and one on the whole."""
    told = [f"{finding.step} {finding.verdict}: {finding.words}" for finding in findings if finding.words]
    differ, unknown = (sum(f.verdict == verdict for f in findings) for verdict in ("differs", "cannot be checked"))
    if not differ and not unknown:
        return [*told, "the run is what was recorded"]
    return [*told, f"of {len(findings)}, {differ} differ and {unknown} cannot be checked"]
