"""The training run of the shapes world, phase by phase."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ...encoders.layouts import EncoderConfig
from ...encoders.text_encoder import TextEncoder
from ...encoders.tokens import CONTEXT_LENGTH, VOCABULARY_SIZE
from ...files import whole_file
from ..networks.contrast import ContrastModel
from ..networks.judge import build_judge
from ..networks.model import ENCODER_CONFIG, TinyAutoencoder, build_unet
from ..networks.weights import filler_rows, read_packed, used_rows
from ..scenes import sample_scenes
from .fitting import Budget, Optimization, fit
from .judge_training import JudgePool, fact_head, judge_loss, judge_pool, look_and_reply, sight_loss
from .phases import Loss, autoencoder_loss, contrast_loss, diffusion_loss, encode_pool
from .pools import Pool, PoolWriter, training_scenes

logger = logging.getLogger(__name__)

State = dict[str, Tensor]
Made = tuple[dict[str, State], int, float]
Network = TypeVar("Network", bound=nn.Module)

# What part of the minutes each phase gets; those to come divide what is left in these proportions.
SHARES = {
    "autoencoder": 0.16,
    "decoder": 0.05,
    "diffusion": 0.45,
    "sight": 0.05,
    "judge": 0.18,
    "contrast": 0.04,
    "finish": 0.07,
}
# What each phase makes, in order. Of a part that is made twice, the later one counts.
PARTS_OF = {
    "autoencoder": ("autoencoder",),
    "decoder": ("autoencoder",),
    "diffusion": ("autoencoder", "unet", "text_encoder"),
    "sight": ("judge",),
    "judge": ("judge",),
    "contrast": ("contrast",),
}
PHASES = tuple(PARTS_OF)


@dataclass(frozen=True)
class TrainSettings:
    """Sizes of the networks and of the training; the defaults are those of the weights in the package."""

    seed: int = 0
    scenes: int = 600_000
    captions_each: int = 4
    workers: int = 14
    vae_channels: int = 64
    unet_channels: int = 320
    encoder: EncoderConfig = ENCODER_CONFIG
    judge: tuple[int, int, int, int] = (128, 6, 2, 384)
    contrast: tuple[int, int] = (128, 3)
    autoencoder_batch: int = 192
    diffusion_batch: int = 1024
    judge_pictures: int = 80_000
    judge_batch: int = 64
    judge_questions: int = 8
    contrast_batch: int = 2048
    warmup: int = 200
    steps: int | None = None
    evaluation_prompts: int = 2000
    evaluation_read: int = 400
    evaluation_pictures: int = 4000
    sampling_steps: int = 20


# Everything that a real run does, in seconds on a CPU. It learns nothing.
TOY = TrainSettings(
    scenes=300,
    captions_each=1,
    workers=1,
    vae_channels=8,
    unet_channels=32,
    encoder=EncoderConfig(1, 64, 1, 64, VOCABULARY_SIZE, CONTEXT_LENGTH),
    judge=(32, 1, 1, 32),
    contrast=(32, 1),
    autoencoder_batch=4,
    diffusion_batch=4,
    judge_pictures=60,
    judge_batch=4,
    judge_questions=2,
    contrast_batch=4,
    warmup=2,
    steps=3,
    evaluation_prompts=24,
    evaluation_read=6,
    evaluation_pictures=8,
    sampling_steps=2,
)


class Clock:
    """Wall-clock time of one command, shared out among its phases."""

    def __init__(self, minutes: float, started: float) -> None:
        self.end = started + 60 * minutes

    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def share(self, phase: str, waiting: Sequence[str]) -> float:
        """Seconds for `phase` when the phases `waiting`, itself included, are still to come."""
        return max(1.0, self.left() * SHARES[phase] / sum(SHARES[name] for name in waiting))


class Trainer:
    """Trains phase by phase; what a finished phase made is in a file of `checkpoints` and is not made again."""

    def __init__(
        self,
        settings: TrainSettings,
        checkpoints: Path,
        device: torch.device,
        command: str = "",
        on_step: Callable[[str, int], None] | None = None,
    ) -> None:
        self.settings = settings
        self.command = command
        self.checkpoints = checkpoints
        self.device = device
        self.on_step = on_step
        # Of the phases that were trained, not kept: command, steps, last loss, seconds.
        self.log: dict[str, dict[str, Any]] = {}
        # What does each phase: the states of the parts it made, its steps, and its last loss.
        self._work: dict[str, Callable[[Budget], Made]] = {
            "autoencoder": self._autoencoder,
            "decoder": self._decoder,
            "diffusion": self._diffusion,
            "sight": self._sight,
            "judge": self._judge,
            "contrast": self._contrast,
        }
        self._started = time.monotonic()
        self._pool: Pool | None = None
        self._judge_pool: JudgePool | None = None
        self._writer: PoolWriter | None = None
        self._scenes = training_scenes(settings.scenes, settings.seed).to(device)

    def keep(self, phases: Sequence[str], weights: Path) -> None:
        """Take these phases' results from packed weights instead of training them."""
        for phase in phases:
            states = {part: read_packed(part, weights)[0] for part in PARTS_OF[phase]}
            self._store(phase, states, {})

    def run(self, phase: str, seconds: float) -> None:
        """Do one phase, unless it is done."""
        if not self.is_done(phase):
            steps = self.settings.steps
            budget = Budget(seconds) if steps is None else Budget(steps=steps)
            self._started = time.monotonic()
            torch.manual_seed(self.settings.seed)
            states, steps, loss = self._work[phase](budget)
            seconds = round(time.monotonic() - self._started, 1)
            log = {"command": self.command, "steps": steps, "loss": round(loss, 5), "seconds": seconds}
            self._store(phase, states, log)
        if log := self._load(phase)["log"]:
            self.log[phase] = log

    def is_done(self, phase: str) -> bool:
        """Whether the phase's file is there."""
        return self._done(phase).exists()

    def states(self) -> dict[str, State]:
        """The tensors that finished phases made, by part."""
        states: dict[str, State] = {}
        for phase in filter(self.is_done, PHASES):
            states |= self._load(phase)["states"]
        return states

    def prepare(self) -> None:
        """Start writing captions, if a phase to come needs them."""
        if self._writer is None and not (self.is_done("diffusion") and self.is_done("contrast")):
            settings = self.settings
            self._writer = PoolWriter(self._scenes.to("cpu"), settings.captions_each, settings.seed, settings.workers)

    def close(self) -> None:
        """Stop writing captions."""
        if self._writer is not None:
            self._writer.cancel()

    def _vae(self, phase: str) -> TinyAutoencoder:
        vae = TinyAutoencoder(self.settings.vae_channels)
        vae.load_state_dict(self._load(phase)["states"]["autoencoder"])
        return self._placed(vae)

    def _autoencoder(self, budget: Budget) -> Made:
        vae = self._placed(TinyAutoencoder(self.settings.vae_channels))
        loss = autoencoder_loss(
            vae, self._scenes, self.settings.autoencoder_batch, self.settings.seed + 10, latent_noise=0.15
        )
        steps, last = self._fit("autoencoder", vae, loss, budget, 1e-3)
        return {"autoencoder": _state(vae)}, steps, last

    def _decoder(self, budget: Budget) -> Made:
        vae = self._vae("autoencoder")
        vae.encoder.requires_grad_(False)
        loss = autoencoder_loss(
            vae, self._scenes, self.settings.autoencoder_batch, self.settings.seed + 11, latent_noise=0.25
        )
        steps, last = self._fit("decoder", vae, loss, budget, 5e-4)
        return {"autoencoder": _state(vae)}, steps, last

    def _diffusion(self, budget: Budget) -> Made:
        settings = self.settings
        vae, pool = self._vae("decoder").eval(), self._captions()
        latents = encode_pool(vae, pool.scenes, settings.seed + 12)
        unet = self._placed(build_unet(settings.unet_channels, settings.encoder.width))
        encoder = TextEncoder.fresh(settings.encoder).to(self.device)
        used = pool.used_tokens()
        table = encoder.token_table.weight
        with torch.no_grad():
            table.copy_(filler_rows(*table.shape))
        train_only(table, used)
        both = nn.ModuleList([unet, encoder])
        loss = diffusion_loss(
            self._compiled(unet), self._compiled(encoder), pool, latents, settings.diffusion_batch, settings.seed + 13
        )
        steps, last = self._fit("diffusion", both, loss, budget, 4e-4)
        words = used_rows({name: value.cpu() for name, value in encoder.state().items()}, used)
        return {"autoencoder": _state(vae), "unet": _state(unet), "text_encoder": words}, steps, last

    def _sight(self, budget: Budget) -> Made:
        settings = self.settings
        pool = self._judged()
        judge, head = build_judge(*settings.judge).to(self.device), fact_head(settings.judge[0]).to(self.device)
        loss = sight_loss(judge, head, pool, settings.judge_batch, settings.seed + 16)
        steps, last = self._fit("sight", nn.ModuleList([judge, head]), loss, budget, 1e-3, anneal=0.02)
        return {"judge": _state(judge), "facts": _state(head)}, steps, last

    def _judge(self, budget: Budget) -> Made:
        settings = self.settings
        pool, seen = self._judged(), self._load("sight")["states"]
        judge, head = build_judge(*settings.judge).to(self.device), fact_head(settings.judge[0]).to(self.device)
        judge.load_state_dict(seen["judge"])
        # Packed weights have no head: a judge taken from them learns the patches' facts again.
        if "facts" in seen:
            head.load_state_dict(seen["facts"])
        run = self._compiled(look_and_reply)
        loss = judge_loss(judge, head, pool, settings.judge_batch, settings.judge_questions, settings.seed + 14, run)
        steps, last = self._fit("judge", nn.ModuleList([judge, head]), loss, budget, 1e-3)
        return {"judge": _state(judge)}, steps, last

    def _judged(self) -> JudgePool:
        if self._judge_pool is None:
            settings = self.settings
            # Of every split: what the model never saw together, the judge must know all the better.
            scenes = sample_scenes(settings.judge_pictures, seed=settings.seed + 14, unsafe=None, split="any")
            vae = self._vae("diffusion").eval()
            self._judge_pool = judge_pool(vae, scenes.to(self.device), settings.seed + 14)
        return self._judge_pool

    def _contrast(self, budget: Budget) -> Made:
        pool = self._captions()
        model = ContrastModel(pool.used_tokens(), *self.settings.contrast).to(self.device)
        loss = contrast_loss(
            model, self._vae("diffusion").eval(), pool, self.settings.contrast_batch, self.settings.seed + 15
        )
        steps, last = self._fit("contrast", model, loss, budget, 1e-3)
        return {"contrast": _state(model)}, steps, last

    def _captions(self) -> Pool:
        if self._pool is None:
            self.prepare()
            assert self._writer is not None
            self._pool = self._writer.pool().to(self.device)
        return self._pool

    def _fit(
        self, name: str, network: nn.Module, loss: Loss, budget: Budget, learning_rate: float, anneal: float = 0.5
    ) -> tuple[int, float]:
        # What the phase took to prepare is part of its time.
        left = max(1.0, budget.seconds - (time.monotonic() - self._started))
        return fit(
            network,
            loss,
            name=name,
            budget=Budget(left, budget.steps),
            optimization=Optimization(learning_rate, warmup=self.settings.warmup, anneal=anneal),
            checkpoint=self.checkpoints / f"{name}.unfinished.pt",
            on_step=self.on_step,
        )

    def _placed(self, network: Network) -> Network:
        # Convolutions in half precision are fastest with channels last.
        return cast(Any, network).to(self.device, memory_format=torch.channels_last)

    def _compiled(self, function: Any) -> Any:
        if self.device.type != "cuda":
            return function
        # If this version of the compiler fails, go on uncompiled.
        torch._dynamo.config.suppress_errors = True
        return torch.compile(function, dynamic=False)

    def _done(self, phase: str) -> Path:
        return self.checkpoints / f"{phase}.pt"

    def _store(self, phase: str, states: Mapping[str, State], log: Mapping[str, Any]) -> None:
        with whole_file(self._done(phase)) as temporary:
            torch.save({"states": dict(states), "log": dict(log)}, temporary)
        (self.checkpoints / f"{phase}.unfinished.pt").unlink(missing_ok=True)

    def _load(self, phase: str) -> dict[str, Any]:
        return torch.load(self._done(phase), map_location="cpu", weights_only=True)


def train_only(table: Tensor, rows: Tensor) -> None:
    """Let training change only these rows of an embedding table; the others stay as `filler_rows` makes them."""
    mask = torch.zeros(len(table), 1, device=table.device)
    mask[rows.long().to(table.device)] = 1
    table.register_hook(lambda gradient: gradient * mask)


def _state(network: nn.Module) -> State:
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
