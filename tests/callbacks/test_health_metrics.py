"""The numbers against scikit-learn, torch and hand-worked batches."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from crossrank.callbacks.health_metrics import Scored, health_metrics
from crossrank.losses.bce import WeightedBCE


def scored(logits, labels, ranks=None, questions=None):
    questions = torch.arange(len(logits)) if questions is None else torch.tensor(questions)
    ranks = None if ranks is None else torch.tensor(ranks)
    return Scored(
        torch.tensor(logits, dtype=torch.float32), torch.tensor(labels, dtype=torch.float32), questions, ranks
    )


def many(rng, count=7, pairs=12, scale=3.0):
    made = []
    for _ in range(count):
        labels = np.r_[[1, 0], rng.integers(0, 2, pairs - 2)]
        ranks = np.where(labels == 1, 0, rng.integers(1, 9, pairs))
        logits = np.round(scale * rng.normal(size=pairs) + labels, 1)  # rounded, so that there are ties
        made.append(scored(logits.tolist(), labels.tolist(), ranks.tolist()))
    return made


def test_two_batches_by_hand():
    """Positives 2 and -13 (sure and wrong), negatives -1, 13 (sure and wrong), -20 (sure and right)."""
    batches = [scored([2.0, -1.0, 13.0], [1, 0, 0], [0, 1, 4]), scored([-13.0, -20.0], [1, 0], [0, 1])]
    metrics = health_metrics(batches, WeightedBCE(1.0))
    assert metrics["positive_score"] == pytest.approx(-5.5)
    assert metrics["negative_score"] == pytest.approx(-8 / 3)
    assert metrics["separation"] == pytest.approx(-5.5 + 8 / 3)
    assert metrics["pair_accuracy"] == pytest.approx(2 / 3)  # 2 > -1, 2 < 13, -13 > -20
    assert metrics["saturated_share"] == pytest.approx(3 / 5)
    assert metrics["wrong_and_sure_share"] == pytest.approx(2 / 5)
    variance = np.var([2, -1, 13]) * 3 + np.var([-13, -20]) * 2
    assert metrics["score_std"] == pytest.approx(np.sqrt(variance / 3))
    assert metrics["loss_of_rank_0"] == pytest.approx((np.log1p(np.exp(-2)) + 13) / 2, rel=1e-5)
    assert metrics["loss_of_rank_1"] == pytest.approx(np.log1p(np.exp(-1)) / 2, rel=1e-5)
    assert metrics["loss_of_rank_3_to_5"] == pytest.approx(13, rel=1e-5)
    assert not {"loss_of_rank_2", "loss_of_rank_from_6"} & metrics.keys()


def test_pair_accuracy_is_the_area_under_the_roc_curve_of_each_batch():
    batches = many(np.random.default_rng(0))
    areas, compared = [], []
    for batch in batches:
        positives = batch.labels.sum().item()
        areas.append(roc_auc_score(batch.labels, batch.logits))
        compared.append(positives * (len(batch.labels) - positives))
    assert 0.5 < min(compared) < max(compared)
    accuracy = health_metrics(batches, WeightedBCE())["pair_accuracy"]
    assert accuracy == pytest.approx(np.average(areas, weights=compared))


def test_losses_by_rank_are_binary_cross_entropies_of_torch():
    batches = many(np.random.default_rng(1), count=20)
    logits, labels, _, ranks = (torch.cat(part) for part in zip(*batches, strict=True))
    each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    metrics = health_metrics(batches, WeightedBCE(7.0))
    wanted = {
        "0": ranks == 0,
        "1": ranks == 1,
        "2": ranks == 2,
        "3_to_5": (ranks > 2) & (ranks < 6),
        "from_6": ranks > 5,
    }
    for name, chosen in wanted.items():
        assert metrics[f"loss_of_rank_{name}"] == pytest.approx(each[chosen].mean().item(), rel=1e-5)


def test_documents_of_other_questions_have_a_loss_of_their_own_and_no_rank():
    batch = scored([2.0, -1.0, 0.5, -3.0], [1, 0, 0, 0], [0, 1, -1, -1])
    metrics = health_metrics([batch], WeightedBCE())
    assert metrics["loss_of_other_questions"] == pytest.approx(np.log1p(np.exp([0.5, -3.0])).mean(), rel=1e-5)
    assert metrics["loss_of_rank_1"] == pytest.approx(np.log1p(np.exp(-1)), rel=1e-5)
    assert {name for name in metrics if name.startswith("loss_of_rank")} == {"loss_of_rank_0", "loss_of_rank_1"}
    assert "loss_of_other_questions" not in health_metrics([scored([1.0, 0.0], [1, 0], [0, 1])], WeightedBCE())


def test_the_gradient_share_of_a_weighted_cross_entropy():
    """d/dz of a pair's loss: w (s(z) - 1) / n for a positive, s(z) / n for a negative."""
    batches = many(np.random.default_rng(2))
    sides = [0.0, 0.0]
    for batch in batches:
        slope = torch.sigmoid(batch.logits)
        sides[1] += ((1 - slope) * 5 / 12)[batch.labels == 1].sum().item()
        sides[0] += (slope / 12)[batch.labels == 0].sum().item()
    share = health_metrics(batches, WeightedBCE(5.0))["gradient_share_of_positives"]
    assert share == pytest.approx(sides[1] / sum(sides), rel=1e-5)


def test_the_gradient_share_of_a_listwise_loss_is_a_half():
    """The softmax gradients of a list sum to zero, whatever the scores: p - 1 for its one positive, p elsewhere."""

    def listwise(logits, labels, query_index):
        lists = [query_index == q for q in query_index.unique()]
        return -sum(F.log_softmax(logits[chosen], 0)[labels[chosen] == 1].sum() for chosen in lists)

    batch = scored([3.0, 1.0, 0.5, -2.0, 4.0], [1, 0, 0, 1, 0], questions=[0, 0, 0, 1, 1])
    assert health_metrics([batch], listwise)["gradient_share_of_positives"] == pytest.approx(0.5)
    assert not batch.logits.requires_grad


def test_what_moves_between_batches_is_no_spread():
    batches = [scored([k + 0.1, k - 0.1], [1, 0]) for k in (0.0, 5.0, 10.0)]
    assert health_metrics(batches, WeightedBCE())["score_std"] == pytest.approx(np.sqrt(0.02), rel=1e-5)


def test_what_is_not_defined_is_left_out():
    alone = health_metrics([scored([1.0], [1])], lambda logits, labels, questions: logits.sum() * 0)
    assert alone.keys() == {"positive_score", "saturated_share", "wrong_and_sure_share"}
    negatives = health_metrics([scored([1.0, 3.0], [0, 0], [1, 2])], WeightedBCE())
    assert not {"positive_score", "separation", "pair_accuracy", "loss_of_rank_0"} & negatives.keys()
    assert negatives["gradient_share_of_positives"] == 0
