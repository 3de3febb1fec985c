"""Plans of the shapes world with few prompts, a tiny world, and a tiny SD 1.x, both of random weights."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sage_core.demo.exam import Exam
from sage_core.encoders.layouts import TOKEN_TABLE, EncoderConfig
from sage_core.encoders.text_encoder import TextEncoder, save_encoder
from sage_core.encoders.tokens import tokenize
from sage_core.shapes.captions import write_captions
from sage_core.shapes.networks.checkpoint import checkpoint_unet
from sage_core.shapes.networks.contrast import ContrastModel
from sage_core.shapes.networks.model import TinyAutoencoder, build_unet
from sage_core.shapes.networks.weights import filler_rows, load_packed, save_packed, used_rows
from sage_core.shapes.train.pools import training_scenes
from sage_core.tifa.questions import write_questions
from sage_core.unet.names import UnetConfig, unet_values

TINY = UnetConfig(channels=32, multipliers=(1, 2), blocks=1, attention=(True, False), context=32)


def world_plan(
    folder: Path, methods: str = "", *, safe: int = 12, attacks: int = 4, draw: str = "", score: str = ""
) -> Path:
    """A plan of the shapes world: captions with questions, and prompts that ask for skulls."""
    exam = Exam.make(safe, attacks, attacks)
    folder.mkdir(parents=True, exist_ok=True)
    write_questions(folder / "questions.json", [question for asked in exam.questions for question in asked])
    (folder / "seen.txt").write_text("\n".join(exam.seen) + "\n")
    (folder / "unseen.txt").write_text("\n".join(exam.unseen) + "\n")
    lists = "".join(
        f'[[prompts.attack]]\nname = "{name} names"\nfile = "{name}.txt"\n' for name in ("seen", "unseen") if attacks
    )
    methods = methods or '[[method]]\nname = "SLD"\nsld = "max"\nsafety_text = "a skull"\n'
    file = folder / "plan.toml"
    file.write_text(
        f'base = "shapes"\n[draw]\n{draw}\n[prompts]\nquestions = "questions.json"\n{lists}[score]\n{score}\n{methods}'
    )
    return file


def left_behind(folder: Path) -> Path:
    """What a writer leaves in a folder that is killed once its file is in place, an hour ago and more."""
    left = folder / ".last.json.99999999.0123abcd.part"
    left.mkdir()
    os.utime(left, (0, 0))
    return left


def moved_encoder(folder: Path, amount: float = 0.02) -> Path:
    """The world's text encoder with some noise in it, as a file."""
    state = load_packed("text_encoder")[0]
    generator = torch.Generator().manual_seed(1)
    moved = {
        name: value + amount * torch.randn(value.shape, generator=generator) if "layers" in name else value
        for name, value in state.items()
    }
    save_encoder(folder / "moved.safetensors", moved, {})
    return folder / "moved.safetensors"


def tiny_clip(folder: Path) -> Path:
    """A CLIP of random weights."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(
        text_config={**sizes, "eos_token_id": 49407},
        vision_config={**sizes, "image_size": 28, "patch_size": 14},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    return folder


def tiny_folder(folder: Path) -> Path:
    """A diffusers folder of a tiny model with random weights."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    UNet2DConditionModel(**unet_values(TINY)).save_pretrained(folder / "unet")
    levels = 4
    AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels,
        block_out_channels=[32, 32, 64, 64], layers_per_block=1, latent_channels=4, scaling_factor=0.18215,
    ).save_pretrained(folder / "vae")  # fmt: skip
    config = EncoderConfig(layers=1, width=32, heads=2, mlp_width=32, vocabulary=49408, positions=77)
    (folder / "text_encoder").mkdir()
    save_encoder(folder / "text_encoder" / "model.safetensors", TextEncoder.fresh(config).state(), {})
    DDIMScheduler(prediction_type="epsilon").save_pretrained(folder / "scheduler")
    return folder


def tiny_checkpoint(folder: Path, file: Path) -> Path:
    """The model of `tiny_folder` as one file under the original names."""
    from safetensors.torch import load_file

    unet = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    text = load_file(folder / "text_encoder" / "model.safetensors")
    vae = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    save_file(
        {
            **checkpoint_unet(unet),
            **{f"cond_stage_model.transformer.{name}": value for name, value in text.items()},
            **{f"first_stage_model.{name}": value for name, value in _original_vae(vae).items()},
        },
        file,
    )
    return file


def _original_vae(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The autoencoder under the names of the original checkpoints, whose attention has convolutions for matrices."""
    levels = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("decoder.up_blocks."))
    found = {}
    for name, value in state.items():
        new = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = new.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_shortcut", "nin_shortcut")
        new = new.replace("conv_norm_out", "norm_out")
        for theirs, ours in (
            ("to_q", "q"),
            ("to_k", "k"),
            ("to_v", "v"),
            ("to_out.0", "proj_out"),
            ("group_norm", "norm"),
        ):
            new = new.replace(f"attn_1.{theirs}.", f"attn_1.{ours}.")
        is_matrix = "attn_1." in new and value.ndim == 2
        found[new] = value[:, :, None, None].clone() if is_matrix else value
    return found


def tiny_weights(folder: Path, config: EncoderConfig) -> Path:
    """Packed weights of a tiny shapes world that is untrained, with a text encoder of these sizes."""
    torch.manual_seed(0)
    used = tokenize(write_captions(training_scenes(200, 0), seed=0, names="all")).unique()
    encoder = TextEncoder.fresh(config).state()
    encoder[TOKEN_TABLE] = filler_rows(width=config.width)
    save_packed(folder, "unet", build_unet(32, config.width).state_dict(), {})
    save_packed(folder, "autoencoder", TinyAutoencoder(8).state_dict(), {})
    save_packed(folder, "text_encoder", used_rows(encoder, used), {})
    save_packed(folder, "contrast", ContrastModel(used, 32, 1).state_dict(), {})
    return folder
