"""Against torch's own attention, called for each sequence with the window as an explicit mask."""

import pytest
import torch
import torch.nn.functional as F

from crossrank.models import cpu_attention as module
from crossrank.models.cpu_attention import TURNED_AT_ONCE, cpu_attention, rotate, turn

LENGTHS = (1, 7, 40, 9, 9, 8, 33)
HEADS, WIDTH, HALF_WINDOW, SCALE = 2, 16, 8, 0.3
OFFSETS = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)], dtype=torch.int32)
STARTS = OFFSETS[:-1].long()


def _joint(dtype=torch.float32, parts=3):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(sum(LENGTHS), parts, HEADS, WIDTH, generator=generator).to(dtype).requires_grad_()


def _first(dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(len(LENGTHS), HEADS, WIDTH, generator=generator).to(dtype).requires_grad_()


def _angles():
    position = torch.cat([torch.arange(length) for length in LENGTHS])
    angles = position[:, None] * torch.tensor([1.0, 0.5, 0.1, 0.05, 0.02, 0.01, 0.005, 0.001]).repeat(2)
    return angles.cos(), _signed(angles.sin())


def _signed(sin):
    left, right = sin.chunk(2, dim=-1)
    return torch.cat([-left, right], dim=-1)


def _turned(x, cos, sin):
    """The rotation as complex numbers: (i, i + half) is real and imaginary part."""
    half = x.shape[-1] // 2
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.complex(cos, sin)[:, None, half:]
    return torch.cat([turned.real, turned.imag], -1)


def _reference(joint, first, window, rotation=None):
    *others, v = joint.float().unbind(1)
    if rotation:
        others = [_turned(x, *rotation) for x in others]
    if first is None:
        q, k = (x.split(LENGTHS) for x in others)
    else:
        q, k = first.float().split(1), others[0].split(LENGTHS)
    rows = []
    for q_, k_, v_ in zip(q, k, v.split(LENGTHS), strict=True):
        distance = (torch.arange(len(q_))[:, None] - torch.arange(len(k_))[None]).abs()
        mask = distance <= (len(k_) if window < 0 else window)
        heads_first = (x.transpose(0, 1) for x in (q_, k_, v_))
        rows.append(F.scaled_dot_product_attention(*heads_first, attn_mask=mask, scale=SCALE).transpose(0, 1))
    return torch.cat(rows)


def _with_gradients(out, *inputs):
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(4))
    return [out.detach(), *torch.autograd.grad((out.float() * weight).sum(), inputs)]


@pytest.mark.parametrize("kept_up_to", [0, 8, 512])
@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("only_first", [False, True])
@pytest.mark.parametrize("window", [-1, 0, HALF_WINDOW, 1000])
def test_values_and_gradients_equal_torch_attention(window, only_first, turns, kept_up_to, monkeypatch):
    monkeypatch.setattr(module, "KEPT_UP_TO", kept_up_to)
    joint, first = (_joint(parts=2), _first()) if only_first else (_joint(), None)
    rotation = _angles() if turns else (None, None)
    ours = cpu_attention(joint, first, *rotation, OFFSETS, window, SCALE)
    torchs = _reference(joint, first, window, rotation if turns else None)

    inputs = (joint, first) if only_first else (joint,)
    for a, b in zip(_with_gradients(ours, *inputs), _with_gradients(torchs, *inputs), strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("only_first", [False, True])
def test_bfloat16_is_rounded_at_the_ends_only(only_first, turns):
    joint, first = (_joint(torch.bfloat16, 2), _first(torch.bfloat16)) if only_first else (_joint(torch.bfloat16), None)
    rotation = _angles() if turns else (None, None)
    ours = cpu_attention(joint, first, *rotation, OFFSETS, -1, SCALE)
    exact = _reference(joint, first, -1, rotation if turns else None)

    inputs = (joint, first) if only_first else (joint,)
    assert ours.dtype == torch.bfloat16
    for a, b in zip(_with_gradients(ours, *inputs), _with_gradients(exact, *inputs), strict=True):
        torch.testing.assert_close(a.float(), b.float(), atol=4e-2 if turns else 5e-3, rtol=1e-2)


def test_autocast_does_not_reach_the_products():
    joint = _joint()
    with torch.autocast("cpu", torch.bfloat16):
        seen = cpu_attention(joint, None, None, None, OFFSETS, -1, SCALE)
    torch.testing.assert_close(seen, _reference(joint, None, -1), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("only_first", [False, True])
@pytest.mark.parametrize("window", [-1, HALF_WINDOW])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_without_gradients_the_kernel_works_in_the_inputs_dtype(dtype, tolerance, window, only_first, turns):
    joint, first = (_joint(dtype, 2), _first(dtype)) if only_first else (_joint(dtype), None)
    rotation = _angles() if turns else (None, None)
    with torch.no_grad():
        seen = cpu_attention(joint, first, *rotation, OFFSETS, window, SCALE)
        exact = _reference(joint, first, window, rotation if turns else None)
    assert seen.dtype == dtype
    torch.testing.assert_close(seen.float(), exact, atol=tolerance, rtol=tolerance)


def test_the_comparison_would_see_a_missing_window_and_a_missing_boundary():
    joint = _joint()
    ours = cpu_attention(joint, None, None, None, OFFSETS, HALF_WINDOW, SCALE)
    as_one = torch.tensor([0, sum(LENGTHS)], dtype=torch.int32)
    assert (ours - _reference(joint, None, -1)).abs().max() > 0.1
    assert (ours - cpu_attention(joint, None, None, None, as_one, HALF_WINDOW, SCALE)).abs().max() > 0.1


@pytest.mark.parametrize("window", [-1, 0, HALF_WINDOW])
def test_first_tokens_alone_get_what_they_get_among_all(window):
    """Values, and the gradients of all keys and values, which the first tokens still see."""
    joint = _joint()
    among_all = cpu_attention(joint, None, *_angles(), OFFSETS, window, SCALE)[STARTS]
    alone = cpu_attention(joint[:, 1:], joint[STARTS, 0], *_angles(), OFFSETS, window, SCALE)
    assert alone.shape == (len(LENGTHS), HEADS, WIDTH)
    for a, b in zip(_with_gradients(alone, joint), _with_gradients(among_all, joint), strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("grad", [True, False])
def test_no_sequence_sees_its_neighbours(grad):
    joint = _joint().detach()
    with torch.set_grad_enabled(grad):
        before = cpu_attention(joint, None, None, None, OFFSETS, HALF_WINDOW, SCALE)
        third = slice(8, 48)
        joint[third] += 5.0
        after = cpu_attention(joint, None, None, None, OFFSETS, HALF_WINDOW, SCALE)
    changed = (before != after).any(dim=(1, 2))
    assert changed[third].all()
    assert changed.sum() == 40


def test_a_rotation_turns_pairs_of_coordinates_in_float32():
    """By a quarter: (x, y) becomes (-y, x), and back."""
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]], dtype=torch.bfloat16)
    cos, sin = torch.zeros(1, 4), _signed(torch.ones(1, 4))
    assert rotate(x, cos, sin).tolist() == [[[-3, -4, 1, 2]]]
    assert rotate(x, cos, sin, back=True).tolist() == [[[3, 4, -1, -2]]]
    assert rotate(x, cos, sin).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("in_place", [False, True])
def test_turning_by_blocks_is_rotating(dtype, in_place):
    generator = torch.Generator().manual_seed(3)
    tokens = 2 * TURNED_AT_ONCE + 5
    joint = torch.randn(tokens, 3, 2, 8, generator=generator).to(dtype)
    angle = torch.randn(tokens, 4, generator=generator).repeat(1, 2)  # both halves alike
    x, cos, sin = joint[:, :-1], angle.cos(), _signed(angle.sin())
    expected, values = rotate(x, cos, sin).to(dtype), joint[:, -1].clone()
    turned = turn(x, cos, sin, out=x if in_place else torch.empty_like(x))
    torch.testing.assert_close(turned, expected, atol=1e-6 if dtype == torch.float32 else 2e-2, rtol=0)
    assert torch.equal(joint[:, -1], values)
