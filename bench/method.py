"""The base class of methods: a module that owns all it learns, and computes the loss of a batch.

Everything that a method may need is declared here, as attributes to set and hooks to override. The training
loop (`bench.train.loop`) calls the hooks in the order of this file and knows no method by name.
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

#: The kind of logits that `forward` returns, so that no later analysis adjusts for the class prior twice:
#: they follow the training prior, are balanced, or are negative distances.
Scores = Literal["train_prior", "balanced", "distances"]


@dataclass(frozen=True)
class Clock:
    """The time in a run: `epoch` counts from 0, `step` from 0 over all `steps` of the run."""

    epoch: int
    epochs: int
    step: int
    steps: int

    @property
    def progress(self) -> float:
        """The share of the run that is done, from 0 to below 1."""
        return self.step / max(self.steps, 1)


@dataclass(frozen=True)
class Unlabelled:
    """An unlabelled test set for a method that adapts to it: the logits of K members for N images.

    The same images represent several class distributions, by weights and by a sample.

    Attributes:
        logits: (N, K, C), from `member_logits`.
        views: (2, N, K, C), of two augmented views of each image, if the method has `test_views`.
        weights: (N,), the share of each image.
        sample: (n,) positions of images drawn by class, in random order.
    """

    logits: Tensor
    views: Tensor | None
    weights: Tensor
    sample: Tensor


@dataclass(frozen=True)
class Batch:
    """One step's input; the first dimension of every tensor is the batch.

    Attributes:
        views: one normalised (B, 3, H, W) float tensor per declared view.
        labels: (B,) int64.
        positions: (B,) int64, the images' positions in the training subset.
        draws: the random numbers from the method's `draws`.
        extra: a second batch of the same size from another sampler, if `extra_sampler` is set.
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
        """Return a batch with `change` applied to each tensor."""
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
    """One augmented view of the training images.

    Attributes:
        policy: the augmentation policy; "main" is the protocol's.
        patch_of: the index of an earlier view, of which this view is a patch (DSCL), taken after that view's
            geometry and before its colour.
        boxes: the name of the draws with the patches' boxes, (n, 4) as x0, y0, x1, y1 in shares of the side.
        size: the side to which patches are resized, in pixels or as a share of the image's side.
        strength_of: a buffer of the method with a level for each class, by which images are distorted (see
            `bench.data.augment.distortion`).
        chance: the probability of an image to be distorted.
    """

    policy: str = "main"
    patch_of: int | None = None
    boxes: str = ""
    size: int | float | None = None
    strength_of: str = ""
    chance: float = 1.0

    def side(self, image_size: int) -> int:
        """Return its side in pixels, for images of `image_size` pixels."""
        if self.size is None:
            return image_size
        return self.size if isinstance(self.size, int) else max(1, round(self.size * image_size))


class MakeBackbone(Protocol):
    """Builds the cell's backbone, with other weights at each call."""

    def __call__(self, **overrides: Any) -> Backbone: ...


class Method(nn.Module):
    """The base of all methods; a subclass registers itself and defines the loss and the logits.

    Its keyword-only arguments are its hyper-parameters. All state is in parameters and buffers, so that a
    checkpoint is its `state_dict`; hooks write what changes with time into buffers, in place. Classes are not
    assumed to be sorted by their counts.
    """

    #: The views in `Batch.views`, in order.
    views: tuple[View, ...] = (View(),)
    #: The sampler of `Batch.extra`, if there is a second batch.
    extra_sampler: str | None = None
    scores: Scores = "train_prior"
    #: How many networks, branches or heads the logits combine.
    experts: int = 1
    #: How its steps displace the weights to find flat minima, if that is part of the method.
    sharpness: Sharpness | None = None
    #: Label smoothing of its loss; set by the protocol.
    label_smoothing: float = 0.0
    #: Whether `loss` can be captured in a CUDA graph: no `.item()`, no shapes that depend on data.
    capturable: ClassVar[bool] = True
    #: Whether it starts from a finished cell (`from:` in a recipe), passed to `start_from`.
    needs_parent: ClassVar[bool] = False
    #: Whether it may start from several (`from: [a, b]`), passed to `start_from_all`.
    several_parents: ClassVar[bool] = False
    #: The registered name of its paper's parent, if it needs one.
    usual_parent: ClassVar[str] = "ce"
    #: The kind of backbone it needs, if not any.
    needs_backbone: ClassVar[Literal["", "vit"]] = ""
    #: The hyper-parameter with the momentum of its momentum encoder, if it has one.
    key_momentum: ClassVar[str] = ""
    #: False if it makes no step and only evaluates a trained parent in another way.
    trains: ClassVar[bool] = True
    #: Whether it can adapt to a whole test set from its unlabelled images: see `adapt`.
    adapts: ClassVar[bool] = False
    #: The augmentation policy of the two views of test images that `adapt` needs, if any.
    test_views: ClassVar[str] = ""

    class_counts: Tensor

    def __init__(self, make_backbone: MakeBackbone, class_counts: np.ndarray) -> None:
        super().__init__()
        counts = torch.tensor(np.asarray(class_counts), dtype=torch.int64)
        self.register_buffer("class_counts", counts)

    @property
    def num_classes(self) -> int:
        """The number of classes, including absent ones."""
        return len(self.class_counts)

    # -- declared: what the loop prepares -------------------------------------------------------
    def sampler(self, epoch: int, epochs: int) -> str:
        """Return the name of an epoch's sampler (see `bench.data.feed.samplers`)."""
        return "shuffle"

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        """Draw an epoch's random numbers: arrays of `size` rows, one per image in the epoch's order."""
        return {}

    def param_groups(self) -> list[dict[str, Any]]:
        """Return optimiser groups; `lr_factor` multiplies the rate, other keys are the optimiser's."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def mean_over_images(self) -> bool:
        """Whether `loss` is the mean of the images' own losses, except for batch norm.

        If memory is short, a batch may then be divided. A mean weighted within the batch does not qualify,
        and the loss must not change buffers. It counts only in the class that defines it; a subclass must
        define it again.
        """
        return False

    def takes_label_smoothing(self) -> bool:
        """Whether `loss` uses `label_smoothing`."""
        return False

    def phase(self, epoch: int, epochs: int) -> int:
        """Return a number for the structure of the step; when it changes, a new graph is captured."""
        return 0

    # -- hooks, in the order they are called ----------------------------------------------------
    def start_from(self, parent: Method) -> None:
        """Copy what is needed from a trained parent; called once, first."""

    def start_from_all(self, parents: Sequence[Method]) -> None:
        """Copy what is needed from several parents, in the recipe's order; by default from the first."""
        self.start_from(parents[0])

    def before_training(self, training_set: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Read the unaugmented training images in batches with labels, for example for means of features.

        Called once before the first epoch, on the run's device, or before evaluation if the method does not
        train. Results are kept in buffers. A resumed run calls it again and then loads its checkpoint.
        """

    def before_epoch(self, clock: Clock) -> None:
        """Update what changes from epoch to epoch."""

    def wants_training_set(self, clock: Clock) -> bool:
        """Whether to call `read_training_set` before this epoch, after `before_epoch`."""
        return False

    def read_training_set(self, clock: Clock, training_set: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Read the training images as in `before_training`, in evaluation mode and without gradient."""

    def probe(self, clock: Clock) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the classes and strengths, (n,) each, of distorted training images to show, or None.

        They are drawn from their class with replacement, and augmented like the first view, at that strength.
        """
        return None

    def read_probe(
        self, clock: Clock, images: Iterable[Tensor], classes: np.ndarray, strengths: np.ndarray
    ) -> None:
        """Read the images that `probe` asked for, in batches, in evaluation mode and without gradient."""

    def before_step(self, clock: Clock, batch: Batch) -> None:
        """Update what the loss reads, outside the captured part."""

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def losses(self, batch: Batch) -> Tensor:
        """Return the loss of each image, (B,), if `loss` is their mean; for steps that weight images.

        It counts only in the class that defines it, like `mean_over_images`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss of each image")

    def after_step(self, clock: Clock, batch: Batch) -> None:
        """Update momentum encoders, queues or constraints after the optimiser's step."""

    def member_logits(self, images: Tensor) -> Tensor:
        """Return the logits (B, K, C) of K networks or experts for `adapt`."""
        raise NotImplementedError(f"{type(self).__name__} has no logits of its members")

    def adapt(self, test: Unlabelled) -> Tensor:
        """Return the logits (N, C) of a test set whose images are all known, but not their labels.

        Such results have their own rows, which are not ranked with others.
        """
        raise NotImplementedError(f"{type(self).__name__} does not adapt")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, C) of images (B, 3, H, W), of the kind in `scores`."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")
