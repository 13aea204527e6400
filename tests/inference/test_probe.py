import pytest

from crossrank.data.tokens import PairEncoder
from crossrank.inference.probe import MOST_WORDS, Probe


@pytest.mark.parametrize("max_length", [16, 128, 256])
def test_the_long_pairs_are_cut_in_the_document_the_question_and_both(max_length, encoder):
    encoder = PairEncoder(encoder.tokenizer, max_length)
    cut = []
    for [pair] in Probe(max_length).groups[1:]:
        lengths = list(map(len, encoder.encode(pair)))
        kept = encoder.kept(*lengths)
        assert sum(kept) == max_length - encoder.layout.specials
        cut.append(tuple(a < b for a, b in zip(kept, lengths, strict=True)))
    assert cut[0][1]
    assert cut[1][0]
    assert cut[2] == (True, True)


def test_what_is_scored_stays_short_and_the_longest_pair_is_cut_whatever_the_model_takes(encoder):
    probe = Probe(8192)
    assert max(len(text.split()) for pair in probe.pairs for text in pair) <= MOST_WORDS + 8
    assert sum(map(len, encoder.encode(probe.longest))) > 8192


def test_the_short_pairs_are_of_many_kinds():
    texts = [text for pair in Probe(128).groups[0] for text in pair]
    assert len(set(Probe(128).groups[0])) == len(Probe(128).groups[0]) >= 20
    assert "" in texts
    assert any(text and not text.strip() for text in texts)
    assert any("def f(" in text for text in texts)
    assert any("[SEP]" in text for text in texts)
    for first, last in ("\u4e00\u9fff", "\u0600\u06ff", "\u0400\u04ff", "\U0001f300\U0001faff", "\u0300\u036f"):
        assert any(first <= letter <= last for text in texts for letter in text)
