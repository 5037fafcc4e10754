"""What a method is: a module that owns all it learns, and turns a batch into one loss.

Everything a method asks of the suite is declared here, as attributes to set and hooks to override; the
training loop (`bench.train.loop`) calls them in the order of this page and knows no method by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bench.backbones import Backbone
from bench.cell import Sharpness

#: What `forward` returns, so that no later analysis adjusts for the class prior twice:
#: logits that follow the training prior, logits already balanced, or negative distances.
Scores = Literal["train_prior", "balanced", "distances"]


@dataclass(frozen=True)
class Clock:
    """Where a run stands: `epoch` counts from 0, `step` from 0 over all `steps` of the run."""

    epoch: int
    epochs: int
    step: int
    steps: int

    @property
    def progress(self) -> float:
        """Share of the run that is over, from 0 to below 1."""
        return self.step / max(self.steps, 1)


@dataclass(frozen=True)
class Unlabelled:
    """A test set as a method sees it that adapts to it: N images by the logits of K members, no labels.

    One set of images stands for several class distributions: by weights, and by a sample of each.

    Attributes:
        logits: (N, K, C), of `member_logits`.
        views: (2, N, K, C), of two augmented views of each image, where the method has `test_views`.
        weights: (N,), the share of each image.
        sample: (n,) positions of images of which so many of each class were drawn, in random order.
    """

    logits: Tensor
    views: Tensor | None
    weights: Tensor
    sample: Tensor


@dataclass(frozen=True)
class Batch:
    """One step's input; every tensor has the batch as its first dimension.

    Attributes:
        views: one (B, 3, H, W) float tensor per view that the method declared, normalised.
        labels: (B,) int64.
        positions: (B,) int64, where in the training subset each image stands.
        draws: the random numbers that the method asked for in `draws`.
        extra: a second, differently sampled batch of the same size, where `extra_sampler` is set.
    """

    views: tuple[Tensor, ...]
    labels: Tensor
    positions: Tensor
    draws: Mapping[str, Tensor] = field(default_factory=dict)
    extra: Batch | None = None

    @property
    def images(self) -> Tensor:
        """The first view."""
        return self.views[0]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch of what `change` makes of each tensor."""
        return Batch(
            tuple(change(view) for view in self.views),
            change(self.labels),
            change(self.positions),
            {name: change(drawn) for name, drawn in self.draws.items()},
            None if self.extra is None else self.extra.map(change),
        )

    def tensors(self) -> list[Tensor]:
        """Return all its tensors, in a fixed order."""
        found: list[Tensor] = []
        self.map(lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
        return found


@dataclass(frozen=True)
class View:
    """One image a method trains on: which augmentation policy makes it, and of what.

    `policy` names an augmentation policy; "main" is the protocol's. With `patch_of`, the view is cut out
    of an earlier view of that index, taken after that view's geometry and before its colour; the boxes
    are the draws named `boxes`, (n, 4) as x0, y0, x1, y1 in shares of the side, resized to `size`: pixels, or
    a share of the image's side (DSCL's patches).

    With `strength_of`, a buffer of the method with a level for each class, images are distorted as far as
    that says (see `bench.data.augment.distortion`), each with probability `chance`.
    """

    policy: str = "main"
    patch_of: int | None = None
    boxes: str = ""
    size: int | float | None = None
    strength_of: str = ""
    chance: float = 1.0

    def side(self, image_size: int) -> int:
        """Return its side in pixels, of images of that side."""
        if self.size is None:
            return image_size
        return self.size if isinstance(self.size, int) else max(1, round(self.size * image_size))


class MakeBackbone(Protocol):
    """Builds the cell's backbone; called again, it gives another with weights of its own."""

    def __call__(self, **overrides: Any) -> Backbone: ...


class Method(nn.Module):
    """Base of all methods; a subclass registers itself and says how images become a loss and scores.

    Its keyword-only arguments are its hyper-parameters. All state lives in parameters and buffers, so a
    checkpoint is its `state_dict`; what changes with time is written in place into buffers by a hook.
    Classes are never assumed to be sorted by their counts.
    """

    #: The images of `Batch.views`, in order.
    views: tuple[View, ...] = (View(),)
    #: Sampler of `Batch.extra`, if a second batch is wanted.
    extra_sampler: str | None = None
    scores: Scores = "train_prior"
    #: How many networks, branches or heads vote.
    experts: int = 1
    #: How its steps leave the weights to find flat minima, where that makes the method what it is.
    sharpness: Sharpness | None = None
    #: The share of a label that its loss spreads over all classes; set by the protocol.
    label_smoothing: float = 0.0
    #: Whether `loss` can be captured in a CUDA graph: no `.item()`, no shape that depends on data.
    capturable: ClassVar[bool] = True
    #: Whether it starts from a finished cell (`from:` in a recipe), which `start_from` then receives.
    needs_parent: ClassVar[bool] = False
    #: Whether it may start from several at once (`from: [a, b]`), which `start_from_all` then receives.
    several_parents: ClassVar[bool] = False
    #: Registry name of the parent its paper starts from, where it needs one.
    usual_parent: ClassVar[str] = "ce"
    #: The kind of backbone it is made for, where it cannot take any.
    needs_backbone: ClassVar[Literal["", "vit"]] = ""
    #: The hyper-parameter that is the momentum of a slow copy of the network, where there is one.
    key_momentum: ClassVar[str] = ""
    #: False for methods that only re-read a trained parent: no step is made.
    trains: ClassVar[bool] = True
    #: Whether it can answer a whole test set at once, by its unlabelled images: see `adapt`.
    adapts: ClassVar[bool] = False
    #: The policy of the two views of test images that `adapt` asks for besides.
    test_views: ClassVar[str] = ""

    class_counts: Tensor

    def __init__(self, make_backbone: MakeBackbone, class_counts: np.ndarray) -> None:
        super().__init__()
        counts = torch.tensor(np.asarray(class_counts), dtype=torch.int64)
        self.register_buffer("class_counts", counts)

    @property
    def num_classes(self) -> int:
        """Number of classes, absent ones included."""
        return len(self.class_counts)

    # -- declared: what the loop prepares -------------------------------------------------------
    def sampler(self, epoch: int, epochs: int) -> str:
        """Name the sampler of an epoch (see `bench.data.feed.samplers`)."""
        return "shuffle"

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        """Draw an epoch's random numbers: arrays of `size` rows, one per image in its order."""
        return {}

    def param_groups(self) -> list[dict[str, Any]]:
        """Return optimiser groups; `lr_factor` multiplies the rate, other keys are the optimiser's."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def mean_over_images(self) -> bool:
        """Say whether `loss` is the mean of what each image of a batch costs by itself, batch norm aside.

        A batch that memory is too short for may then be taken in pieces. A mean that is weighted within the
        batch is none, and no buffer may be moved by the loss. It holds for the class that says it: one that
        inherits from it says it again, if its loss is one too.
        """
        return False

    def takes_label_smoothing(self) -> bool:
        """Say whether `loss` heeds `label_smoothing`."""
        return False

    def joins_steps(self) -> bool:
        """Say whether nothing happens between steps, so that several can be carried out as one."""
        own = type(self)
        return own.before_step is Method.before_step and own.after_step is Method.after_step

    def phase(self, epoch: int, epochs: int) -> int:
        """Number the structure of the step: where it changes with time, a new graph is captured."""
        return 0

    # -- hooks, in the order they are called ----------------------------------------------------
    def start_from(self, parent: Method) -> None:
        """Take over what is wanted of a trained parent; called once, before anything else."""

    def start_from_all(self, parents: Sequence[Method]) -> None:
        """Take over what is wanted of several parents, in the recipe's order; of one it is `start_from`."""
        self.start_from(parents[0])

    def before_training(self, training_set: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Read the training images unaugmented, in batches with their labels: means of features, say.

        Called once before the first epoch, on the run's device; for a method that does not train, before
        it is scored. What it finds is kept in buffers. A run that resumes calls it again and then loads
        its checkpoint.
        """

    def before_epoch(self, clock: Clock) -> None:
        """Rewrite what changes from epoch to epoch."""

    def wants_training_set(self, clock: Clock) -> bool:
        """Say whether to call `read_training_set` before this epoch, after `before_epoch`."""
        return False

    def read_training_set(self, clock: Clock, training_set: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Read the training images, as in `before_training`, in evaluation mode and without gradient."""

    def probe(self, clock: Clock) -> tuple[np.ndarray, np.ndarray] | None:
        """Return which training images to show before this epoch: their classes and strengths, (n,) each.

        They are drawn from their class with replacement, and made as the first view is, at that strength.
        """
        return None

    def read_probe(
        self, clock: Clock, images: Iterable[Tensor], classes: np.ndarray, strengths: np.ndarray
    ) -> None:
        """See what `probe` asked for, in batches, in evaluation mode and without gradient."""

    def before_step(self, clock: Clock, batch: Batch) -> None:
        """Refresh what the loss reads, outside the captured part."""

    def loss(self, batch: Batch) -> Tensor:
        """Return the scalar to descend on."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def losses(self, batch: Batch) -> Tensor:
        """Return what each image costs, (B,), where `loss` is their mean: for steps that weigh images.

        It holds for the class that says it, as `mean_over_images` does.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss of each image")

    def after_step(self, clock: Clock, batch: Batch) -> None:
        """Follow the optimiser: momentum encoders, queues, constraints."""

    def member_logits(self, images: Tensor) -> Tensor:
        """Return what `adapt` sees of images: the logits (B, K, C) of K networks or experts."""
        raise NotImplementedError(f"{type(self).__name__} has no logits of its members")

    def adapt(self, test: Unlabelled) -> Tensor:
        """Return the logits (N, C) of a test set of which all images are known, but no labels.

        What adapts has rows of its own, which are not ranked with others.
        """
        raise NotImplementedError(f"{type(self).__name__} does not adapt")

    def forward(self, images: Tensor) -> Tensor:
        """Score images (B, 3, H, W) as (B, C); its kind is declared in `scores`."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")
