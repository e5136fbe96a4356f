"""Norm, modulation and SiLU in one against the three of them in float64."""

import shutil

import pytest
import torch
from torch import nn

from diffusion_ladder.networks import fused_norms, norm_kernel
from diffusion_ladder.networks.fused_norms import normalised

GROUPS = 4


@pytest.fixture(params=["kernel", "operators"])
def way(request, monkeypatch):
    """Through the compiled kernel, and through PyTorch's operators as on a machine without a compiler."""
    if request.param == "operators":
        monkeypatch.setattr(fused_norms, "kernel", lambda dtype: None)
    elif shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    else:
        assert norm_kernel.kernel(torch.float32)
        assert norm_kernel.kernel(torch.bfloat16)
    return request.param


def inputs(channels=12, side=6, size=5, mean=2.0, dtype=torch.float32):
    """A norm, activations channels last, scale, shift and the gradient of the output."""
    random = torch.Generator().manual_seed(0)
    norm = nn.GroupNorm(GROUPS, channels)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(channels, generator=random))
        norm.bias.copy_(torch.randn(channels, generator=random))
    shape = (size, channels, side, side + 1)
    x, dy = (torch.randn(shape, generator=random).to(memory_format=torch.channels_last) for _ in range(2))
    scale, shift = (torch.randn(size, channels, generator=random) for _ in range(2))
    return norm, (mean + 3 * x).to(dtype), scale.to(dtype), shift.to(dtype), dy.to(dtype)


def expected(norm, x, scale, shift, activate):
    """The formula, in float64."""
    grouped = x.unflatten(1, (GROUPS, -1)).flatten(2)  # (B, G, C/G H W)
    centred = grouped - grouped.mean(2, keepdim=True)
    hidden = centred / (centred.square().mean(2, keepdim=True) + norm.eps).sqrt()
    hidden = hidden.view(len(x), *x.shape[1:]) * norm.weight[:, None, None] + norm.bias[:, None, None]
    if scale is not None:
        hidden = hidden * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    return hidden * torch.sigmoid(hidden) if activate else hidden


def with_gradients(function, norm, x, scale, shift, dy, activate):
    """The output, and the gradients of everything that goes in."""
    leaves = [each.detach().clone().requires_grad_() for each in (x, scale, shift) if each is not None]
    norm.zero_grad()
    output = function(norm, *leaves, *[None] * (3 - len(leaves)), activate)
    output.backward(dy)
    return [output.detach(), *[leaf.grad for leaf in leaves], norm.weight.grad, norm.bias.grad]


@pytest.mark.parametrize("activate", [True, False])
@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "side", "size"), [(12, 6, 5), (32, 8, 3), (36, 1, 1), (128, 4, 2)])
def test_output_and_gradients_are_those_of_float64(way, activate, modulated, dtype, channels, side, size):
    norm, x, scale, shift, dy = inputs(channels, side, size, dtype=dtype)
    if not modulated:
        scale = shift = None
    found = with_gradients(normalised, norm, x, scale, shift, dy, activate)
    double = [None if each is None else each.double() for each in (x, scale, shift, dy)]
    wanted = with_gradients(expected, norm.double(), *double, activate)
    assert found[0].dtype == dtype
    tolerance = 2e-6 if dtype == torch.float32 else 6e-3  # of the root of the mean square
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.double() - theirs).norm() <= tolerance * theirs.norm() * (3 if way == "operators" else 1)


def test_statistics_keep_their_digits_far_from_zero(way):
    if way == "operators":
        pytest.skip("PyTorch's own lose them")
    norm, x, scale, shift, _ = inputs(mean=1000.0)
    ours = normalised(norm, x, scale, shift)
    theirs = expected(norm.double(), x.double(), scale.double(), shift.double(), activate=False)
    assert (ours.double() - theirs).norm() < 1e-3 * theirs.norm()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so_and_in_its_image(way, bad):
    norm, x, _, _, dy = inputs()
    x[1, 0, 0, 0] = bad
    output, gradient, *_ = with_gradients(normalised, norm, x, None, None, dy, activate=True)
    for each in (output, gradient):
        assert not each[1].isfinite().all()
        assert each[[0, 2, 3, 4]].isfinite().all()


@pytest.mark.parametrize("z", [-200.0, -90.0, 90.0, 1e30])
def test_silu_far_from_zero(way, z):
    norm, x, _, _, dy = inputs()
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.fill_(z)
    output, gradient, *_ = with_gradients(normalised, norm, x, None, None, dy, activate=True)
    torch.testing.assert_close(output, torch.full_like(x, max(z, 0.0)), atol=1e-30, rtol=1e-6)
    assert gradient.abs().max() == 0


def test_neither_threads_nor_the_batch_change_a_bit(way):
    if way == "operators":
        pytest.skip("of the kernel alone")
    norm, x, scale, shift, dy = inputs(size=6)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(with_gradients(normalised, norm, x, scale, shift, dy, activate=True))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], result, strict=True))
    alone = normalised(norm, x[2:3], scale[2:3], shift[2:3], activate=True)
    assert torch.equal(alone, results[0][0][2:3])


def test_memory_order_doesn_t_matter(way):
    norm, x, scale, shift, dy = inputs()
    last = with_gradients(normalised, norm, x, scale, shift, dy, activate=True)
    first = with_gradients(normalised, norm, x.contiguous(), scale, shift, dy.contiguous(), activate=True)
    for one, other in zip(last, first, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_without_a_compiler_or_with_one_that_fails_there_is_no_kernel(monkeypatch, tmp_path):
    monkeypatch.setattr(norm_kernel, "CACHE", tmp_path / "cache")
    find = norm_kernel.kernel.__wrapped__  # without its memory
    assert find(torch.float64) is None
    monkeypatch.setattr(norm_kernel.shutil, "which", lambda name: None)
    assert find(torch.float32) is None
    monkeypatch.setattr(norm_kernel.shutil, "which", lambda name: "false")
    assert find(torch.float32) is None
    assert not list(tmp_path.rglob("*.so"))
