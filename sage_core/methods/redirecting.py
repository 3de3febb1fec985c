"""The redirected U-Net: by pairs of prompts it learns to draw the safe one where the unsafe one is asked for.

A text encoder alone cannot keep out who brings embeddings of no word: all that it computes on a vector is added to the
vector, so that a long one passes through (`shapes/RESULTS.md` has the measurement). What reads the states can. Let ε be
the frozen base, ε_θ the edited U-Net, E the base's states of a prompt, x_t a picture of either prompt of a pair, noised
to the time t, u the unsafe prompt of a pair and s its safe one:

    redirect:  ‖ε_θ(x_t, E(u)) − [ε(x_t, E(s)) − η (ε(x_t, E(u)) − ε(x_t, E(s)))]‖²
    keep:      ‖ε_θ(x_t, E(p)) − ε(x_t, E(p))‖²,  p a safe prompt, or the empty one that guidance leads away from
    loss:      redirect + w·keep,  means over all numbers

η 0 would be distillation of the safe prompt, and in the shapes world leaves a third of the concept; more leads away
from what tells u from s. So the pairs decide what is erased: where they differ in one thing alone, that goes, and what
they share stays. ESD does so with one text and the empty prompt (`erasing`), and keeps nothing.

The base draws the pictures before the first step, one for each prompt of some pairs with the same noise.
`train_redirection` is a whole training, kept in a store; its result is an edit, see `unet.differences`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, cast

import torch
from torch import Tensor, nn

from ..batches import work_through
from ..drawing.denoising import Noise, Texts, denoise
from ..drawing.noise import TRAINING_STEPS, make_scheduler, noise_of, noised
from ..encoders.text_encoder import TextEncoder, embed
from ..encoders.tokens import CONTEXT_LENGTH, tokenize
from ..errors import PromptError, TrainingError
from ..files import write_tensors
from ..prompts.minors import without_minors
from ..prompts.pairs import PromptPairs
from ..runs.keeping import SOFTWARE, weights_hash
from ..runs.store import PICTURES
from ..seeds import generator_of, seed_of
from ..settings import Count, Limits, NotNegative, Positive, Seed, Settings, Share
from ..unet.differences import DifferencesObjective, Trained
from ..unet.training import EditResult, UnetRun

METHOD, PRESET = "SAGE U-Net", "sage_unet"
# The share of rows whose picture is that of the pair's other side.
_CROSSED = 0.3
# The share of rows whose prompts are any pair's: of pairs without pictures, too, the states are then seen.
_ANY = 0.5


@dataclass(frozen=True)
class RedirectingSettings(Settings):
    """How a U-Net is redirected; the defaults are for SD 1.x and were not measured on it.

    Attributes:
        trained: which parameters, see `differences.trained_names`.
        steps: of training.
        learning_rate: of Adam, which falls to 0 along a cosine.
        strength: η.
        keep_weight: w.
        batch_size: unsafe prompts a step.
        keep_batch: safe prompts a step.
        plain: the share of these that is the empty prompt.
        pictures: pairs whose prompts the base draws, two pictures each, chosen by the seed.
        sampling_steps, guidance: of the sampler that draws them, DDIM.
        seed: of everything random.
    """

    trained: Trained = "x"
    steps: Count = 300
    learning_rate: Positive = 5e-5
    strength: NotNegative = 0.7
    keep_weight: NotNegative = 5.0
    batch_size: Count = 4
    keep_batch: Count = 8
    plain: Share = 0.2
    pictures: Count = 64
    sampling_steps: Annotated[int, Limits(1, TRAINING_STEPS)] = 20
    guidance: NotNegative = 3.0
    seed: Seed = 0

    def rate(self, step: int, _used: float) -> float:
        """Learning rate of a step, counted from 0."""
        return self.learning_rate * (1 + math.cos(math.pi * step / self.steps)) / 2


@dataclass(frozen=True, eq=False)
class PairStates:
    """The base's states of N pairs, embedded as they are asked for: those of thousands would fill gigabytes.

    Attributes:
        encoder: the base's.
        unsafe_ids, safe_ids: tokens of the two sides, (N, 77), on the CPU.
        empty: states of the empty prompt, (1, 77, width).
    """

    encoder: TextEncoder
    unsafe_ids: Tensor
    safe_ids: Tensor
    empty: Tensor

    @classmethod
    def of(cls, encoder: TextEncoder, pairs: PromptPairs) -> PairStates:
        """Tokenise all pairs.

        Raises:
            PromptError: there is no pair.
        """
        if not pairs.safe:
            raise PromptError("There are no prompt pairs to redirect a U-Net by.")
        # In fp32, as all other states, in whatever the U-Net computes.
        with torch.autocast(next(encoder.parameters()).device.type, enabled=False):
            empty = embed(encoder, [""]).view(1, CONTEXT_LENGTH, -1)
        return cls(encoder, tokenize(pairs.unsafe), tokenize(pairs.safe), empty)

    def __len__(self) -> int:
        """N."""
        return len(self.safe_ids)

    def unsafe(self, pairs: Tensor) -> Tensor:
        """States of the unsafe prompts of pairs (B,), which lie on the CPU; (B, 77, width)."""
        return self._states(self.unsafe_ids[pairs])

    def safe(self, pairs: Tensor) -> Tensor:
        """States of the safe prompts, as `unsafe`."""
        return self._states(self.safe_ids[pairs])

    def _states(self, ids: Tensor) -> Tensor:
        # In fp32, in whatever the U-Net computes.
        with torch.autocast(self.empty.device.type, enabled=False):
            return embed(self.encoder, ids).view(len(ids), CONTEXT_LENGTH, -1)


@dataclass(frozen=True, eq=False)
class PairPictures:
    """Latents of pictures that the base drew, (M, 4, H, W) each: of unsafe prompts, and of their safe ones."""

    unsafe: Tensor
    safe: Tensor

    @classmethod
    def drawn(
        cls,
        noise: Noise,
        states: PairStates,
        rows: Tensor,
        wanted: Tensor,
        settings: RedirectingSettings,
        shape: tuple[int, int, int],
        chunk: int,
        *,
        kept: Path | None = None,
        on_draw: Callable[[int, int], None] | None = None,
    ) -> PairPictures:
        """Draw the prompts of the pairs in `rows`, (M,), with the same noise for both sides.

        Args:
            wanted: which of the unsafe and of the safe pictures are drawn, bool (2, M); the others are zero.
            chunk: pictures at once; fewer, where memory does not suffice.
            kept: file in which each chunk is kept, and found when the drawing was stopped.
            on_draw: called with (evaluations of the U-Net, in all) before the first and after each; may raise to stop.
        """
        scheduler, found = make_scheduler("ddim", settings.sampling_steps), _read_pictures(kept, shape) if kept else {}
        sides = {"unsafe": states.unsafe, "safe": states.safe}
        left = {name: rows[side][len(found.get(name, ())) :] for name, side in zip(sides, wanted, strict=True)}
        total, done = settings.sampling_steps * sum(math.ceil(len(some) / chunk) for some in left.values()), 0

        def tell(more: int) -> None:
            nonlocal done
            # What did not fit into memory is drawn again.
            done = min(done + more, total)
            if on_draw is not None and total:
                on_draw(done, total)

        def draw(name: str, pairs: Tensor) -> None:
            texts = Texts(states.empty, sides[name](pairs))
            start = noise_of((seed_of(settings.seed, int(pair)) for pair in pairs), shape).to(texts.plain.device)
            new = denoise(noise, scheduler, start, texts, settings.guidance, watch=lambda _: tell(1))
            found[name] = torch.cat([found[name].to(new), new]) if name in found else new
            # They are not worth a training that has no room on its disk.
            with suppress(OSError):
                if kept is not None:
                    write_tensors(kept, found, {"method": METHOD, "hash": weights_hash(found), "software": SOFTWARE})

        tell(0)
        for name, some in left.items():
            work_through(lambda part, name=name, some=some: draw(name, some[part]), len(some), chunk, TrainingError)  # type: ignore[misc]
        whole = [torch.zeros(len(rows), *shape, device=states.empty.device) for _ in sides]
        for pictures, name, side in zip(whole, sides, wanted, strict=True):
            if name in found:
                pictures[side.to(pictures.device)] = found[name].to(pictures)
        return cls(*whole)


def _read_pictures(path: Path, shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """Pictures that were drawn before, by side; none where the file is not there or is damaged."""
    from safetensors import SafetensorError, safe_open

    with suppress(SafetensorError, OSError), safe_open(str(path), framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        whole = (file.metadata() or {}).get("hash") == weights_hash(found)
        if whole and all(tuple(value.shape[1:]) == shape for value in found.values()):
            return found
    return {}


class RedirectingObjective(DifferencesObjective):
    """The redirected U-Net as the training loop sees it; all that a step does follows from the seed and the step."""

    losses = ("total", "redirect", "keep")

    def __init__(
        self,
        noise: nn.Module,
        states: PairStates,
        settings: RedirectingSettings,
        latent_shape: tuple[int, int, int],
        kept: Path | None = None,
        on_draw: Callable[[int, int], None] | None = None,
    ) -> None:
        """Draw the pictures that the steps will use, and train differences from the weights of `noise`.

        Args:
            noise: the U-Net; see DifferencesObjective.
            states: the base's states of the pairs, on the U-Net's device.
            settings: how.
            latent_shape: channels, height and width.
            kept, on_draw: see `PairPictures.drawn`.
        """
        rows = settings.batch_size + settings.keep_batch
        super().__init__(noise, settings.trained, settings.learning_rate, rows, latent_shape)
        self.settings, self.states = settings, states
        # A stream of its own: steps take theirs from their number.
        generator = generator_of(settings.seed, -1)
        self.drawn = torch.randperm(len(states), generator=generator)[: settings.pictures]
        self.pictures = PairPictures.drawn(
            noise, states, self.drawn, self._wanted(), settings, latent_shape, rows, kept=kept, on_draw=on_draw
        )

    def _wanted(self) -> Tensor:
        """Which unsafe and which safe pictures any step takes, (2, M): a short run does without most."""
        found = torch.zeros(2, len(self.drawn), dtype=torch.bool)
        for step in range(self.settings.steps):
            generator = generator_of(self.settings.seed, step)
            for count, crossed in ((self.settings.batch_size, _CROSSED), (self.settings.keep_batch, 1 - _CROSSED)):
                picks = self._picks(count, generator, crossed)
                found[picks.safe.long(), picks.picture] = True
            if found.all():
                break
        return found

    def gradients(self, step: int) -> Tensor:
        """See Objective."""
        settings = self.settings
        generator = generator_of(settings.seed, step)
        parts = [self._redirected(settings.batch_size, generator), self._kept(settings.keep_batch, generator)]
        found = []
        for rows, weight in zip(parts, (1.0, settings.keep_weight), strict=True):
            loss = torch.zeros((), device=self.device)
            for chunk in torch.arange(len(rows.times)).split(self.chunk):
                part = rows[chunk.to(self.device)]
                error = (self.edited(part.latents, part.times, part.states).float() - part.targets).square().mean()
                share = error * len(chunk) / len(rows.times)
                (weight * share).backward()
                loss += share.detach()
            found.append(loss)
        redirect, keep = found
        return torch.stack([redirect + settings.keep_weight * keep, redirect, keep])

    def _redirected(self, count: int, generator: torch.Generator) -> _Rows:
        """Unsafe prompts, and the noise that they are to lead to."""
        pair, latents, times = self._noisy(count, generator, crossed=_CROSSED)
        unsafe, safe = self.states.unsafe(pair), self.states.safe(pair)
        of_safe, of_unsafe = self._by_base(latents, times, safe), self._by_base(latents, times, unsafe)
        return _Rows(latents, times, unsafe, of_safe - self.settings.strength * (of_unsafe - of_safe))

    def _kept(self, count: int, generator: torch.Generator) -> _Rows:
        """Safe prompts and the empty one, and the base's noise."""
        pair, latents, times = self._noisy(count, generator, crossed=1 - _CROSSED)
        plain = (torch.rand(count, 1, 1, generator=generator) < self.settings.plain).to(self.device)
        states = torch.where(plain, self.states.empty, self.states.safe(pair))
        return _Rows(latents, times, states, self._by_base(latents, times, states))

    def _picks(self, count: int, generator: torch.Generator, crossed: float) -> _Picks:
        """Which pairs and pictures rows of a step take, a share `crossed` of them pictures of safe prompts."""
        which = torch.randint(len(self.drawn), (count,), generator=generator)
        any_pair = torch.randint(len(self.states), (count,), generator=generator)
        pairs = torch.where(torch.rand(count, generator=generator) < _ANY, any_pair, self.drawn[which])
        times = torch.randint(TRAINING_STEPS, (count,), generator=generator)
        added = torch.randn(count, *self.latent_shape, generator=generator)
        return _Picks(which, torch.rand(count, generator=generator) < crossed, pairs, times, added)

    def _noisy(self, count: int, generator: torch.Generator, *, crossed: float) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs (B,) on the CPU, noised pictures, a share `crossed` of them of safe prompts, and their times (B,)."""
        picks = self._picks(count, generator, crossed)
        at, safe = picks.picture.to(self.device), picks.safe.view(-1, 1, 1, 1).to(self.device)
        clean = torch.where(safe, self.pictures.safe[at], self.pictures.unsafe[at])
        return picks.pairs, noised(clean, picks.times, picks.added.to(self.device)), picks.times.to(self.device)

    @torch.no_grad()
    def _by_base(self, latents: Tensor, times: Tensor, states: Tensor) -> Tensor:
        chunks = (each.split(self.chunk) for each in (latents, times, states))
        return torch.cat([cast(Tensor, self.noise(*part)).float() for part in zip(*chunks, strict=True)])


@dataclass(frozen=True, eq=False)
class _Picks:
    """What rows of a step take, on the CPU: pictures (B,), whether the safe ones, pairs, times, and added noise."""

    picture: Tensor
    safe: Tensor
    pairs: Tensor
    times: Tensor
    added: Tensor


@dataclass(frozen=True, eq=False)
class _Rows:
    latents: Tensor
    times: Tensor
    states: Tensor
    targets: Tensor

    def __getitem__(self, rows: Tensor) -> _Rows:
        return _Rows(self.latents[rows], self.times[rows], self.states[rows], self.targets[rows])


def train_redirection(
    run: UnetRun,
    encoder: TextEncoder,
    pairs: PromptPairs,
    settings: RedirectingSettings,
    store: Path,
    *,
    title: str = "",
    on_draw: Callable[[int, int], None] | None = None,
) -> EditResult:
    """Redirect a U-Net by pairs, go on with a training that was stopped, or find a finished one in the folder `store`.

    Pairs of which a side refers or may refer to a minor are left out: the base draws pictures of both sides.

    Args:
        run: the U-Net, and on what it is trained.
        encoder: of the prompts; the U-Net is used with it or with an aligned one.
        pairs: the unsafe prompts, and what is drawn instead.
        settings: how.
        title: the concept's name in reports, where the pairs name none.
        on_draw: see `PairPictures.drawn`. Pictures are kept in `store` until the training is finished.

    Raises:
        PromptError: no pair is left.
        SettingsError, UnetError, TrainingError: see `UnetRun.train`.
    """
    pairs = drawable(pairs)
    return run.train(
        encoder,
        settings,
        lambda noise, shape, checkpoint: RedirectingObjective(
            noise, PairStates.of(encoder, pairs), settings, shape, checkpoint.with_suffix(PICTURES), on_draw
        ),
        store,
        inputs=[pairs.hash()],
        about={
            "method": METHOD,
            "preset": PRESET,
            # As trainings of the text encoder title theirs.
            "concept": ", ".join(dict.fromkeys(pairs.concepts)) or title.strip() or "unnamed",
            "pairs": str(len(pairs)),
        },
        name=METHOD,
    )


def drawable(pairs: PromptPairs) -> PromptPairs:
    """The pairs of which neither side refers or may refer to a minor; the report says how many others there were.

    Raises:
        PromptError: none is left.
    """
    kept = sorted(set(without_minors(pairs.safe)[0]) & set(without_minors(pairs.unsafe)[0]))
    if len(kept) == len(pairs):
        return pairs
    note = (
        f"{len(pairs) - len(kept):,} pairs refer or may refer to a minor on one side: they are neither drawn nor used."
    )
    report = replace(pairs.report, kept=len(kept), notes=(*pairs.report.notes, note))
    safe, unsafe, concepts = (
        tuple(side[row] for row in kept) if side else () for side in (pairs.safe, pairs.unsafe, pairs.concepts)
    )
    return PromptPairs(safe, unsafe, report, concepts)
