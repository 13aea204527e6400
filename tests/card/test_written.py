import ast
import json
import re

from huggingface_hub import ModelCard
from made_runs import HOSTILE, write_bare_run, write_run
from markdown_it import MarkdownIt
from safetensors.numpy import load_file

from crossrank.analysis.run_view import RunView, view
from crossrank.analysis.runs import RunFolder
from crossrank.card.written import write_card

CHAPTERS = [
    "Model", "Usage", "Evaluation", "Training", "Limits", "To do it again", "Lineage", "Versions", "Citation",
]  # fmt: skip


def headings(text, level):
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open" and t.tag == f"h{level}"]


def test_the_card_of_a_run_has_every_chapter_and_says_what_the_run_said(smoke_run):
    card = ModelCard.load(smoke_run.folder / "export" / "README.md")
    assert headings(card.text, 1) == ["smoke"]
    assert [name for name in headings(card.text, 2) if name in CHAPTERS] == CHAPTERS
    result = json.loads((smoke_run.folder / "result.json").read_text())
    value = next(r.metric_value for r in card.data.eval_results if r.metric_type == "ndcg@10")
    assert value == round(result["best_value"], 4)
    weights = load_file(smoke_run.folder / "export" / "model.safetensors")
    assert f"| Parameters | {sum(w.size for w in weights.values()):,} |" in card.text
    assert "| Longest input | 128 tokens of question and document together |" in card.text
    assert "of 20 evaluated queries stand in the training set" in card.text
    (bold,) = re.findall(r"^\| \*\*[\d.]+\*\* \| \*\*(\d+)\*\* \|", card.text, re.MULTILINE)
    assert int(bold) == result["best_step"]
    assert str(smoke_run.folder.parent) not in card.text


def test_its_example_runs_as_it_stands(smoke_run):
    text = (smoke_run.folder / "export" / "README.md").read_text()
    code = next(part for part in text.split("```python\n")[1:]).partition("```")[0]
    names = {}
    loads = code.replace('"smoke"', repr(str(smoke_run.folder / "export")))
    exec(compile(ast.parse(loads), "card", "exec"), names)
    assert names["scores"].shape == (5,)
    assert [rank["corpus_id"] for rank in names["ranks"]] == list(names["scores"].argsort()[::-1])


def test_texts_that_mean_harm_are_shown_and_change_nothing(tmp_path):
    folder = write_run(tmp_path / "run")
    sample = {"question": HOSTILE[0], "document": f"``` {HOSTILE[1]}", "label": 1.0}
    spread = {"min": 1.0, "mean": 1.0, "max": 1.0}
    data = {
        "rows": 1, "questions": 1, "documents": 1, "of_first": 1, "tokens": spread, "cut": 0.5, "label": spread,
        "characters": {"question": spread, "document": spread}, "samples": [sample],
    }  # fmt: skip
    (folder / "training_data.json").write_text(json.dumps(data))
    text = write_card(view(folder), folder / "export").read_text(encoding="utf-8")
    assert [name for name in headings(text, 2) if name in CHAPTERS] == CHAPTERS
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    blocks = [token.content for token in tokens if token.type == "html_block"]
    assert all("alert" not in block for block in blocks)
    inline = [child for token in tokens if token.type == "inline" for child in token.children]
    assert not [child for child in inline if child.type == "html_inline" and "alert" in child.content]
    assert "50.0% of the first training pairs had more tokens than it reads" in text


def test_a_run_that_recorded_little_still_gets_one(tmp_path):
    folder = write_bare_run(tmp_path / "run")
    (folder / "export").mkdir()
    text = write_card(RunView(RunFolder(folder), {"name": "mine", "best_step": 3}), folder / "export").read_text()
    assert headings(text, 1) == ["mine"]
    assert "Nothing was evaluated" in text
    assert "Nothing was logged" in text
