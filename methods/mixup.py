"""mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019) in long-tailed training."""

from __future__ import annotations

from bench.method import Batch
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.logit_adjustment import LogitAdjustment
from methods.parts.mixing import Mix, Mixup, batch_wide, cutmix, shuffled


@register("mixup")
@register("mixup_drw", reweight_from=0.8, reduction="batch")
class MixupCrossEntropy(Mixup, CrossEntropy):
    """Cross-entropy on blends of two images of a batch, with both labels.

    mixup-DRW is that of imbalanced-DL: class weights are not divided by their sum over the batch.
    """


@register("mixup_balanced_softmax")
class MixupBalancedSoftmax(Mixup, LogitAdjustment):
    """Balanced softmax on blends of two images of a batch (Bag of Tricks, Zhang et al., AAAI 2021)."""


@register("cutmix")
class CutMixCrossEntropy(Mixup, CrossEntropy):
    """Cross-entropy on images with a box of another one pasted in, with labels weighted by area."""

    def mix(self, batch: Batch) -> Mix:
        other = shuffled(batch.draws["mix_order"])
        weights, centres = (batch_wide(batch.draws[name]) for name in ("mix_weight", "mix_centre"))
        images, labels = batch.images, batch.labels
        return cutmix(images, labels, images[other], labels[other], weights, centres)
