"""Losses against their closed forms."""

import math

import pytest
import torch

from mae_bench_plugins.pretraining.lsae.losses import PatchNCE, gradient_penalty, seems_fake, seems_real


def test_logistic_losses():
    """-log sigmoid(x) and -log(1 - sigmoid(x)), also where those overflow."""
    logits = torch.tensor([-3.0, 0.5, 2.0])
    torch.testing.assert_close(seems_real(logits), -torch.sigmoid(logits).log().mean())
    torch.testing.assert_close(seems_fake(logits), -(1 - torch.sigmoid(logits)).log().mean())
    assert seems_fake(torch.tensor([1e4], dtype=torch.bfloat16)).dtype == torch.float32
    assert seems_real(torch.tensor([-1e4])).item() == 1e4


def test_penalty_of_a_linear_discriminator():
    """The gradient of <w, x> is w everywhere: the penalty is |w|^2, and its own gradient 2 w."""
    weight = torch.randn(2, 5, 6, requires_grad=True)
    penalty = gradient_penalty(lambda x: (x * weight).sum(dim=(1, 2, 3)), torch.randn(4, 2, 5, 6))
    torch.testing.assert_close(penalty, weight.square().sum())
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * weight)


def test_penalty_of_a_quadratic_discriminator():
    """The gradient of a |x|^2 / 2 is a x: the penalty is a^2 times the mean squared norm."""
    real, a = torch.randn(4, 1, 3, 3), torch.tensor(1.5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        penalty = gradient_penalty(lambda x: a * x.square().sum(dim=(1, 2, 3)) / 2, real)
    torch.testing.assert_close(penalty, 1.5**2 * real.square().sum(dim=(1, 2, 3)).mean())


def test_patch_nce_is_the_loop():
    """Per scale, image and place: -log of the share of the same place among all places of the same image."""
    torch.manual_seed(0)
    nce = PatchNCE([4, 6], 0.07).double()
    ours = [torch.randn(2, 4, 16, 24, dtype=torch.float64), torch.randn(2, 6, 4, 6, dtype=torch.float64)]
    theirs = [maps + 0.3 * torch.randn_like(maps) for maps in ours]
    places = torch.randint(32 * 48, (2, 5))
    terms = []
    for projector, a, b in zip(nce.projectors, ours, theirs, strict=True):
        stride = 48 // a.shape[3]
        for image in range(2):
            spots = [(int(p) // 48 // stride, int(p) % 48 // stride) for p in places[image]]
            said = [[projector(m[image, :, r, c]).detach() for r, c in spots] for m in (a, b)]
            query, key = ([v / v.norm() for v in vectors] for vectors in said)
            for n in range(5):
                logits = [float(query[n] @ k) / 0.07 for k in key]
                terms.append(math.log(sum(math.exp(x) for x in logits)) - logits[n])
    found = nce(ours, theirs, places, 48)
    assert found.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_patch_nce_teaches_the_hybrid_only():
    """Gradients reach the hybrid's maps at the places asked, and the original's nowhere."""
    nce = PatchNCE([4], 0.07)
    hybrid, original = (torch.randn(1, 4, 8, 8, requires_grad=True) for _ in range(2))
    places = torch.tensor([[0, 9, 63]])
    nce([hybrid], [original], places, 8).backward()
    assert original.grad is None
    touched = hybrid.grad.abs().sum(dim=1).flatten().nonzero().flatten()
    assert touched.tolist() == [0, 9, 63]
