"""What is exported must score the same elsewhere: under transformers and sentence-transformers, padded."""

import copy
import inspect
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sentence_transformers import CrossEncoder as SentenceTransformersCrossEncoder
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

import crossrank.models.export as export_module
from crossrank.data.tokens import PairEncoder
from crossrank.errors import ExportError
from crossrank.models.backbones import Pretrained
from crossrank.models.cross_encoder import CrossEncoder
from crossrank.models.export import export, exported_files

SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 48, "num_labels": 1}
MODERN = {"local_attention": 16, "pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102, "bos_token_id": 101,
          "eos_token_id": 102}  # fmt: skip
KINDS = {
    "modernbert-mean": ("modernbert", {**MODERN, "classifier_pooling": "mean"}),
    "modernbert-cls": ("modernbert", {**MODERN, "classifier_pooling": "cls"}),
    "bert": ("bert", {}),
    "roberta": ("roberta", {"type_vocab_size": 1}),
}
SENTENCE = "how do you write a file of rivers and mountains in python without losing the last line again"
WORDS = SENTENCE.split()
PAIRS = [(" ".join(WORDS[i : i + 4]), " ".join((WORDS * 8)[i : i + n])) for i, n in enumerate([30, 1, 100, 12, 55, 7])]


def _roberta_encoder():
    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(set(WORDS))])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"cls": "<s>", "bos": "<s>", "sep": "</s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    special = {f"{name}_token": token for name, token in names.items()}
    inputs = ["input_ids", "attention_mask"]
    return PairEncoder(PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=inputs, **special), 64)


def _model(kind, encoder):
    encoder = _roberta_encoder() if kind == "roberta" else encoder
    model_type, settings = KINDS[kind]
    config = AutoConfig.for_model(model_type, vocab_size=len(encoder.tokenizer), **SIZES, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = AutoModelForSequenceClassification.from_config(config)
        for parameter in model.parameters():
            parameter.data += 0.25 * torch.randn_like(parameter)
    return CrossEncoder(model.eval()), encoder


def _scores_of_transformers(model, tokenizer):
    tokenizer = copy.deepcopy(tokenizer)  # truncation is a state of it
    inputs = tokenizer(*map(list, zip(*PAIRS, strict=True)), padding=True, truncation=True, max_length=64,
                       return_tensors="pt")  # fmt: skip
    with torch.inference_mode():
        return model(**inputs).logits[:, 0].numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_scores_the_same_everywhere(kind, encoder, tmp_path):
    model, encoder = _model(kind, encoder)
    folder = export(model, encoder, tmp_path / "model")
    model.classifier.set_attn_implementation("sdpa")
    expected = _scores_of_transformers(model.classifier, encoder.tokenizer)
    assert expected.std() > 0.05

    loaded = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    scores = _scores_of_transformers(loaded, AutoTokenizer.from_pretrained(folder))
    np.testing.assert_allclose(scores, expected, atol=1e-6, rtol=0)

    reference = SentenceTransformersCrossEncoder(str(folder), device="cpu")
    logits = reference.predict(PAIRS, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    np.testing.assert_allclose(logits, expected, atol=1e-6, rtol=0)
    probabilities = reference.predict(PAIRS, show_progress_bar=False)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-expected)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_comes_back_as_it_went(kind, encoder, tmp_path):
    model, encoder = _model(kind, encoder)
    folder = export(model, encoder, tmp_path / "model")
    back = Pretrained(str(folder))
    state = back.build(seed=9).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert back.encoder().max_length == encoder.max_length
    assert back.encoder().fingerprint == encoder.fingerprint


def test_the_config_can_be_read_by_older_and_newer_libraries(encoder, tmp_path):
    model, _ = _model("modernbert-mean", encoder)
    model.config.rope_parameters["sliding_attention"]["rope_theta"] = 5000.0
    config = json.loads((export(model, encoder, tmp_path / "model") / "config.json").read_text())

    assert config["architectures"] == ["ModernBertForSequenceClassification"]
    assert config["model_type"] == "modernbert"
    assert config["id2label"] == {"0": "LABEL_0"}
    assert config["classifier_pooling"] == "mean"
    assert config["sentence_transformers"]["activation_fn"] == "torch.nn.modules.activation.Sigmoid"
    assert config["torch_dtype"] == "float32"
    assert (config["global_rope_theta"], config["local_rope_theta"]) == (160000.0, 5000.0)
    assert config["rope_parameters"]["sliding_attention"]["rope_theta"] == 5000.0
    every = config["global_attn_every_n_layers"]  # transformers 4: layer i is global where i % n == 0
    kinds = ["sliding_attention" if i % every else "full_attention" for i in range(4)]
    assert config["layer_types"] == kinds == model.config.layer_types
    assert not [key for key in config if key.startswith("_")]


@pytest.mark.parametrize(("layers", "period"), [(1, 3), (2, 3), (4, 3), (5, 2), (3, 1)])
def test_the_global_period_reproduces_the_layer_types(layers, period):
    types = ["sliding_attention" if i % period else "full_attention" for i in range(layers)]
    every = export_module._global_period(types)
    assert ["sliding_attention" if i % every else "full_attention" for i in range(layers)] == types


def test_the_tokenizer_is_a_plain_fast_one(encoder, tmp_path):
    model, _ = _model("bert", encoder)
    folder = export(model, encoder, tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["model_max_length"] == 64
    assert (config["cls_token"], config["sep_token"], config["pad_token"]) == ("[CLS]", "[SEP]", "[PAD]")
    files = {"config.json", "model.safetensors", "sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {file.name for file in folder.iterdir()} == files


# What text-embeddings-inference reads without a default: its own code is the reference, as it stood in 2025.
SERVED = {
    "modernbert": (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "hidden_activation", "max_position_embeddings", "initializer_range", "initializer_cutoff_factor", "norm_eps",
        "norm_bias", "pad_token_id", "eos_token_id", "bos_token_id", "cls_token_id", "sep_token_id",
        "global_rope_theta", "local_rope_theta", "global_attn_every_n_layers", "local_attention", "attention_bias",
        "attention_dropout", "classifier_pooling", "classifier_activation",
    ),
    "bert": (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
        "hidden_dropout_prob", "max_position_embeddings", "type_vocab_size", "initializer_range", "layer_norm_eps",
        "pad_token_id",
    ),
}  # fmt: skip
SERVED["roberta"] = SERVED["bert"]
HEADS = {
    "modernbert": {"head.dense.weight", "head.norm.weight", "classifier.weight", "classifier.bias"},
    "bert": {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"},
    "roberta": {f"classifier.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_finds_what_it_needs_to_know(kind, encoder, tmp_path):
    model, encoder = _model(kind, encoder)
    folder = export(model, encoder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    family = config["model_type"]
    assert not [key for key in SERVED[family] if config.get(key) is None]
    # both servers: a classifier with one label is a reranker
    assert [name.endswith("ForSequenceClassification") for name in config["architectures"]] == [True]
    assert (len(config["id2label"]), len(config["label2id"])) == (1, 1)
    if family == "modernbert":  # text-embeddings-inference would leave out such biases
        assert not any(config[f"{part}_bias"] for part in ("norm", "classifier", "attention", "mlp"))
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert set(weights.keys()) >= HEADS[family]
        prefix = {"modernbert": "model."}.get(family, f"{family}.")
        assert {name for name in weights.keys() if not name.startswith(prefix)} == {  # noqa: SIM118
            name for name in HEADS[family] if not name.startswith(prefix)
        }
        assert all(weights.get_tensor(name).dtype == torch.float32 for name in weights.keys())  # noqa: SIM118
    lengths = json.loads((folder / "sentence_bert_config.json").read_text())
    assert lengths["max_seq_length"] == encoder.max_length < config["max_position_embeddings"]
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size() == config["vocab_size"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_knows_no_more_than_the_tokenizers_file_scores_the_same(kind, encoder, tmp_path):
    """As text-embeddings-inference makes tokens (core/src/tokenization.rs) and its Python backend a padded batch."""
    model, encoder = _model(kind, encoder)
    folder = export(model, encoder, tmp_path / "model")
    config, lengths = (json.loads((folder / name).read_text()) for name in ("config.json", "sentence_bert_config.json"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(lengths["max_seq_length"], strategy="longest_first", direction="right")
    encoded = [tokenizer.encode(*pair) for pair in PAIRS]
    first = config["pad_token_id"] + 1 if kind == "roberta" else 0
    inputs = torch.zeros((4, len(PAIRS), max(map(len, encoded))), dtype=torch.int32)
    for i, pair in enumerate(encoded):
        rows = (pair.ids, pair.type_ids, range(first, first + len(pair)), pair.attention_mask)
        inputs[:, i, : len(pair)] = torch.tensor([*map(list, rows)])
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    names = ("input_ids", "token_type_ids", "position_ids", "attention_mask")
    known = inspect.signature(classifier.forward).parameters
    given = {name: rows for name, rows in zip(names, inputs, strict=True) if name in known}
    with torch.inference_mode():
        found = classifier(**given).logits[:, 0].numpy()
    model.classifier.set_attn_implementation("sdpa")
    np.testing.assert_allclose(found, _scores_of_transformers(model.classifier, encoder.tokenizer), atol=1e-5, rtol=0)


def test_what_a_check_refuses_lies_beside_and_nothing_is_replaced(encoder, tmp_path):
    folder, refused = tmp_path / "model", tmp_path / "model.refused"
    older, newer = _model("bert", encoder)[0], _model("modernbert-mean", encoder)[0]
    export(older, encoder, folder)
    seen = []

    def check(written):
        seen.append(sorted(file.name for file in written.iterdir()))
        (written / "finding").write_text("what was found")
        raise ExportError("another score")

    for _ in range(2):  # what the first left is not in the second's way
        with pytest.raises(ExportError, match=r"another score; it lies in .*model\.refused instead of"):
            export(newer, encoder, folder, check)
    assert seen[0] == seen[1] == sorted(file.name for file in folder.iterdir())
    assert json.loads((refused / "config.json").read_text())["model_type"] == "modernbert"
    assert (refused / "finding").is_file()
    assert json.loads((folder / "config.json").read_text())["model_type"] == "bert"
    export(newer, encoder, folder, lambda written: (written / "finding").write_text("nothing"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert json.loads((folder / "config.json").read_text())["model_type"] == "modernbert"
    assert (folder / "finding").read_text() == "nothing"


def test_all_files_count_but_the_card(encoder, tmp_path):
    folder = export(_model("bert", encoder)[0], encoder, tmp_path / "model")
    (folder / "README.md").write_text("a card")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_text("")
    names = [file.relative_to(folder).as_posix() for file in exported_files(folder)]
    assert names == ["config.json", "model.safetensors", "onnx/model.onnx", "sentence_bert_config.json",
                     "tokenizer.json", "tokenizer_config.json"]  # fmt: skip


def test_exporting_over_a_folder_replaces_all_of_it(encoder, tmp_path):
    folder = tmp_path / "model"
    export(_model("bert", encoder)[0], encoder, folder)
    (folder / "old.txt").write_text("of the older export")
    model, _ = _model("modernbert-mean", encoder)
    export(model, encoder, folder)
    assert not (folder / "old.txt").exists()
    assert json.loads((folder / "config.json").read_text())["model_type"] == "modernbert"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("older", [False, True])
def test_a_failed_export_leaves_what_was_there(older, encoder, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    model, _ = _model("bert", encoder)
    if older:
        export(model, encoder, folder)

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export_module, "save_file", full_disk)
        with pytest.raises(OSError, match="No space left"):
            export(model, encoder, folder)
    assert folder.exists() == older
    if older:
        assert Pretrained(str(folder)).build(0).config.model_type == "bert"
    export(model, encoder, folder)  # and what the failure left is not in the way
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_model_can_go_on_training_after_an_export(encoder, tmp_path):
    model, _ = _model("bert", encoder)
    before = {name: value.clone() for name, value in model.train().state_dict().items()}
    export(model, encoder, tmp_path / "model")
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
