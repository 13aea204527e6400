import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_config import problems_of

from crossrank.redaction import redact, redact_command, secrets_in

TOKEN = "hf_" + "a1B2" * 8


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("logger.wandb.key=abc def", "logger.wandb.key=<hidden>"),
        ("+logger.x.api_key='abc,def'", "+logger.x.api_key=<hidden>"),
        ("++a.apikey=x", "++a.apikey=<hidden>"),
        ("HF_TOKEN=[a,b]", "HF_TOKEN=<hidden>"),
        ("+logger.x={_target_:a.B,password:p q,name:n}", "+logger.x={_target_:a.B,password:<hidden>,name:n}"),
        ("+x={'client_secret': 's', a: 1}", "+x={'client_secret': <hidden>, a: 1}"),
        ("uri=https://me:pass@host/x", "uri=https://<hidden>@host/x"),
        ("uri=https://token@host:8080/x?a=1", "uri=https://<hidden>@host:8080/x?a=1"),
        ("uri=http://me:p@ss@host/x", "uri=http://<hidden>@host/x"),
        ("https://host/x?a=1&access_token=abc&b=2", "https://host/x?a=1&access_token=<hidden>&b=2"),
        ("https://me:pass@host/x?access_token=abc", "https://<hidden>@host/x?access_token=<hidden>"),
        (f"path={TOKEN}", "path=<hidden>"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text, shown):
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "callbacks.evaluation.tokens_per_batch=2048", "model.tokenizer=pypi:x", "trainer.bucket_tokens=128",
        "monitor=eval/held_out/dev/ndcg@10", "source.path=https://host/a@b", "query='what is a monkey'", "-m", "",
        "https://host?a=b@c",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays_as_it_is(text):
    assert redact(text) == text


def test_the_word_after_an_option_that_asks_for_a_secret_is_hidden():
    words = ["train.py", "--api-key", "abc", "--name", "n", "--token=abc"]
    assert redact_command(words) == ["train.py", "--api-key", "<hidden>", "--name", "n", "--token=<hidden>"]


@given(st.text(), st.sampled_from(["key", "api_key", "hf_token", "PASSWORD", "client-secret"]))
def test_no_value_of_such_a_key_survives(value, key):
    assert redact(f"+logger.x.{key}={value}") == f"+logger.x.{key}=<hidden>"


@pytest.mark.parametrize(
    "override",
    [
        "+logger.x={_target_:lightning.pytorch.loggers.WandbLogger,api_key:s3cret}",
        "+logger.x={_target_:lightning.pytorch.loggers.MLFlowLogger,tracking_uri:'https://me:s3cret@host'}",
        f"model.tokenizer={TOKEN}",
        "+logger.x={_target_:lightning.pytorch.loggers.WandbLogger,token:'${oc.env:FAKE_SECRET}'}",
    ],
)
def test_a_config_with_a_secret_is_refused_without_telling_it(override, monkeypatch):
    """It would be written into config.yaml, resolved."""
    monkeypatch.setenv("FAKE_SECRET", "s3cret")
    (problem,) = [p for p in problems_of(override) if "secret" in p]
    assert "looks like a secret" in problem
    assert "s3cret" not in problem
    assert TOKEN not in problem


def test_a_key_without_a_value_is_no_secret():
    assert list(secrets_in([("a.token", None), ("a.key", ""), ("a.key", 3), ("a.tokens", "x")])) == []
