"""A Stable Diffusion pipeline of random weights that paints 16x16 images in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

import torch

import bench.vision  # noqa: F401  before diffusers

LETTERS = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
VOCABULARY = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]


def save_tiny_pipeline(folder: Path) -> Path:
    """Write the pipeline and return its folder; the text is read byte by byte."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    words = folder / "words"
    words.mkdir(parents=True)
    (words / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(VOCABULARY)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = StableDiffusionPipeline(
            vae=AutoencoderKL(
                block_out_channels=(32, 64),
                down_block_types=["DownEncoderBlock2D"] * 2,
                up_block_types=["UpDecoderBlock2D"] * 2,
            ),
            text_encoder=CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(VOCABULARY),
                    hidden_size=32,
                    intermediate_size=37,
                    num_attention_heads=4,
                    num_hidden_layers=2,
                    bos_token_id=len(VOCABULARY) - 2,
                    eos_token_id=len(VOCABULARY) - 1,
                )
            ),
            tokenizer=CLIPTokenizer.from_pretrained(words, model_max_length=77),
            unet=UNet2DConditionModel(
                block_out_channels=(32, 64),
                layers_per_block=1,
                sample_size=8,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=32,
            ),
            scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder / "tiny")
    return folder / "tiny"
