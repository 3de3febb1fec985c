"""A checkpoint of SD 1.x or a diffusers folder as one model to draw with; no hub is ever asked.

The U-Net and the autoencoder are diffusers', the text encoder and its tokens are this package's own. SD 1.x's sizes are
read from the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..batches import is_out_of_memory
from ..encoders.layouts import EncoderConfig, is_safetensors, require_positions
from ..encoders.pickles import read_pickle
from ..encoders.text_encoder import TextEncoder
from ..errors import SettingsError, UnetError
from ..files import readable
from ..rows import read_json
from ..unet.files import UnetFile, read_unet, sizes_of
from ..unet.names import UnetConfig, unet_values
from ..unet.state_dicts import flattened, unwrapped

if TYPE_CHECKING:
    from typing_extensions import Self

LATENT_FACTOR = 0.18215
_VAE_PREFIX = "first_stage_model."
# Models by a name in place of a file: each a module of the library, with the functions of `shapes.world`. It is
# imported when it is named.
NAMED = {"shapes": "shapes.world"}


@dataclass(eq=False)
class Model:
    """A model ready to draw.

    Attributes:
        unet: diffusers' UNet2DConditionModel.
        vae: decodes latents by `decode`.
        encoder: the base's text encoder, in fp32.
        title: for messages.
        weights: reads the base's own tensor of the U-Net by its diffusers' name, on the CPU and as exact as the file
            has it; None keeps a copy of the U-Net's own before it is first cast or changed.
        dtype: what the U-Net's weights are in.
        autocast: what everything computes in where that is not the type of the weights.
        decoded: pictures that are decoded at a time: the autoencoder takes far more memory for each than the U-Net.
        puts: how often `put_in` has written into the U-Net.
    """

    unet: nn.Module
    vae: nn.Module
    encoder: TextEncoder
    title: str = "the model"
    weights: Callable[[str], Tensor] | None = None
    dtype: torch.dtype = torch.float32
    autocast: torch.dtype | None = None
    decoded: int = 4
    puts: int = field(default=0, init=False)
    _changed: tuple[str, ...] = field(default=(), init=False)

    @property
    def device(self) -> torch.device:
        """Where it draws."""
        return next(self.unet.parameters()).device

    @cached_property
    def config(self) -> UnetConfig:
        """Sizes of the U-Net."""
        return UnetConfig.of({name: tuple(value.shape) for name, value in self.unet.state_dict().items()})

    def weight(self, name: str) -> Tensor:
        """The base's own tensor of the U-Net by its diffusers' name."""
        if self.weights is None:
            self.weights = {name: value.cpu().clone() for name, value in self.unet.state_dict().items()}.__getitem__
        return self.weights(name)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """Move all parts there; the U-Net in `dtype`, the autoencoder too unless that is bf16, which it shows."""
        dtype = dtype or self.dtype
        if dtype != self.dtype:
            # Before they are rounded.
            self.weight(next(iter(self.unet.state_dict())))
        self.dtype = dtype
        # PyTorch's own `to`: diffusers' warns of modules that must stay in fp32 even where there are none.
        nn.Module.to(self.unet, device, dtype)
        nn.Module.to(self.vae, device, torch.float32 if dtype == torch.bfloat16 else dtype)
        self.encoder.to(device)
        return self

    def frozen(self) -> Self:
        """The same model with networks that gather no gradients; those of what goes into them are recorded still."""
        for network in (self.unet, self.vae, self.encoder):
            network.requires_grad_(False)
        return self

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Latents (N, 4, H/8, W/8), fp32, of pictures (N, 3, H, W) in 0..1."""
        own = next(self.vae.parameters()).dtype
        return torch.cat([self._encode(part.to(own)).float() for part in pictures.split(self.decoded)])

    def _encode(self, pictures: Tensor) -> Tensor:
        vae = cast(Any, self.vae)
        if not hasattr(getattr(vae, "config", None), "scaling_factor"):
            return cast(Tensor, vae.encode(pictures))
        return cast(Tensor, vae.encode(2 * pictures - 1).latent_dist.mode() * vae.config.scaling_factor)

    @torch.no_grad()
    def put_in(self, deltas: Mapping[str, Tensor]) -> None:
        """Write base and differences into the U-Net, and the base's own where those before had changed it."""
        parameters = dict(self.unet.named_parameters())
        for name in {*self._changed, *deltas}:
            value = self.weight(name)
            parameters[name].copy_(value + deltas[name].to(value.device) if name in deltas else value)
        self._changed = tuple(deltas)
        self.puts += 1

    def noise(self, latents: Tensor, times: Tensor, states: Tensor) -> Tensor:
        """What the U-Net predicts; see `denoising.Noise`."""
        return cast(Any, self.unet)(latents.to(self.dtype), times, states.to(self.dtype)).sample

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in 0..1 of latents (N, 4, H/8, W/8)."""
        own = next(self.vae.parameters()).dtype
        parts = [self._decode(part.to(own)).float() for part in latents.split(self.decoded)]
        return torch.cat(parts).clamp(0, 1)

    def _decode(self, latents: Tensor) -> Tensor:
        vae = cast(Any, self.vae)
        decoded = vae.decode(latents / getattr(getattr(vae, "config", None), "scaling_factor", 1.0))
        return decoded if isinstance(decoded, Tensor) else decoded.sample / 2 + 0.5


def load(base: Path) -> Model:
    """A checkpoint of SD 1.x or a diffusers folder, on the CPU in fp32.

    Raises:
        UnetError, EncoderError, SettingsError: a part is missing, damaged, or not SD 1.x's.
    """
    stored = whole_unet(base)
    encoder = load_encoder(base)
    _require_fitting(stored.names.config, encoder.config, base)
    vae = _folder_vae(base) if base.is_dir() else _checkpoint_vae(base)
    return Model(_unet(stored, base), vae, encoder, base.name, _reader(stored))


def load_encoder(base: Path) -> TextEncoder:
    """The text encoder alone."""
    encoder = TextEncoder.from_file(base)
    require_positions(encoder.config, str(base))
    return encoder


def whole_unet(base: Path) -> UnetFile:
    """The U-Net of a checkpoint or folder. Raises UnetError for anything else."""
    unet = read_unet(base, sizes_of(base))
    if not unet.is_whole or any(stored.how != "weight" for stored in unet.stored.values()):
        raise UnetError(f"{base} holds {len(unet.stored)} of the U-Net's {len(unet.names.shapes)} tensors: give all.")
    return unet


def _reader(stored: UnetFile) -> Callable[[str], Tensor]:
    return lambda name: stored.stored[name].load().float()


def _require_fitting(unet: UnetConfig, encoder: EncoderConfig, base: Path) -> None:
    if unet.context != encoder.width:
        raise SettingsError(
            f"{base}: the U-Net reads states that are {unet.context} wide, and the text encoder makes them "
            f"{encoder.width} wide. Use a whole SD 1.x model."
        )
    if unet.inputs != 4:
        raise SettingsError(
            f"{base}: the U-Net takes {unet.inputs} channels, expected 4. Inpainting models need masks."
        )


def _unet(stored: UnetFile, base: Path) -> nn.Module:
    from diffusers import UNet2DConditionModel

    file = base / "unet" / "config.json"
    values = _json(file) if base.is_dir() and file.is_file() else unet_values(stored.names.config)
    _refuse_other_predictions(base)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(values)
    try:
        # Copies: the tensors lie in the mapped file, whose content must stay what it is for `Model.weight`.
        own = {name: value.to(torch.float32, copy=True) for name, _, value in stored.tensors()}
        unet.load_state_dict(own, assign=True)
    except RuntimeError as error:
        raise UnetError(f"{base}: the U-Net's config.json does not fit its weights ({error}).") from error
    return unet.eval().requires_grad_(False)


def _refuse_other_predictions(base: Path) -> None:
    file = base / "scheduler" / "scheduler_config.json"
    kind = _json(file).get("prediction_type", "epsilon") if file.is_file() else "epsilon"
    if kind != "epsilon":
        raise SettingsError(f"{file}: prediction_type is {kind!r}, expected 'epsilon', as SD 1.x predicts noise.")


def _json(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise UnetError(f"{file} cannot be read ({error}). Download the model's folder again.") from error
    return found if isinstance(found, dict) else {}


def _folder_vae(base: Path) -> nn.Module:
    from diffusers import AutoencoderKL

    try:
        vae = AutoencoderKL.from_pretrained(
            str(base), subfolder="vae", local_files_only=True, torch_dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if is_out_of_memory(error):
            raise
        raise SettingsError(f"{base / 'vae'} holds no autoencoder that can be read ({error}).") from error
    return vae.eval().requires_grad_(False)


def _checkpoint_vae(base: Path) -> nn.Module:
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    state = {name.removeprefix(_VAE_PREFIX): value for name, value in _tensors(base, _VAE_PREFIX).items()}
    if "decoder.conv_in.weight" not in state or "encoder.conv_in.weight" not in state:
        raise SettingsError(f"{base} holds no autoencoder of SD 1.x's kind ({_VAE_PREFIX}*). Use a whole checkpoint.")
    try:
        values = _vae_values(state)
        renamed = convert_ldm_vae_checkpoint(state, values)
        vae = AutoencoderKL.from_config(values)
        vae.load_state_dict({name: value.float() for name, value in renamed.items()})
    except (RuntimeError, KeyError, IndexError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise SettingsError(
            f"{base}: its autoencoder is not whole ({error}). Download the checkpoint again."
        ) from error
    return vae.eval().requires_grad_(False)


def _vae_values(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """SD 1.x's configuration of the autoencoder, with the sizes of these weights (128, 256, 512, 512 in SD 1.x)."""
    levels = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.down."))
    blocks = 1 + max(int(name.split(".")[4]) for name in state if name.startswith("encoder.down.0.block."))
    channels = [state[f"encoder.down.{level}.block.0.conv1.weight"].shape[0] for level in range(levels)]
    return {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": state["decoder.conv_in.weight"].shape[1],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": channels,
        "layers_per_block": blocks,
        "norm_num_groups": 32,
        "scaling_factor": LATENT_FACTOR,
        "sample_size": 512,
    }


def _tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint whose names start so."""
    from safetensors import safe_open

    with readable(path, UnetError):
        if not is_safetensors(path):
            return {
                name: value
                for name, value in flattened(unwrapped(read_pickle(path), path), path)
                if name.startswith(prefix)
            }
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
