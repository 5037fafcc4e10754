"""The smallest model of each of timm's families, and on what images it is tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """A model of a family, by timm's name of the module that it is in.

    `fits` says that images of `side` need the option `img_size`; a model that is not `light` takes seconds.
    """

    model: str
    side: int = 64
    fits: bool = False
    light: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """What the model is created with."""
        return {"img_size": self.side} if self.fits else {}


FAMILIES: dict[str, Family] = {
    "beit": Family("beit_base_patch16_224", fits=True, light=False),
    "byoanet": Family("halonet_h1", side=256, light=False),
    "byobnet": Family("test_byobnet"),
    "cait": Family("cait_xxs24_224", fits=True),
    "coat": Family("coat_tiny", fits=True),
    "convit": Family("convit_tiny", fits=True),
    "convmixer": Family("convmixer_768_32"),
    "convnext": Family("test_convnext"),
    "cpubone": Family("cpubone_nano"),
    "crossvit": Family("crossvit_tiny_240"),
    "csatv2": Family("csatv2"),
    "cspnet": Family("cs3darknet_focus_s"),
    "cspnext": Family("cspnext_tiny"),
    "davit": Family("davit_tiny"),
    "deepseek_vit": Family("deepseek_vit_412m", side=70, light=False),
    "deit": Family("deit_tiny_patch16_224", fits=True),
    "densenet": Family("densenet121"),
    "dla": Family("dla46x_c"),
    "dpn": Family("dpn48b"),
    "edgenext": Family("edgenext_xx_small"),
    "efficientformer": Family("efficientformer_l1", side=224),
    "efficientformer_v2": Family("efficientformerv2_s0", fits=True),
    "efficientnet": Family("test_efficientnet"),
    "efficientvim": Family("efficientvim_m1"),
    "efficientvit_mit": Family("efficientvit_b0"),
    "efficientvit_msra": Family("efficientvit_m0"),
    "eva": Family("vit_tiny_patch16_dinov3_qkvb"),
    "fasternet": Family("fasternet_t0"),
    "fastvit": Family("fastvit_t8"),
    "focalnet": Family("focalnet_tiny_srf"),
    "gcvit": Family("gcvit_xxtiny", fits=True),
    "gemma4_vit": Family("gemma4_vit_167m", light=False),
    "ghostnet": Family("ghostnet_050"),
    "hardcorenas": Family("hardcorenas_b"),
    "hgnet": Family("hgnetv2_b0"),
    "hiera": Family("hiera_tiny_224", fits=True),
    "hieradet_sam2": Family("sam2_hiera_tiny"),
    "hrnet": Family("hrnet_w18_small"),
    "iformer": Family("iformer_t"),
    "inception_next": Family("inception_next_atto"),
    "inception_resnet_v2": Family("inception_resnet_v2", side=299, light=False),
    "inception_v3": Family("inception_v3", side=299, light=False),
    "inception_v4": Family("inception_v4", side=299, light=False),
    "lcnetv2": Family("lcnetv2_small"),
    "levit": Family("levit_128s", fits=True),
    "lowformer": Family("lowformer_b0"),
    "mambaout": Family("test_mambaout"),
    "maxxvit": Family("test_coatnet", fits=True),
    "metaformer": Family("poolformerv2_s12"),
    "mlp_mixer": Family("gmlp_ti16_224", fits=True),
    "mobilenetv3": Family("lcnet_035"),
    "mobilenetv5": Family("mobilenetv5_base", light=False),
    "mobilevit": Family("mobilevit_xxs"),
    "mvitv2": Family("mvitv2_tiny"),
    "naflexvit": Family("naflexvit_base_patch16_parfac_gap", light=False),
    "nasnet": Family("nasnetalarge", light=False),
    "nest": Family("nest_tiny", fits=True),
    "nextvit": Family("nextvit_small", light=False),
    "nfnet": Family("test_nfnet"),
    "pit": Family("pit_ti_224", fits=True),
    "pnasnet": Family("pnasnet5large", light=False),
    "pvt_v2": Family("pvt_v2_b0"),
    "qwen3_vit": Family("qwen3_vit_88m", light=False),
    "rdnet": Family("rdnet_tiny", light=False),
    "regnet": Family("regnetx_002"),
    "repghost": Family("repghostnet_050"),
    "repvit": Family("repvit_m1"),
    "res2net": Family("res2next50", light=False),
    "resnest": Family("resnest14d"),
    "resnet": Family("test_resnet"),
    "resnetv2": Family("resnetv2_18"),
    "rexnet": Family("rexnet_100"),
    "selecsls": Family("selecsls42", light=False),
    "senet": Family("legacy_seresnet18"),
    "sequencer": Family("sequencer2d_s", light=False),
    "shvit": Family("shvit_s1"),
    "sknet": Family("skresnet18"),
    "starnet": Family("starnet_s050"),
    "swiftformer": Family("swiftformer_xs"),
    "swin_transformer": Family("swin_tiny_patch4_window7_224", fits=True, light=False),
    "swin_transformer_v2": Family("swinv2_tiny_window8_256", fits=True, light=False),
    "swin_transformer_v2_cr": Family("swinv2_cr_tiny_224", fits=True, light=False),
    "tiny_vit": Family("tiny_vit_5m_224", light=False),
    "tnt": Family("tnt_s_legacy_patch16_224", fits=True, light=False),
    "tresnet": Family("tresnet_m", light=False),
    "twins": Family("twins_svt_small", light=False),
    "vgg": Family("vgg11", light=False),
    "visformer": Family("visformer_tiny", fits=True),
    "vision_transformer": Family("test_vit"),
    "vision_transformer_hybrid": Family("vit_tiny_r_s16_p8_224", fits=True),
    "vision_transformer_relpos": Family("test_vit_relpos", fits=True),
    "vision_transformer_sam": Family("samvit_base_patch16_224", light=False),
    "vitamin": Family("vitamin_small_224", fits=True, light=False),
    "volo": Family("volo_d1_224", fits=True, light=False),
    "vovnet": Family("ese_vovnet19b_slim_dw"),
    "xception": Family("legacy_xception", light=False),
    "xception_aligned": Family("xception41p", light=False),
    "xcit": Family("xcit_nano_12_p8_224"),
}
