import logging
import re
import string

import numpy as np
import pytest
from conftest import SHARED, needs_shared_data
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from crossrank.data.tokens import PairEncoder, TokenStore, write_tokens
from crossrank.errors import ModelError

LENGTHS = (0, 1, 2, 3, 7, 8, 9, 20, 21, 200)  # words of a text; with max_length 8..64 they cut one, both or neither
SHORT = [
    ("", ""), ("", "what"), ("what", ""), (" ", "\n"), ("a [SEP] b", "[CLS]"), ("[MASK]  x", " lstrip"),
    ("naïve café", "日本語 テキスト"), ("🤷‍♀️ ok", "tabs\tand\nlines"), ("Ⅷ ﬁ", "e\u0301 x\u0301"),
]  # fmt: skip


@pytest.fixture(params=["minilm", pytest.param("modernbert", marks=needs_shared_data)])
def tokenizer(request, encoder):
    return encoder.tokenizer if request.param == "minilm" else modernbert()


def modernbert():
    return AutoTokenizer.from_pretrained(SHARED / "modernbert-base")


def word_level(template: str | None = None) -> PreTrainedTokenizerFast:
    tokens = ["[UNK]", "[CLS]", "[SEP]", "a", "b", "c"]
    model = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    if template:
        specials = [(token, tokens.index(token)) for token in ("[CLS]", "[SEP]")]
        model.post_processor = processors.TemplateProcessing(single="$A", pair=template, special_tokens=specials)
    return PreTrainedTokenizerFast(tokenizer_object=model, unk_token="[UNK]")


def assert_joined_as_the_tokenizer_does(tokenizer, max_length: int, pairs: list[tuple[str, str]]) -> None:
    encoder = PairEncoder(tokenizer, max_length)
    questions, documents = (encoder.encode(side) for side in zip(*pairs, strict=True))
    wanted = tokenizer(
        *map(list, zip(*pairs, strict=True)), truncation="longest_first", max_length=max_length,
        return_token_type_ids=True,
    )  # fmt: skip
    for i, pair in enumerate(pairs):
        ids, types = encoder.join(questions[i], documents[i])
        assert ids.tolist() == wanted["input_ids"][i], (pair, max_length)
        assert types.tolist() == wanted["token_type_ids"][i], (pair, max_length)


@pytest.mark.parametrize("max_length", [*range(8, 18), 31, 32, 63, 64])
def test_a_joined_pair_equals_the_tokenizers_own_longest_first_encoding(tokenizer, max_length):
    words = re.findall(r"\w+", "who wrote the first compiler and why is it used for numerical unbelievability")
    texts = [" ".join(words[i % len(words)] for i in range(length)) for length in LENGTHS]
    pairs = SHORT + [(question, document) for question in texts for document in texts]
    assert_joined_as_the_tokenizer_does(tokenizer, max_length, pairs)


any_text = st.text(max_size=60) | st.text(alphabet=string.ascii_letters + "  .,'", max_size=120)


@settings(deadline=None, max_examples=60)
@given(pairs=st.lists(st.tuples(any_text, any_text), min_size=1, max_size=8), max_length=st.integers(8, 64))
def test_any_unicode_pair_is_joined_as_minilm_does(encoder, pairs, max_length):
    assert_joined_as_the_tokenizer_does(encoder.tokenizer, max_length, pairs)


@needs_shared_data
def test_any_unicode_pair_is_joined_as_modernbert_does():
    tokenizer = modernbert()

    @settings(deadline=None, max_examples=60)
    @given(pairs=st.lists(st.tuples(any_text, any_text), min_size=1, max_size=8), max_length=st.integers(8, 64))
    def check(pairs, max_length):
        assert_joined_as_the_tokenizer_does(tokenizer, max_length, pairs)

    check()


@pytest.mark.parametrize(
    ("question", "document", "kept"),
    [(40, 10, (7, 6)), (3, 40, (3, 10)), (40, 3, (10, 3)), (10, 10, (6, 7)), (6, 7, (6, 7)), (0, 99, (0, 13))],
)
def test_truncation_to_16_tokens_of_which_3_are_special(encoder, question, document, kept):
    assert PairEncoder(encoder.tokenizer, 16).kept(question, document) == kept


@pytest.mark.parametrize(
    ("template", "missing"),
    [
        (None, "before and between and after"),
        ("[CLS] $A $B:1 [SEP]:1", "between"),
        ("$A [SEP] $B:1 [SEP]:1", "before"),
        ("[CLS] $A [SEP] $B:1", "after"),
    ],
)
def test_a_tokenizer_without_special_tokens_around_the_texts_is_refused(template, missing):
    with pytest.raises(ModelError, match=rf"no special token {missing} the texts"):
        PairEncoder(word_level(template), 16)


def test_special_tokens_and_types_are_those_of_the_tokenizers_template():
    encoder = PairEncoder(word_level("[CLS] $A [SEP]:1 [SEP]:1 $B:0 [CLS]:2"), 16)
    ids, types = encoder.join(*encoder.encode(["a a", "b c"]))
    assert ids.tolist() == [1, 3, 3, 2, 2, 4, 5, 1]
    assert types.tolist() == [0, 0, 0, 1, 1, 0, 0, 2]


def test_a_max_length_without_room_for_a_token_of_each_text_is_refused(encoder):
    assert PairEncoder(encoder.tokenizer, 5).kept(9, 9) == (1, 1)
    with pytest.raises(ModelError, match="max_length 4 leaves no room"):
        PairEncoder(encoder.tokenizer, 4)


def test_the_fingerprint_follows_the_vocabulary_and_max_length(encoder):
    template = "[CLS] $A [SEP] $B:1 [SEP]:1"
    extended = word_level(template)
    extended.add_tokens(["d"])
    made = {PairEncoder(word_level(template), 16).fingerprint, PairEncoder(extended, 16).fingerprint}
    made |= {PairEncoder(word_level(template), 17).fingerprint}
    assert len(made) == 3
    assert PairEncoder(word_level(template), 16).fingerprint in made


def test_the_fingerprint_does_not_depend_on_what_the_tokenizer_was_last_used_for(encoder):
    before = PairEncoder(encoder.tokenizer, 16).fingerprint
    after = PairEncoder(encoder.tokenizer, 16)
    encoder.tokenizer("a b c", truncation=True, max_length=3, padding="max_length")
    assert after.fingerprint == before


def test_a_token_store_gives_back_the_ids_of_every_text_across_blocks(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("crossrank.data.tokens.TEXTS_PER_BLOCK", 3)
    texts = ["one", "", "three little words", "[SEP]", "日本語", "", "last one"]
    write_tokens(encoder, texts, tmp_path)
    store = TokenStore.open(tmp_path)
    assert [store[i].tolist() for i in range(len(store))] == [
        encoder.tokenizer.encode(text, add_special_tokens=False) for text in texts
    ]
    assert store.ids.dtype == np.uint16
    assert {file.name for file in tmp_path.iterdir()} == {"ids.npy", "offsets.npy"}


def test_ids_above_65535_survive_the_store(tmp_path):
    words = {f"w{i}": i for i in range(70_000)} | {"[CLS]": 70_000, "a": 70_001, "b": 70_002}
    model = Tokenizer(models.WordLevel(words, unk_token="w0"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.post_processor = processors.TemplateProcessing(
        single="$A", pair="[CLS] $A [CLS] $B:1 [CLS]:1", special_tokens=[("[CLS]", 70_000)]
    )
    write_tokens(PairEncoder(PreTrainedTokenizerFast(tokenizer_object=model), 16), ["w69999 w1", "w65536"], tmp_path)
    store = TokenStore.open(tmp_path)
    assert [store[0].tolist(), store[1].tolist()] == [[69_999, 1], [65_536]]


def test_texts_longer_than_max_length_are_counted_in_one_warning(encoder, tmp_path, caplog):
    room = encoder.max_length - encoder.layout.specials
    write_tokens(encoder, ["word " * (room + 1), "word " * room, "word " * 500], tmp_path)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["2 of 3 texts are longer than max_length = 64 and are cut"]
