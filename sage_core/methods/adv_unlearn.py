"""AdvUnlearn (Zhang et al., NeurIPS 2024, arXiv 2405.15234) in its fast form: a text encoder unlearns under attack.

The text encoder θ is trained and the U-Net ε is frozen; gradients go through it. Let E_θ(c + δ) be the states of the
concept c whose tokens' embeddings are moved by δ, and x a picture of c, drawn half way:

    attack:  δ = clip(δ_0 − a·sign ∇ ‖ε(x, E_θ(c + δ_0)) − ε(x, E_0(c))‖², ±r),  δ_0 uniform in ±r
    erase:   ‖ε(x, E_θ(c + δ)) − [ε(x, E_0(g)) − η (ε(x, E_0(c)) − ε(x, E_0(g)))]‖²,  g = "" and η = 1 for ESD's target
    retain:  mean over retain prompts p of ‖ε(y, E_θ(p)) − ε(y, E_0(p))‖²
    loss:    erase + γ·retain

A step of training finds δ anew, so that the two take turns. Published are γ 0.3 for nudity, 5 retain prompts a step,
Adam at 1e-5, and 1,000 steps of one picture. What the paper leaves open, or is decided otherwise here:

- The paper's attack puts free tokens in front of the concept. Here the concept's own tokens move, in a box that is
  measured in their embeddings' root mean square, so that a radius means the same for encoders of any scale.
- The step a is 1.25 r for one step, as in fast adversarial training (Wong et al. 2020), and 2.5 r / n for n steps.
- The picture x is drawn by the encoder in training, as in the paper of ESD, whose loss this is. The authors' program
  draws it by the frozen one, whose pictures go on to show the concept as training succeeds: `drawn_by` "base". It also
  trains 200 steps without attack first: `plain_steps`.
- The picture y of a retain prompt is drawn half way by the base, to the same time as x.
- Layers and the final norm are trained; the embeddings of tokens and positions, in whose space the attack moves, stay.
- A guide g other than "" leads the concept to that text in place of the empty prompt.

The objective is for `runs.loop`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import torch
from torch import Tensor, nn

from ..drawing.denoising import Texts, denoise
from ..drawing.noise import TRAINING_STEPS, make_scheduler, time_between
from ..encoders.layouts import EncoderConfig
from ..encoders.text_encoder import TextEncoder
from ..encoders.tokens import END_TOKEN, START_TOKEN, tokenize
from ..errors import PromptError, SettingsError, TrainingError
from ..prompts.everyday import REFERENCE_PROMPTS
from ..prompts.minors import mentions_minor
from ..runs.loop import Objective
from ..seeds import generator_of
from ..settings import Count, CountOrZero, Limits, NotNegative, Positive, Seed, Settings
from .concepts import Concepts, last_subject


@dataclass(frozen=True)
class AdvUnlearnSettings(Settings):
    """How a text encoder unlearns a concept; the defaults are the paper's for nudity, with the fast attack.

    Attributes:
        steps: of training.
        learning_rate: of Adam, constant.
        retain_weight: γ.
        retain_batch: retain prompts a step; 0 for none.
        radius: r, of the attack's box, in root mean squares of the concept's token embeddings; 0 for no attack.
        attack_steps: of the attack; 1 is the fast form.
        layers: how many of the encoder's first layers are trained; 0 for all and the final norm.
        strength: η.
        guidance: of the sampler that draws the pictures half way.
        sampling_steps: of that sampler, DDIM; a training step takes half of them on average.
        batch_size: pictures of concepts a step.
        seed: of everything random.
        drawn_by: which encoder draws the concepts' pictures: the one in training, or the frozen base.
        plain_steps: the first of the steps, without attack.
    """

    later = ("drawn_by", "plain_steps")

    steps: Count = 1000
    learning_rate: Positive = 1e-5
    retain_weight: NotNegative = 0.3
    retain_batch: CountOrZero = 5
    radius: NotNegative = 1.0
    attack_steps: Count = 1
    layers: CountOrZero = 0
    strength: Positive = 1.0
    guidance: NotNegative = 3.0
    sampling_steps: Annotated[int, Limits(1, TRAINING_STEPS)] = 50
    batch_size: Count = 1
    seed: Seed = 0
    drawn_by: Literal["trained", "base"] = "trained"
    plain_steps: CountOrZero = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.radius and self.plain_steps >= self.steps:
            raise SettingsError(
                f"plain_steps is {self.plain_steps:,}, expected fewer than the training's {self.steps:,} steps: none "
                "would attack. Set radius to 0 to train without attack."
            )

    @property
    def attack_step(self) -> float:
        """Length of one step of the attack, in radii."""
        return 2.5 / max(self.attack_steps, 2)


def retain_prompts(given: Sequence[str], concepts: Concepts) -> tuple[str, ...]:
    """The prompts that keep their pictures: those given, or everyday ones that name none of the concepts.

    Repeated ones count once; those that refer to minors are left out.

    Raises:
        PromptError: a given prompt is empty or names a concept, so that retaining it would undo the erasing, or none
            is left.
    """
    words = [_words(row) for row in tokenize(concepts.erase)]
    prompts = tuple(dict.fromkeys(given or REFERENCE_PROMPTS))
    named = {}
    for number, row in enumerate(map(_words, tokenize(prompts))):
        if row == " ":
            raise PromptError(f"Retain prompt {number + 1} of {len(prompts)} is empty: remove it.")
        if (concept := next((at for at, own in enumerate(words) if own in row), None)) is not None:
            named[number] = concept
    if given and named:
        number, concept = next(iter(named.items()))
        raise PromptError(
            f"Retain prompt {number + 1} of {len(prompts)}, '{prompts[number]}', names the concept "
            f"'{concepts.erase[concept]}' ({len(named)} do in all): retaining it would undo the erasing. Remove it."
        )
    kept = tuple(text for number, text in enumerate(prompts) if number not in named and not mentions_minor(text))
    if not kept:
        raise PromptError(
            f"No retain prompt is left of {len(prompts)}: all refer or may refer to minors. Give other ones."
        )
    return kept


def require_layers(layers: int, config: EncoderConfig) -> None:
    """Raise SettingsError if an encoder has fewer layers than are to be trained."""
    if layers > config.layers:
        raise SettingsError(
            f"layers is {layers}, and the text encoder has {config.layers}. Choose fewer, or 0 for all."
        )


def _words(row: Tensor) -> str:
    """The tokens of a row between start and end, as text in which a run of tokens can be looked for."""
    inside = re.match(rf"{START_TOKEN} (.*?){END_TOKEN}", " ".join(map(str, row.tolist())))
    return " " + cast("re.Match[str]", inside)[1]


@dataclass(frozen=True, eq=False)
class _Draw:
    """What is random in a step: concepts and retain prompts by number, pictures' noise, the attack's start, time.

    And whether it attacks, which follows from the step as well.
    """

    chosen: Tensor
    retained: Tensor
    start: Tensor
    shift: Tensor
    done: int
    time: int
    attacks: bool


class AdvUnlearnObjective(Objective):
    """AdvUnlearn as the training loop sees it; all that a step does follows from the seed and the step.

    Losses: "erasing" and "retain" as above, and "attack", how far the attacked concept's noise is from the base's of
    the concept; the attack makes that small and the training large.
    """

    losses = ("total", "erasing", "retain", "attack")

    def __init__(
        self,
        noise: nn.Module,
        encoder: TextEncoder,
        concepts: Concepts,
        retain: Sequence[str],
        settings: AdvUnlearnSettings,
        latent_shape: tuple[int, int, int],
    ) -> None:
        """Train a copy of `encoder`.

        Args:
            noise: called with latents, times and states, gives the predicted noise; it is frozen.
            encoder: the base, on the device of `noise`; it is frozen.
            concepts: what to erase, and the guides.
            retain: prompts to retain, from `retain_prompts`.
            settings: how.
            latent_shape: channels, height and width; (4, 64, 64) for pictures of 512 pixels.

        Raises:
            SettingsError: the encoder has fewer layers than are to be trained.
        """
        self.noise, self.settings, self.latent_shape = noise.requires_grad_(False).eval(), settings, latent_shape
        self.base = encoder.requires_grad_(False).eval()
        self.encoder = TextEncoder.from_state(encoder.state()).requires_grad_(False)
        self.device = next(encoder.parameters()).device
        self.trained = _trained(self.encoder, settings.layers)
        self.optimizer = torch.optim.Adam(self.trained.values(), lr=settings.learning_rate)
        self.scheduler = make_scheduler("ddim", settings.sampling_steps)
        self.chunk = settings.batch_size + settings.retain_batch
        self.concept_ids, self.retain_ids = (tokenize(texts).to(self.device) for texts in (concepts.erase, retain))
        self.empty_ids = tokenize([""]).to(self.device)
        with torch.no_grad():
            self.concept_states, self.guide_states, self.empty_states = (
                self.base(ids) for ids in (self.concept_ids, tokenize(concepts.guides).to(self.device), self.empty_ids)
            )
            # The embeddings are not trained, so that the box stays.
            self.boxes = settings.radius * _box(self.concept_ids, self.base.token_table.weight)

    def state(self) -> Mapping[str, Tensor]:
        """See Objective: the trained weights."""
        return {name: weight.detach() for name, weight in self.trained.items()}

    def shrink(self) -> None:
        """See Objective: half as many pictures at once."""
        if self.chunk == 1:
            raise TrainingError(
                f"Out of memory on {self.device} with one picture at a time. Choose a smaller size of the pictures, "
                "bf16 for the U-Net where the device computes in it, or free memory on the device."
            )
        self.chunk = (self.chunk + 1) // 2

    def gradients(self, step: int) -> Tensor:
        """See Objective."""
        settings, draw = self.settings, self._draw(step)
        count = len(draw.chosen)
        ids = torch.cat([self.concept_ids[draw.chosen], self.retain_ids[draw.retained]])
        with torch.no_grad():
            # The empty prompt goes along, since a batch may have no retain prompts.
            retained_states = self.base(torch.cat([self.empty_ids, ids[count:]]))[1:]
        latents = self._pictures(ids, retained_states, draw)
        times = torch.full((len(ids),), draw.time, device=self.device)
        targets, of_concept = self._targets(latents, times, retained_states, draw.chosen)
        moved = self._attack(latents[:count], times[:count], of_concept, draw)
        states = self._states(ids, torch.cat([moved, moved.new_zeros(len(ids) - count, *moved.shape[1:])]))
        weights = torch.full((len(ids),), 1 / count, device=self.device)
        weights[count:] = settings.retain_weight / max(settings.retain_batch, 1)
        predicted, slopes = self._slopes(latents, times, states, targets, weights)
        states.backward(slopes)
        errors = _errors(predicted, targets)
        # Without retain prompts their mean is 0.
        erasing, retain = errors[:count].mean(), errors[count:].sum() / max(settings.retain_batch, 1)
        attack = _errors(predicted[:count], of_concept).mean()
        return torch.stack([erasing + settings.retain_weight * retain, erasing, retain, attack])

    def result(self) -> dict[str, Tensor]:
        """The encoder's canonical state, float32 on the CPU.

        Raises:
            TrainingError: a weight is not finite.
        """
        state = {name: tensor.cpu().clone() for name, tensor in self.encoder.state().items()}
        for name, tensor in state.items():
            if not torch.isfinite(tensor).all():
                raise TrainingError(f"The trained {name} is not finite. {self.advice}")
        return state

    def _draw(self, step: int) -> _Draw:
        settings = self.settings
        generator = generator_of(settings.seed, step)
        count, retained = settings.batch_size, settings.retain_batch
        chosen = torch.randint(len(self.concept_ids), (count,), generator=generator)
        kept = torch.randint(max(len(self.retain_ids), 1), (retained,), generator=generator)
        done = int(torch.randint(settings.sampling_steps, (), generator=generator))
        time = time_between(done, settings.sampling_steps, generator)
        start = torch.randn(count + retained, *self.latent_shape, generator=generator)
        shift = torch.rand(count, *self.concept_states.shape[1:], generator=generator) * 2 - 1
        chosen, kept, start, shift = (each.to(self.device) for each in (chosen, kept, start, shift))
        return _Draw(chosen, kept, start, shift, done, time, step >= settings.plain_steps)

    @torch.no_grad()
    def _pictures(self, ids: Tensor, retained_states: Tensor, draw: _Draw) -> Tensor:
        """Latents of the concepts by the encoder that draws them, and of the retain prompts by the base."""
        count = len(draw.chosen)
        painter = self.encoder if self.settings.drawn_by == "trained" else self.base
        own = painter(torch.cat([ids[:count], self.empty_ids]))
        prompted = torch.cat([own[:-1], retained_states])
        plain = torch.cat([own[-1:].expand(count, -1, -1), self.empty_states.expand_as(retained_states)])
        guidance = self.settings.guidance
        return torch.cat(
            [
                denoise(
                    self.noise,
                    self.scheduler,
                    draw.start[part],
                    Texts(plain[part], prompted[part]),
                    guidance,
                    steps=draw.done,
                )
                for part in self._parts(len(ids))
            ]
        )

    @torch.no_grad()
    def _targets(
        self, latents: Tensor, times: Tensor, retained_states: Tensor, chosen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the noise is to become for each picture, and what the base says of the concepts' pictures."""
        count, strength = len(chosen), self.settings.strength
        states = torch.cat([self.concept_states[chosen], retained_states, self.guide_states[chosen]])
        latents, times = (torch.cat([each, each[:count]]) for each in (latents, times))
        found = torch.cat(
            [self.noise(latents[part], times[part], states[part]).float() for part in self._parts(len(states))]
        )
        of_concept, of_retained, of_guide = found.split([count, len(retained_states), count])
        return torch.cat([of_guide - strength * (of_concept - of_guide), of_retained]), of_concept

    def _attack(self, latents: Tensor, times: Tensor, of_concept: Tensor, draw: _Draw) -> Tensor:
        """δ (B, 77, width), under which the encoder in training comes nearest to the base's noise of the concept."""
        ids, box = self.concept_ids[draw.chosen], self.boxes[draw.chosen]
        moved = draw.shift * box
        if not draw.attacks or not self.settings.radius:
            return torch.zeros_like(moved)
        weights = torch.ones(len(ids), device=self.device)
        for _ in range(self.settings.attack_steps):
            moved.requires_grad_(True)
            states = self._states(ids, moved)
            _, slopes = self._slopes(latents, times, states, of_concept, weights)
            (slope,) = torch.autograd.grad(states, moved, slopes)
            moved = (moved.detach() - self.settings.attack_step * box * slope.sign()).clamp(-box, box)
        return moved

    def _states(self, ids: Tensor, shift: Tensor) -> Tensor:
        """States of the encoder in training whose token embeddings are moved by `shift` (B, 77, width)."""
        hook = self.encoder.token_table.register_forward_hook(lambda _module, _inputs, output: output + shift)
        try:
            return cast(Tensor, self.encoder(ids))
        finally:
            hook.remove()

    def _slopes(
        self, latents: Tensor, times: Tensor, states: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The predicted noise, and the gradient of the weighted sum of its errors with respect to the states.

        The U-Net's activations are needed for one part of the pictures at a time, since all that follows is linear.
        """
        predicted: list[Tensor] = []
        slopes: list[Tensor] = []
        for part in self._parts(len(states)):
            leaf = states[part].detach().requires_grad_(True)
            found = self.noise(latents[part], times[part], leaf).float()
            slopes += torch.autograd.grad((weights[part] * _errors(found, targets[part])).sum(), leaf)
            predicted.append(found.detach())
        return torch.cat(predicted), torch.cat(slopes)

    def _parts(self, count: int) -> list[slice]:
        return [slice(start, start + self.chunk) for start in range(0, count, self.chunk)]


def _errors(predicted: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of each picture, (B,)."""
    return (predicted - targets).square().flatten(1).mean(1)


def _box(ids: Tensor, table: Tensor) -> Tensor:
    """Root mean square of each text's own token embeddings at their places, 0 elsewhere; (N, 77, 1)."""
    place = torch.arange(ids.shape[1], device=ids.device)
    last = torch.tensor(last_subject(ids), device=ids.device)[:, None]
    own = ((place >= 1) & (place <= last))[..., None]
    scale = (table[ids].square() * own).sum((1, 2)) / (own.sum((1, 2)) * table.shape[1])
    return scale.sqrt()[:, None, None] * own


def _trained(encoder: TextEncoder, layers: int) -> dict[str, nn.Parameter]:
    """The parameters in training, which alone need gradients from here on."""
    require_layers(layers, encoder.config)
    chosen: dict[str, nn.Parameter] = {}
    for name, parameter in encoder.named_parameters():
        number = re.search(r"\.layers\.(\d+)\.", name)
        if "embeddings." not in name and (not layers or (number and int(number[1]) < layers)):
            parameter.requires_grad_(True)
            chosen[name] = parameter
    return chosen
