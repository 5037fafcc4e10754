"""Steps with the gradient at displaced weights: SAM, its long-tailed forms, and random noise.

SAM (Foret et al., ICLR 2021) climbs by rho along the gradient, takes the gradient there, and goes back before
it descends. The long-tailed forms weight images by class in the climb: ImbSAM (Zhou et al., ICCV 2023),
Focal-SAM (Li et al., ICML 2025) and SAM-A (Shwartz-Ziv et al., NeurIPS 2023) are one scheme with three tables
of class weights. `gaussian` moves at random instead (GNM: Li et al., NeurIPS 2024).

All shapes are fixed and no number is read from the device, so that a step can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench import ranks
from bench.cell import Optimizer, Sharpness
from bench.errors import BenchError
from bench.method import Batch, Clock, Method
from bench.train.memory import divisible

#: Keeps the length of the climb finite where there is no gradient.
TINY = 1e-12


def displacement(method: Method, optimizer: Optimizer) -> Displacement | None:
    """Return the displacement that the method or the protocol asks for, or None.

    Raises:
        BenchError: both ask for one, or the method does not allow it.
    """
    if method.sharpness is not None and optimizer.sharpness is not None:
        raise BenchError(
            f"{type(method).__name__} has a sharpness of its own ({method.sharpness.form}); "
            "leave protocol.optimizer.sharpness out"
        )
    settings = optimizer.sharpness or method.sharpness
    return None if settings is None else Displacement(method, settings)


class Displacement:
    """Computes the gradient at displaced weights, and leaves it in the parameters' `grad`."""

    def __init__(self, method: Method, settings: Sharpness) -> None:
        self.method, self.settings = method, settings
        self.parameters = [p for group in method.param_groups() for p in group["params"]]
        self.tables = class_tables(method.class_counts, settings)
        self.noise = [torch.zeros_like(p) for p in self.parameters] if settings.form == "gaussian" else []
        self.checked = False
        if self.weighs and not ("losses" in vars(type(method)) and divisible(method)):
            raise BenchError(
                f"sharpness {settings.form!r} weighs images, and {type(method).__name__} has no loss of "
                "each; choose form: sam, or a method whose loss is a mean over images"
            )

    @property
    def weighs(self) -> bool:
        """Whether images are weighted, so that a batch cannot be divided."""
        return self.tables is not None

    def before_step(self, clock: Clock, batch: Batch) -> None:
        """Draw the step's noise, or check, at the first step, that two passes are allowed.

        Raises:
            BenchError: the loss changes buffers, which two passes would change twice.
        """
        if self.noise:
            halved = clock.epoch - 1  # quirk: the authors' first epoch has twice the noise of the second
            exponent = 0 if self.settings.halve_every is None else halved // self.settings.halve_every
            size = self.settings.rho * 0.5**exponent
            for noise in self.noise:
                noise.normal_(std=1 / 3).clamp_(-1, 1).mul_(size)
        elif not self.checked:
            self._refuse_moving_loss(batch)
            self.checked = True

    def descend(self, labels: Tensor, backward: Callable[[], Tensor], losses: Callable[[], Tensor]) -> Tensor:
        """Set the parameters' gradient, and return the loss at their undisplaced values.

        Args:
            labels: of the batch, (B,).
            backward: adds the gradient of the loss to the parameters', and returns the loss.
            losses: returns the loss of each image, (B,), with its graph.
        """
        if self.noise:
            return self._displaced(self.parameters, self.noise, backward)
        kept: tuple[Tensor | None, ...] = ()
        if self.tables is None:
            loss = backward()
        else:
            keep, ascent = self.tables.keep, self.tables.ascent_weights(labels)
            each = losses()
            loss = each.detach().mean()
            if keep is not None:
                unmoved = (keep[labels] * each).mean()
                kept = torch.autograd.grad(unmoved, self.parameters, retain_graph=True, allow_unused=True)
            (ascent * each).sum().backward()
        ranks.average_gradients(self.parameters)
        moved = [p for p in self.parameters if p.grad is not None]
        gradients = [p.grad for p in moved if p.grad is not None]
        climb = self._climb(moved, gradients)
        torch._foreach_zero_(gradients)

        def descent() -> Tensor:
            if self.tables is None or self.tables.descent is None:
                return backward()
            each = losses()
            (self.tables.descent[labels] * each).mean().backward()
            return each.detach().mean()

        self._displaced(moved, climb, descent)
        for parameter, gradient in zip(self.parameters, kept, strict=bool(kept)):
            if gradient is not None and parameter.grad is not None:
                parameter.grad += gradient
        return loss

    @torch.no_grad()
    def _climb(self, parameters: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """Return rho g / ||g|| over all parameters together; adaptive: rho theta^2 g / || |theta| g ||."""
        scaled = gradients
        if self.settings.adaptive:
            scaled = list(torch._foreach_mul(torch._foreach_abs(parameters), gradients))
        length = torch.stack(torch._foreach_norm(scaled)).norm()
        step = [self.settings.rho / (length + TINY) * gradient for gradient in gradients]
        if self.settings.adaptive:
            step = [p.square() * part for p, part in zip(parameters, step, strict=True)]
        return step

    def _displaced(
        self, parameters: list[Tensor], step: list[Tensor], backward: Callable[[], Tensor]
    ) -> Tensor:
        """Call `backward` with the parameters moved by a step, and restore them."""
        with torch.no_grad():
            before = [p.clone() for p in parameters]
            torch._foreach_add_(parameters, step)
        loss = backward()
        with torch.no_grad():
            torch._foreach_copy_(parameters, before)
        return loss

    def _refuse_moving_loss(self, batch: Batch) -> None:
        """Compute the loss once, find which buffers it changes, and restore all."""
        normed = [m for m in self.method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        allowed = {id(buffer) for module in normed for buffer in module.buffers()}
        before = {name: buffer.clone() for name, buffer in self.method.named_buffers()}
        with torch.random.fork_rng():  # dropout's draws belong to the step
            self.method.loss(batch)
        moved = []
        for name, buffer in self.method.named_buffers():
            if id(buffer) not in allowed and not torch.equal(buffer, before[name]):
                moved.append(name)
            buffer.copy_(before[name])
        if moved:
            raise BenchError(
                f"sharpness {self.settings.form!r} takes the loss twice a step, and "
                f"{type(self.method).__name__}'s moves {moved[0]!r} each time; leave sharpness out"
            )


@dataclass(frozen=True)
class Tables:
    """Class weights (C,) of a form.

    Attributes:
        keep: of the gradient at the undisplaced weights, which is added; None: nothing is added.
        ascent: of the climb.
        descent: of the gradient after the climb; None: that of the plain loss.
        normed: divide the climb's weights by their sum over the batch instead of by its size.
    """

    keep: Tensor | None
    ascent: Tensor
    descent: Tensor | None
    normed: bool = False

    def ascent_weights(self, labels: Tensor) -> Tensor:
        """Return the factors of the images' losses in the climb, (B,)."""
        weights = self.ascent[labels]
        return weights / (weights.sum() if self.normed else len(labels))


def class_tables(class_counts: Tensor, settings: Sharpness) -> Tables | None:
    """Return the tables of a form, or None if all images have the same weight.

    quirk: ImbSAM's code counts each tail image twice, in the climb and in the descent, which its paper
    does not say.
    """
    counts = class_counts.clamp(min=1).double()
    if settings.form == "imbsam":
        tail = (counts < settings.eta).float()
        return Tables(1 - tail, 2 * tail, 2 * tail)
    if settings.form == "focal_sam":
        share = settings.strength * (1 - counts / counts.sum()) ** settings.gamma
        return Tables((1 - share).float(), share.float(), share.float())
    if settings.form == "sam_a":
        return Tables(None, (counts.max() / counts).float(), None, normed=True)
    return None
