"""An SD 1.x CLIP text encoder: from a state or file to embeddings, and back to a file.

The embedding of a prompt is E(p), the last hidden state after the final layer norm, (77, width). As in Stable
Diffusion 1.x there is a causal mask and no padding mask.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..batches import work_through
from ..errors import EncoderError, SettingsError
from ..files import write_tensors
from .layouts import EncoderConfig, canonical_state, read_encoder
from .names import ROOT
from .precision import PrecisionChoice, arithmetic, choose_precision
from .tokens import CONTEXT_LENGTH, END_TOKEN, tokenize

if TYPE_CHECKING:
    from transformers import CLIPTextModel

Pooling = Literal["flattened", "eos", "mean"]

_CPU_BUDGET = 256 * 2**20
_LARGEST_BATCH = 1024


class TextEncoder(nn.Module):
    """A CLIP text encoder in fp32 and eval mode, around transformers' CLIPTextModel with its fused attention.

    Attributes:
        further: tokens that it knows beyond its table for now, see `further_tokens`.
    """

    further: int = 0

    def __init__(self, config: EncoderConfig) -> None:
        """Build the architecture without weights; use `from_state`, `from_file` or `fresh`."""
        super().__init__()
        self.config = config
        # Random initial weights would take seconds to draw, only to be replaced.
        with torch.device("meta"):
            self.model = _clip_model(config)
        self.eval()

    @classmethod
    def fresh(cls, config: EncoderConfig) -> TextEncoder:
        """Encoder with CLIP's random initial weights, from PyTorch's global generator."""
        return cls.from_state(_clip_model(config).state_dict(), copy=False)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], *, copy: bool = True) -> TextEncoder:
        """Encoder with the weights of `state` (any layout of `canonical_state`), in fp32 on their device.

        With `copy=False` fp32 tensors are taken over, not copied; training would then change the given ones.
        """
        canonical = canonical_state(state)
        encoder = cls(EncoderConfig.of(canonical))
        names = own_names(encoder.model, canonical)
        weights = {names[name]: tensor.to(torch.float32, copy=copy) for name, tensor in canonical.items()}
        encoder.model.load_state_dict(weights, assign=True)
        device = next(iter(weights.values())).device
        for module in encoder.model.modules():
            # It is not part of the state dict and therefore still has no values.
            if isinstance(getattr(module, "position_ids", None), Tensor):
                module.position_ids = torch.arange(encoder.config.positions, device=device)[None]
        return encoder

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> TextEncoder:
        """Encoder from a file or folder of any layout that `read_encoder` knows."""
        return cls.from_state(read_encoder(path)[0], copy=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (B, 77) to the last hidden state after the final layer norm, (B, 77, width)."""
        return self.model(input_ids=ids).last_hidden_state

    @property
    def token_table(self) -> nn.Embedding:
        """The embeddings of all tokens, (vocabulary, width)."""
        table = self.model.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        return table

    def state(self) -> dict[str, Tensor]:
        """Weights under canonical names, detached, on their device, sharing memory with the encoder."""
        return {
            ROOT + name.removeprefix(ROOT): tensor.detach()
            for name, tensor in self.model.state_dict().items()
            if not name.endswith("position_ids")
        }


@contextmanager
def further_tokens(encoder: nn.Module, vectors: Tensor) -> Iterator[None]:
    """Tokens from the table's end on are these vectors (n, width) for as long as the context lasts; differentiable.

    Every text encoder within `encoder` knows them, so that whatever reads ids reads free embeddings as well.
    """
    encoders = [module for module in encoder.modules() if isinstance(module, TextEncoder)]
    tables = {id(each.token_table): each.token_table for each in encoders}
    with ExitStack() as stack:
        for each in encoders:
            each.further = len(vectors)
            stack.callback(setattr, each, "further", 0)
        for table in tables.values():
            hooks = _FurtherRows(vectors, table.num_embeddings)
            stack.callback(table.register_forward_pre_hook(hooks.before).remove)
            stack.callback(table.register_forward_hook(hooks.after).remove)
        yield


class _FurtherRows:
    """Rows of a table beyond its end: ids that it does not know are held back, and their vectors put in afterwards."""

    def __init__(self, vectors: Tensor, first: int) -> None:
        self.vectors, self.first = vectors, first
        self._ids = torch.zeros(0, dtype=torch.long)

    def before(self, _table: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (self._ids,) = inputs
        return (torch.where(self._ids < self.first, self._ids, 0),)

    def after(self, _table: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        places = (self._ids - self.first).clamp(min=0)
        return torch.where((self._ids >= self.first)[..., None], self.vectors[places], output)


def own_names(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """What a CLIP text model of transformers calls the tensors of canonical names: version 5 dropped the prefix."""
    prefix = ROOT if any(name.startswith(ROOT) for name in model.state_dict()) else ""
    return {name: prefix + name.removeprefix(ROOT) for name in names}


def _clip_model(config: EncoderConfig) -> CLIPTextModel:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.positions,
            hidden_act=config.activation,
            # They are the last two of the table, even of one that was cut down to the tokens of a prompt list.
            bos_token_id=config.vocabulary - 2,
            eos_token_id=config.vocabulary - 1,
        )
    )


@torch.no_grad()
def embed(
    encoder: TextEncoder,
    prompts_or_ids: Sequence[str] | Tensor,
    *,
    device: torch.device | str | None = None,
    precision: PrecisionChoice = "fp32",
    memory_budget: int | None = None,
    pooling: Pooling = "flattened",
    on_batch: Callable[[int, int], None] | None = None,
    out_dtype: torch.dtype = torch.float32,
    end_token: int = END_TOKEN,
) -> Tensor:
    """Embeddings of any number of prompts, in batches: (N, 77 * width), or (N, width) when pooled.

    A batch that does not fit into memory is halved and tried again.

    Args:
        encoder: what embeds.
        prompts_or_ids: texts, or token ids (N, 77). Ids of fewer positions give the states of these alone, which are
            the same: no state depends on later tokens.
        device: moves the encoder there and leaves it there; by default it stays where it is.
        precision: what to compute in.
        memory_budget: bytes for one batch's activations, by default 256 MiB on a CPU and half of what is free on CUDA.
            The weights and the result, 4 * 77 * width bytes for each prompt in fp32, are not counted.
        pooling: "flattened" keeps all 77 positions, "eos" takes the first end-of-text position, "mean" averages the 77.
        on_batch: called with (done, total) after each batch; may raise to stop.
        out_dtype: type of the result.
        end_token: the end-of-text token, where ids are not CLIP's own.

    Raises:
        EncoderError: memory does not suffice for one prompt, or a token is not in the encoder's table.
        SettingsError: `pooling` or `precision` has an unknown value.
    """
    if pooling not in get_args(Pooling):
        raise SettingsError(f"pooling is '{pooling}', expected one of {', '.join(get_args(Pooling))}.")
    if device is not None:
        encoder.to(device)
    where = next(encoder.parameters()).device
    ids = prompts_or_ids if isinstance(prompts_or_ids, Tensor) else tokenize(prompts_or_ids)
    _require_known(ids, encoder.token_table.num_embeddings + encoder.further)
    columns = encoder.config.width * (ids.shape[1] if pooling == "flattened" else 1)
    result = torch.empty(len(ids), columns, dtype=out_dtype, device=where)
    size = _batch_size(encoder.config, where, memory_budget)

    def work(part: slice) -> None:
        batch = ids[part].to(where)
        result[part] = pool(encoder(batch), batch, pooling, end_token)
        if on_batch:
            on_batch(part.stop, len(ids))

    with arithmetic(choose_precision(precision, where), where):
        work_through(work, len(ids), size, EncoderError)
    return result


def _require_known(ids: Tensor, vocabulary: int) -> None:
    if not len(ids):
        return
    least, most = (int(value) for value in ids.aminmax())
    if least < 0 or most >= vocabulary:
        raise EncoderError(
            f"A prompt holds the token of number {least if least < 0 else most}, and the text encoder knows tokens 0 "
            f"to {vocabulary - 1}. Use an SD 1.x text encoder with its whole table of tokens."
        )


def pool(hidden: Tensor, ids: Tensor, pooling: Pooling, end_token: int = END_TOKEN) -> Tensor:
    """One vector for each prompt from its states, (B, 77, width) → (B, D); see `embed`."""
    if pooling == "flattened":
        return hidden.flatten(1)
    if pooling == "mean":
        return hidden.float().mean(1)
    # The first end token ends the prompt; all later ones are padding.
    return hidden[torch.arange(len(ids), device=ids.device), (ids == end_token).int().argmax(1)]


def _batch_size(config: EncoderConfig, device: torch.device, budget: int | None) -> int:
    if budget is None:
        budget = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else _CPU_BUDGET
    return max(1, min(_LARGEST_BATCH, budget // activation_bytes(config)))


def activation_bytes(config: EncoderConfig) -> int:
    """Peak bytes of one prompt's activations in a forward pass without gradients, in fp32.

    The peak is in a layer's MLP: four arrays of `width` (input, residual, sum and its norm) and three of `mlp_width`
    (x, 1.702 x and its sigmoid); with a narrow MLP it is in attention: eight of `width`. No attention matrix is kept.
    """
    mlp = 4 * config.width + 3 * config.mlp_width
    return 4 * CONTEXT_LENGTH * max(mlp, 8 * config.width)


def save_encoder(path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a text encoder as safetensors under canonical names, whole, in the precision of `state`.

    Metadata values are stored as text. ComfyUI's own CLIPLoader reads the file when it has ViT-L/14's sizes.
    """
    write_tensors(path, canonical_state(state), metadata)


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of a text encoder's weights: canonical names, shapes and fp32 bytes, in order of name."""
    digest = hashlib.sha256()
    canonical = canonical_state(state)
    for name in sorted(canonical):
        tensor = canonical[name].to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def relative_change(target: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> float:
    """‖target − base‖ / ‖base‖ over the weights of all layers, not counting the embedding tables."""
    layers = [name for name in base if ".layers." in name]
    change = math.hypot(*(float((target[name].float() - base[name]).norm()) for name in layers))
    return change / math.hypot(*(float(base[name].float().norm()) for name in layers))
