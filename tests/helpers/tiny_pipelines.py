"""A Stable Diffusion pipeline of diffusers with tiny random weights and CLIP's own words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sage_core.encoders.tokens import END_TOKEN, START_TOKEN


def tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer, from the vocabulary that open_clip bundles."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    source = SimpleTokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = dict(source.encoder)
    # open_clip writes its special tokens in another way.
    for name, token in (("<|startoftext|>", START_TOKEN), ("<|endoftext|>", END_TOKEN)):
        vocabulary = {key: value for key, value in vocabulary.items() if value != token} | {name: token}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in sorted(source.bpe_ranks, key=source.bpe_ranks.get))
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}')
    return CLIPTokenizer.from_pretrained(folder)


def text_encoder(seed: int, *, activation: str = "quick_gelu", width: int = 32) -> Any:
    """Transformers' text model with random weights, CLIP's vocabulary and 77 positions."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=48, num_hidden_layers=2, num_attention_heads=1,
        max_position_embeddings=77, hidden_act=activation, eos_token_id=END_TOKEN, bos_token_id=START_TOKEN,
    )  # fmt: skip
    return CLIPTextModel(config).eval()


def pipeline(folder: Path, seed: int = 0) -> Any:
    """A StableDiffusionPipeline that draws 16 x 16 pixels."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8,
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 16), norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=16,
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder(seed), tokenizer=tokenizer(folder / "words"), unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe
