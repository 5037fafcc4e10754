"""GNM-PT: prompts of a frozen ViT, tuned at randomly displaced weights (Li et al., NeurIPS 2024)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bench.backbones import Backbone
from bench.cell import Sharpness
from bench.method import Batch, MakeBackbone
from bench.registry import register
from methods.gcl import cloud_sizes, clouded_cosines, margin_logits
from methods.lift import LIFT, enlarge, frozen_vit
from methods.parts.heads import CosineHead
from methods.parts.prompts import insert_prompts
from methods.parts.weights import weighted_cross_entropy

#: From epoch 60 of 70.
LATE = 60 / 70


@register("gnm_pt", golden=True, reweight_from=LATE, beta=0.9998, pretrained=True)
@register("vpt_gcl_drw", golden=True, distance=0.0, reweight_from=LATE, beta=0.9998, pretrained=True)
@register("vpt_ce_gnm", loss_of="ce", pretrained=True)
@register("vpt_ce", loss_of="ce", distance=0.0, pretrained=True)
class GNMPT(LIFT):
    """Deep visual prompts and a cosine classifier, with the gradient at weights displaced by noise.

    The loss is GCL's, class-weighted late in training, or cross-entropy of the same logits. The backbone is a
    ViT-B/16 of ImageNet-21k; 70 epochs of batches of 128 at lr 0.005, cosine, weight decay 1e-3, AutoAugment
    and Cutout. quirk: the last block's prompts are averaged with the class token. quirk left out: dropout
    before the classifier, which the authors' code switches off for good after its first evaluation.

    Args:
        prompts: tokens in each block.
        distance: size of the weights' noise; it halves every 59 epochs. 0 leaves it out.
        noise: amplitude of GCL's noise, in cosines, for the rarest class.
        margin: subtracted at the label.
        loss_of: GCL's loss, or cross-entropy.
    """

    cloud: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        prompts: int = 10,
        distance: float = 0.005,
        noise: float = 1.0,
        margin: float = 0.1,
        loss_of: Literal["gcl", "ce"] = "gcl",
        scale: float = 25.0,
        reweight_from: float | None = None,
        beta: float = 0.9999,
    ) -> None:
        self.prompts = prompts
        super().__init__(
            make_backbone,
            class_counts,
            scale=scale,
            head_start="random",
            reweight_from=reweight_from,
            beta=beta,
        )
        self.margin, self.gcl = margin, loss_of == "gcl"
        self.scores = "balanced" if self.gcl else "train_prior"  # type: ignore[assignment]
        if distance:
            self.sharpness = Sharpness(form="gaussian", rho=distance, halve_every=59)
        self.register_buffer("cloud", noise * cloud_sizes(self.class_counts))

    def make_head(self, features: int, classes: int) -> CosineHead:
        head = CosineHead(features, classes, self.scale)
        torch.nn.init.trunc_normal_(head.weight, std=0.02)
        return head

    def tune(self, backbone: Backbone) -> None:
        insert_prompts(frozen_vit(backbone), self.prompts, keep_last=True)

    def mean_over_images(self) -> bool:
        return self.unweighted()

    def takes_label_smoothing(self) -> bool:
        return False

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        if not self.gcl:
            return {}
        return {"noise": rng.standard_normal((size, self.num_classes), dtype=np.float32) / 3}

    def features(self, images: Tensor) -> Tensor:
        """Return the mean of the class token and of the last block's mean prompt, (B, D)."""
        tokens = self.backbone.feature_map(enlarge(images, self.size))
        return (tokens[:, 0] + tokens[:, -self.prompts :].mean(dim=1)) / 2

    def loss(self, batch: Batch) -> Tensor:
        cosines = self.head(self.features(batch.images)) / self.scale
        logits = self.scale * cosines
        if self.gcl:
            clouded = clouded_cosines(cosines, batch.draws["noise"], self.cloud)
            logits = margin_logits(clouded, batch.labels, self.margin, self.scale)
        return weighted_cross_entropy(logits, batch.labels, self.class_weights.now)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))
