"""How a cell is trained and evaluated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bench.cell.base import Count, Frozen, Positive, Share


class Sharpness(Frozen):
    """Gradients taken at a distance `rho` from the weights; see `bench.train.displaced`.

    Attributes:
        form: `sam`, `imbsam`, `focal_sam` and `sam_a` climb first: two passes a step; all but `sam` weight
            images by their class. `gaussian` moves at random: one pass.
        adaptive: whether distance is measured relative to the size of each weight.
        eta: of ImbSAM: classes with fewer images are its tail.
        strength, gamma: of Focal-SAM: a class's share of the climb is strength (1 - n_c / N)^gamma.
        halve_every: epochs after which the random distance is halved.
    """

    form: Literal["sam", "imbsam", "focal_sam", "sam_a", "gaussian"] = "sam"
    rho: Positive = 0.05
    adaptive: bool = False
    eta: Count = 20
    gamma: Annotated[float, Field(ge=0)] = 3.0
    strength: Positive = 0.5
    halve_every: Count | None = None


class Optimizer(Frozen):
    """The optimiser; `clip` is the largest norm of the whole gradient."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.1
    momentum: Share = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 2e-4
    clip: Positive | None = None
    sharpness: Sharpness | None = None

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Optimizer:
        if self.nesterov and self.name == "sgd" and not self.momentum:
            raise ValueError("'nesterov: true' needs a momentum above 0")
        return self


class Averaging(Frozen):
    """Weights averaged over the run, evaluated after the last epoch beside the last weights.

    `ema` moves by 1 - `decay` in each step, faster in the first ones; `swa` is the mean of the weights after
    each epoch, from the share `start` of the epochs on.
    """

    kind: Literal["ema", "swa"]
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    start: Share = 0.75

    @model_validator(mode="after")
    def _has_epochs(self) -> Averaging:
        if self.kind == "swa" and self.start == 1:
            raise ValueError("swa with 'start: 1' averages no epoch; choose a share below 1")
        return self


class Schedule(Frozen):
    """The learning rate over the epochs (from 0), as a factor of the optimiser's rate.

    `warmup_from` is the factor that the warm-up's line comes from (NCL: 1/3). `lead` is how many epochs a
    cosine runs ahead (BCL, BCCL and ProCo: 1).
    """

    kind: Literal["constant", "steps", "cosine"] = "cosine"
    per: Literal["epoch", "step"] = "epoch"
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    warmup_from: Annotated[float, Field(ge=0, lt=1)] = 0.0
    lead: Annotated[int, Field(ge=0)] = 0
    milestones: tuple[Annotated[int, Field(ge=0)], ...] = ()
    factors: tuple[Positive, ...] = ()

    @model_validator(mode="after")
    def _steps_have_factors(self) -> Schedule:
        if len(self.milestones) != len(self.factors):
            raise ValueError(
                f"{len(self.milestones)} milestones need as many factors, got {len(self.factors)}"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must rise")
        if bool(self.milestones) != (self.kind == "steps"):
            raise ValueError("milestones and factors belong to 'kind: steps', and it needs them")
        return self


class Protocol(Frozen):
    """How a cell is trained and evaluated: what makes two numbers comparable.

    Attributes:
        augmentation: the policy of the view "main".
        views: override the policies of the method's views, one for each; `sampler` its sampler.
        label_smoothing: the share of a label that is spread over all classes, for methods that use it.
        subsample: each class keeps at most this many times the images of the smallest class, always the same.
        evaluate_every, evaluate_last: the test set is evaluated after every `evaluate_every`-th epoch and
            after each of the `evaluate_last` last ones.
    """

    epochs: Annotated[int, Field(ge=0)] = 200
    batch_size: Count = 128
    drop_last: bool = False
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augmentation: str = "crop_flip"
    views: tuple[str, ...] = ()
    sampler: str | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    averaging: Averaging | None = None
    subsample: Count | None = None
    evaluate_every: Count = 1
    evaluate_last: Count = 1

    def evaluates_after(self, epoch: int) -> bool:
        """Tell whether the test set is evaluated after an epoch, counted from 0."""
        return (epoch + 1) % self.evaluate_every == 0 or epoch >= self.epochs - self.evaluate_last
