"""The alignment loss and a run of it, said plainly: in float64, prompt by prompt, concept by concept."""

from __future__ import annotations

import torch

from sage_core.alignment.losses import LOSS_PARTS
from sage_core.alignment.schedule import batch_sizes
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import tokenize


def cos(a, b):
    return (a * b).sum() / (a.pow(2).sum().sqrt() * b.pow(2).sum().sqrt())


def spread(rows):
    return torch.stack([row / row.norm() for row in rows]).var(dim=0).sum()


def naive_parts(safe, unsafe, concepts, given, settings):
    """The parts said concept by concept, with shifted copies of everything, one prompt at a time.

    `given` is what the base says, as in BaseBatch.
    """
    base_safe, targets, directions, led_to, norm, norms, of, own, *weights = given
    unit = lambda which, c: {"absolute": 1.0, "norm": norm, "concept": norms[c]}[which]  # noqa: E731
    size, every, zero = len(safe), range(len(directions)), torch.zeros((), dtype=torch.float64)
    parts = dict.fromkeys(LOSS_PARTS, zero)
    parts["keep"] = sum(1 - cos(z, z0) for z, z0 in zip(safe, base_safe, strict=True)) / size
    if settings.keep_concept:
        total = zero
        for c in every:
            step = settings.concept_scale * unit(settings.scale_unit, c) * directions[c]
            total = total + sum(1 - cos(z + step, z0) for z, z0 in zip(safe, base_safe, strict=True)) / size
        parts["keep_concept"] = total / len(directions)
    if settings.keep_mse:
        parts["keep_mse"] = (
            sum((z - z0).pow(2).sum() / z0.pow(2).sum() for z, z0 in zip(safe, base_safe, strict=True)) / size
        )
    far = settings.target in ("farthest", "fitting")
    shift = settings.target_shift if settings.target_shift is not None else float(far)
    total = zero
    for i in range(size):
        target = targets[i]
        if not own[i]:
            target = target - shift * settings.concept_scale * unit(settings.scale_unit, of[i]) * directions[of[i]]
        total = total + (1 - cos(unsafe[i], target)) * (weights[0][i] if weights else 1)
    parts["redirect"] = total / size
    if settings.neutralise:
        parts["neutralise"] = sum(1 - cos(concepts[c], led_to[c]) for c in every) / len(directions)
    if settings.spread_weight:
        lost = spread(base_safe) - spread(safe)
        parts["spread"] = lost.abs() if settings.spread_form == "symmetric" else torch.relu(lost)
    if settings.local_weight:
        total = zero
        for c in every:
            push = settings.perturbation * unit(settings.perturbation_unit, c) * directions[c]
            pairs = []
            for i in range(size):
                near = sorted(
                    (j for j in range(size) if j != i), key=lambda j, i=i: -float(cos(base_safe[i], base_safe[j]))
                )
                near = near[: settings.neighbours]
                pairs += [(cos(safe[i] + push, safe[j] + push), cos(base_safe[i], base_safe[j])) for j in near]
            after, before = (torch.stack(side) for side in zip(*pairs, strict=True))
            product = settings.local_form == "product"
            alike = (after * before).mean() if product else torch.corrcoef(torch.stack([after, before]))[0, 1]
            total = total + 1 - alike
        parts["local"] = total / len(directions)
    kept = parts["keep"] + parts["keep_concept"] + settings.keep_mse * parts["keep_mse"]
    redirect = 1 - settings.keep_weight if settings.redirect_weight is None else settings.redirect_weight
    parts["total"] = (
        settings.keep_weight * kept + redirect * (parts["redirect"] + parts["neutralise"])
        + settings.spread_weight * parts["spread"] + settings.local_weight * parts["local"]
    )  # fmt: skip
    return parts


def naive_run(base, pairs, concepts, settings):
    """A run as a plain loop: whole token table, everything computed anew in every step."""
    frozen, model = TextEncoder.from_state(base), TextEncoder.from_state(base)
    phi = lambda encoder, prompts: encoder(tokenize(prompts)).flatten(1)  # noqa: E731
    texts = [each.direction or each.name for each in concepts]
    place = {each.name: at for at, each in enumerate(concepts)}
    with torch.no_grad():
        distinct = phi(frozen, list(dict.fromkeys(pairs.safe)))
        raw, empty = phi(frozen, texts), phi(frozen, [""])[0]
    norms, norm = raw.norm(dim=1), float(distinct.norm(dim=1).mean())
    fitting = settings.target == "fitting"
    paired = [each.name == "striped" and fitting for each in concepts]
    neutral = ["a small blue house by a lake" if fitting else "" for each in concepts]
    targeted = [each.becomes or other for each, other in zip(concepts, neutral, strict=True)]
    ways = [[] for _ in concepts]
    with torch.no_grad():
        for safe, unsafe, name in zip(pairs.safe, pairs.unsafe, pairs.concepts, strict=True):
            ways[place[name]].append(float(1 - cos(*phi(frozen, [safe, unsafe]).double())))
        led_to = [phi(frozen, [text])[0] if text else empty for text in targeted]
    counts = [len(way) / sum(way) if led else 1.0 for led, way in zip(paired, ways, strict=True)]
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    sizes, totals, start = batch_sizes(len(pairs), settings), [], 0
    rows = torch.cat([torch.randperm(len(pairs), generator=torch.Generator().manual_seed(epoch)) for epoch in range(9)])
    for step in range(settings.steps):
        chosen = rows[start : start + sizes[step % len(sizes)]].tolist()
        start += len(chosen)
        with torch.no_grad():
            z0 = phi(frozen, [pairs.safe[i] for i in chosen]).double()
            targets = []
            for i in chosen:
                each = concepts[place[pairs.concepts[i]]]
                if paired[place[each.name]]:
                    targets.append(phi(frozen, [pairs.safe[i]])[0])
                elif targeted[place[each.name]]:
                    targets.append(phi(frozen, [targeted[place[each.name]]])[0])
                else:
                    gaze = torch.stack([cos(phi(frozen, [pairs.unsafe[i]])[0], row) for row in distinct])
                    targets.append(distinct[gaze.argmin()])
        of = [place[pairs.concepts[i]] for i in chosen]
        own = [bool(concepts[c].becomes) for c in of]
        given = (
            z0, torch.stack(targets).double(), (raw / norms[:, None]).double(), torch.stack(led_to).double(), norm,
            norms.tolist(), of, own, [counts[c] for c in of],
        )  # fmt: skip
        sides = [phi(model, [side[i] for i in chosen]).double() for side in (pairs.safe, pairs.unsafe)]
        loss = naive_parts(*sides, phi(model, texts).double(), given, settings)["total"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        totals.append(loss.item())
    return totals, model.state()
