"""ProCo against values of its authors' code, and its Bessel functions against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_values import check, golden
from scipy.special import ive

from bench import backbones, registry
from bench.errors import BenchError
from bench.method import Clock
from methods.parts.weights import log_class_prior
from methods.proco import ClassMeans, log_bessel, proco_logits


def fitted(g):
    """Class means with the file's start, and its batches folded in."""
    classes = ClassMeans(*g["init_mean"].shape).double()
    classes.means.copy_(g["init_mean"])
    classes.counts.copy_(g["init_count"])
    for batch in g["feature_batches"]:
        classes.fold(batch, g["labels"])
    return classes


def test_class_means():
    g, _ = golden("proco_C10")
    classes = fitted(g)
    torch.testing.assert_close(classes.means, g["final_mean"], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(classes.counts, g["final_count"])


class TheirBessel(torch.autograd.Function):
    """Their `log_bessel`: Miller's recurrence begun at order 2 nu, too late for large arguments."""

    @staticmethod
    def forward(ctx, x):
        nu, above, here = 15, torch.zeros_like(x), torch.ones_like(x)
        for order in range(2 * nu, 0, -1):
            above, here = here, 2 * order / x * here + above
            if order == nu + 1:
                ratio, of_order = above / here, here  # I_{nu+1} / I_nu, and I_nu up to a constant
        ctx.save_for_backward(ratio)
        return (of_order / here).log() + torch.special.i0e(x).log() + x - nu * x.log()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].clamp(max=1)


@pytest.mark.parametrize("theirs", [True, False], ids=["their Bessel functions", "exact ones"])
def test_logits_loss_and_gradient(theirs, monkeypatch):
    g, settings = golden("proco_C10")
    if theirs:
        monkeypatch.setattr("methods.proco.log_bessel", lambda order, x: TheirBessel.apply(x))
    means, prior = fitted(g).means, log_class_prior(g["cls_num_list"])
    features, tau = g["feature_batches"][-1], settings["temperature"]
    logits = proco_logits(features, means, tau)
    torch.testing.assert_close(logits, g["contrast_logits"], rtol=0, atol=1e-9 if theirs else 2e-3)
    check(
        lambda f: F.cross_entropy(proco_logits(f, means, tau) + prior, g["labels"]),
        features,
        g["loss"],
        g["grad_features"],
        rtol=1e-6 if theirs else 2e-5,
        grad_rtol=1e-5 if theirs else 1e-2,
        atol=1e-7 if theirs else 2e-4,
    )


@pytest.mark.parametrize(("dim", "atol"), [(16, 1e-6), (32, 1e-8), (128, 1e-10)])
def test_bessel_and_its_derivative(dim, atol):
    order, x = dim / 2 - 1, np.logspace(-1, 5, 200)
    exact = np.log(ive(order, x)) + x - order * np.log(x)
    leaf = torch.from_numpy(x).requires_grad_()
    found = log_bessel(order, leaf)
    torch.testing.assert_close(found.detach(), torch.from_numpy(exact), rtol=1e-14, atol=atol)
    found.sum().backward()
    ratio = torch.from_numpy(ive(order + 1, x) / ive(order, x))
    torch.testing.assert_close(leaf.grad, ratio, rtol=10 * atol, atol=0)


def test_the_logit_is_an_expectation():
    """Of exp(z x / t) over x from the class's distribution: here by Monte Carlo, importance weighted."""
    rng = np.random.default_rng(0)
    sphere = torch.from_numpy(rng.normal(size=(400_000, 16)))
    sphere = F.normalize(sphere, dim=1)
    mean = torch.zeros(1, 16, dtype=torch.float64)
    mean[0, 0] = 0.2
    z = F.normalize(torch.from_numpy(rng.normal(size=(3, 16))), dim=1)
    log_weight = (16 * 0.2 / (1 - 0.04)) * sphere[:, 0]
    expected = (sphere @ z.T / 0.5 + log_weight[:, None]).logsumexp(0) - log_weight.logsumexp(0)
    torch.testing.assert_close(proco_logits(z, mean, 0.5)[:, 0], expected, rtol=0, atol=0.01)


def test_a_class_of_one_image_stays_finite():
    classes = ClassMeans(3, 32)
    one = F.normalize(torch.randn(1, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    classes.fold(one, torch.tensor([1]))
    leaf = one.clone().requires_grad_()
    logits = proco_logits(leaf, classes.means, 0.1)
    assert logits.argmax() == 1
    logits.sum().backward()
    assert logits.isfinite().all()
    assert leaf.grad.isfinite().all()


def test_an_epoch_starts_from_the_last_epochs_means():
    entry = registry.find("proco")
    build = lambda **params: entry.build(  # noqa: E731
        lambda: backbones.create("resnet8_cifar"),
        np.array([4, 2]),
        **entry.hyperparameters(**params).model_dump(),
    )
    method = build(dim=16)
    method.next.fold(torch.eye(2, 16), torch.tensor([0, 1]))
    method.before_epoch(Clock(1, 2, 1, 2))
    torch.testing.assert_close(method.used.means, torch.eye(2, 16))
    assert method.used.counts.tolist() == [1, 1]
    assert method.next.counts.tolist() == [0, 0]
    torch.testing.assert_close(method.next.means.norm(dim=1), torch.full((2,), 0.9))
    with pytest.raises(BenchError, match="from 16 on"):
        build(dim=8)
