"""How many operations a transformer encoder's useful work is."""

from typing import Any


def layer_parameters(config: Any) -> int:
    """Count the weights of the layers' matrices: what each token is multiplied with. Embeddings and heads are left out.

    4 * width^2 for attention; 2 * width * wide for the feed-forward layer, 3 where it is gated (ModernBERT).
    """
    width, wide = config.hidden_size, config.intermediate_size
    matrices = 3 if config.model_type == "modernbert" else 2
    return int(config.num_hidden_layers * (4 * width * width + matrices * width * wide))


def useful_flops(config: Any, tokens: int, token_pairs: int, passes: int, frozen: bool = False) -> float:
    """Return the operations of `passes` passes over the matrices: 1 to score, 3 to train.

    Of a training whose matrices are `frozen`, as under LoRA, the pass that computes their gradients is not made.

    2 a weight and token, and 4 * width a layer and pair of tokens of one sequence (`token_pairs` is the sum of squared
    lengths). Padding does not count as work; windows and first-token shortcuts do not make the work less. Source: the
    6ND of Kaplan et al. 2020, https://arxiv.org/abs/2001.08361, with the attention term of their appendix.
    """
    attention: float = 4.0 * config.hidden_size * config.num_hidden_layers * token_pairs
    matrices: float = 2.0 * layer_parameters(config) * tokens
    return (passes - frozen) * matrices + passes * attention
