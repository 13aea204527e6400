"""The committed results: bench/results.json, and the table in bench/README.md that is made of it."""

import json
from pathlib import Path

RESULTS = Path(__file__).with_name("results.json")
TABLE = Path(__file__).with_name("README.md")
START, END = "<!-- results: written by bench.table -->\n", "<!-- end of results -->"


def record(cell: str, model: str, precision: str, figures: dict[str, object], machine: dict, dry: bool) -> None:
    """Print a cell's figures and, unless `dry`, put them in place of its last ones."""
    entry = {"cell": cell, "model": model, "precision": precision, **figures, "machine": machine}
    print(json.dumps(entry, indent=2, default=float))
    if dry:
        return
    others = [other for other in load() if _key(other) != _key(entry)]
    RESULTS.write_text(json.dumps(sorted([*others, entry], key=_key), indent=1, default=float) + "\n", encoding="utf-8")
    write_table()


def load() -> list[dict]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []


def _key(entry: dict) -> tuple[str, ...]:
    return entry["model"], entry["cell"], entry["precision"], entry["text"]


def write_table() -> None:
    """Write the results into bench/README.md, between its two marks."""
    text = TABLE.read_text(encoding="utf-8")
    before, after = text[: text.index(START) + len(START)], text[text.index(END) :]
    TABLE.write_text(before + as_markdown(load()) + after, encoding="utf-8")


def as_markdown(entries: list[dict]) -> str:
    """One row a cell; seconds are medians a round, in brackets the 10th percentile."""
    head = (
        "| cell | model | precision | text | peer | ours | ratio (paired) | gate: largest gap | tokens/s "
        "| share of matmul | memory peer / ours | on |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(_row(entry) for entry in entries) if entries else ""


def _row(e: dict) -> str:
    machine = e["machine"]
    memory = f"{_gib(e.get('peer_memory'))} / {_gib(e.get('ours_memory'))}"
    return (
        f"| {e['cell']} | {e['model']} | {e['precision']} | {e['text']} "
        f"| {_seconds(e['peer_median'])} ({_seconds(e['peer_p10'])}) "
        f"| {_seconds(e['ours_median'])} ({_seconds(e['ours_p10'])}) "
        f"| **{e['ratio']:.2f}** ({e['paired_ratio']:.2f}) | {e['gap']:.0e} | {e['tokens_per_second']:,.0f} "
        f"| {e['share_of_matmul']:.0%} | {memory} "
        f"| {machine['cpu']}, {machine['threads']} threads, load {machine['load']}, torch {machine['torch']} |\n"
    )


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 10 else f"{value:.1f} s"


def _gib(value: float | None) -> str:
    return "not measured" if value is None else f"{value / 2**30:.1f} GiB"


def add_memory(measured: dict, peer: float, ours: float) -> None:
    """Put the peak memory of either side alone, in bytes, beside the figures that a cell printed."""
    entries = load()
    for entry in entries:
        if _key(entry) == _key(measured):
            entry |= {"peer_memory": peer, "ours_memory": ours}
    RESULTS.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    write_table()
