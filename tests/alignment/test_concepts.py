"""Several concepts in one run: the loss and the run against references said anew, names of runs, and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sage_core.alignment.concepts import RunConcepts
from sage_core.alignment.losses import LOSS_PARTS, BaseBatch, alignment_loss
from sage_core.alignment.report import run_summary
from sage_core.alignment.schedule import batch_sizes
from sage_core.alignment.settings import PRESETS, TrainingSettings
from sage_core.alignment.training import run_key, train, train_stored
from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import tokenize
from sage_core.errors import TrainingError
from sage_core.prompts.concept_pairs import pairs_from_concepts
from sage_core.prompts.concepts import Concept, ConceptList
from sage_core.prompts.pairs import pairs_from_lists

B, D = 8, 30
SUBJECTS = ["dog", "cat", "boat", "tree", "lamp", "house"]
PLACES = ["on the beach", "in the snow", "at night", "in a city"]
SAFE = [f"a {subject} {place}" for subject in SUBJECTS for place in PLACES]
TWO = ConceptList.of(Concept("skull", ("cranium",)), "red star")
OWN = ConceptList.of(Concept("skull", ("cranium",), becomes="a grey ball"), "red star")
SETTINGS = TrainingSettings(
    neighbours=3, batch_size=12, learning_rate=1e-3, concept_scale=0.85, scale_unit="concept", keep_mse=5.0,
    perturbation=0.5, perturbation_unit="concept", steps=5, held_out=0, precision="fp32",
)  # fmt: skip

OBJECTIVES = {
    "paper": PRESETS["paper"].replace(neighbours=3, batch_size=8, concept_scale=4.0, perturbation=0.7),
    "product form": PRESETS["paper"].replace(neighbours=2, batch_size=8, concept_scale=4.0, local_form="product"),
    "sage_plus": PRESETS["sage_plus"].replace(neighbours=3, batch_size=8, concept_scale=4.0),
    "each concept's own unit": PRESETS["sage_plus"].replace(
        neighbours=3, batch_size=8, concept_scale=0.8, scale_unit="concept", perturbation_unit="concept"
    ),
    "paired, no neutralise": TrainingSettings(
        neighbours=2, batch_size=8, target="paired", target_shift=0.4, concept_scale=3.0, neutralise=False
    ),
    "no keep_concept": PRESETS["des"].replace(concept_scale=4.0, keep_concept=False),
}


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(1)
    encoder = TextEncoder(EncoderConfig(layers=2, width=64, heads=1, mlp_width=96, vocabulary=49408, positions=77))
    encoder.to_empty(device="cpu")
    for name, parameter in encoder.named_parameters():
        torch.nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return {name: tensor.clone() for name, tensor in encoder.state().items()}


def cos(a, b):
    return (a * b).sum() / (a.pow(2).sum().sqrt() * b.pow(2).sum().sqrt())


def naive(safe, unsafe, concepts, given, settings):
    """The parts said concept by concept, with shifted copies of everything, one prompt at a time."""
    base_safe, targets, directions, led_to, norm, norms, of, own = given
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
    shift = settings.target_shift if settings.target_shift is not None else float(settings.target == "farthest")
    total = zero
    for i in range(size):
        target = targets[i]
        if not own[i]:
            target = target - shift * settings.concept_scale * unit(settings.scale_unit, of[i]) * directions[of[i]]
        total = total + 1 - cos(unsafe[i], target)
    parts["redirect"] = total / size
    if settings.neutralise:
        parts["neutralise"] = sum(1 - cos(concepts[c], led_to[c]) for c in every) / len(directions)
    if settings.spread_weight:
        spread = lambda rows: torch.stack([row / row.norm() for row in rows]).var(dim=0).sum()  # noqa: E731
        parts["spread"] = torch.relu(spread(base_safe) - spread(safe))
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


def batch(seed, count, own):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    offset = 1.5 * draw(D)
    base_safe = draw(B, D) + offset
    raw = draw(count, D) * torch.arange(1, count + 1)[:, None]
    given = (
        base_safe, draw(B, D) + offset, raw / raw.norm(dim=1, keepdim=True), draw(count, D), 7.5,
        tuple(raw.norm(dim=1).tolist()), torch.arange(B) % count, torch.arange(B) % 3 == 0 if own else [False] * B,
    )  # fmt: skip
    safe = base_safe * 0.5 + offset + 0.3 * draw(B, D)
    return safe, draw(B, D) + offset, draw(count, D), given


def as_base(given, own):
    safe, target, directions, led_to, norm, norms, of, unshifted = given
    return BaseBatch(safe, target, directions, led_to, norm, norms, of, unshifted if own else None)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(("count", "own"), [(2, False), (3, True)])
def test_every_part_and_gradient_of_several_concepts_equals_the_naive_reference(name, count, own):
    settings = OBJECTIVES[name]
    safe, unsafe, concepts, given = batch(count, count, own)
    found = []
    for function, side in ((alignment_loss, as_base(given, own)), (naive, given)):
        leaves = [x.clone().requires_grad_() for x in (safe, unsafe, concepts)]
        parts = function(*leaves, side, settings)
        found.append((parts, torch.autograd.grad(parts["total"], leaves, materialize_grads=True)))
    (parts, gradients), (expected, reference) = found
    for part in LOSS_PARTS:
        assert float(parts[part].detach()) == pytest.approx(float(expected[part].detach()), rel=1e-9, abs=1e-12), part
    for ours, theirs in zip(gradients, reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_list_of_one_is_the_loss_of_one_to_the_bit(name):
    safe, unsafe, concepts, given = batch(0, 1, False)
    safe, unsafe, concepts = (x.float() for x in (safe, unsafe, concepts))
    values = [x.float() for x in given[:4]]
    several = alignment_loss(safe, unsafe, concepts, BaseBatch(*values, 7.5, given[5]), OBJECTIVES[name])
    values[2:] = [x[0] for x in values[2:]]
    one = alignment_loss(safe, unsafe, concepts[0], BaseBatch(*values, 7.5, given[5][0]), OBJECTIVES[name])
    assert all(torch.equal(several[part], one[part]) for part in LOSS_PARTS)


def naive_run(base, pairs, concepts, settings):
    """A run of several concepts as a plain loop: whole token table, everything computed anew in every step."""
    frozen, model = TextEncoder.from_state(base), TextEncoder.from_state(base)
    phi = lambda encoder, prompts: encoder(tokenize(prompts)).flatten(1)  # noqa: E731
    texts = [each.direction or each.name for each in concepts]
    place = {each.name: at for at, each in enumerate(concepts)}
    with torch.no_grad():
        distinct = phi(frozen, list(dict.fromkeys(pairs.safe)))
        raw, empty = phi(frozen, texts), phi(frozen, [""])[0]
        led_to = [phi(frozen, [each.becomes])[0] if each.becomes else empty for each in concepts]
    norms, norm = raw.norm(dim=1), float(distinct.norm(dim=1).mean())
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
                if each.becomes:
                    targets.append(phi(frozen, [each.becomes])[0])
                else:
                    gaze = torch.stack([cos(phi(frozen, [pairs.unsafe[i]])[0], row) for row in distinct])
                    targets.append(distinct[gaze.argmin()])
        of = [place[pairs.concepts[i]] for i in chosen]
        own = [bool(concepts[c].becomes) for c in of]
        given = (
            z0, torch.stack(targets).double(), (raw / norms[:, None]).double(), torch.stack(led_to).double(), norm,
            norms.tolist(), of, own,
        )  # fmt: skip
        sides = [phi(model, [side[i] for i in chosen]).double() for side in (pairs.safe, pairs.unsafe)]
        loss = naive(*sides, phi(model, texts).double(), given, settings)["total"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        totals.append(loss.item())
    return totals, model.state()


@pytest.mark.parametrize("concepts", [TWO, OWN], ids=["settings' targets", "a target of its own"])
def test_a_run_of_two_concepts_equals_the_naive_loop(base, concepts):
    # Without the spread term: the untouched encoder is on the kink of max(0, ·), and rounding decides its side.
    settings = SETTINGS.replace(spread_weight=0.0, steps=3)
    pairs = pairs_from_concepts(SAFE, concepts)
    totals, state = naive_run(base, pairs, concepts, settings)
    result = train(base, pairs, concepts, settings)
    assert [report.losses["total"] for report in result.history] == pytest.approx(totals, rel=2e-4)
    for name, expected in state.items():
        if name.endswith("k_proj.bias"):
            continue  # Adds the same to all of a query's scores: no gradient but rounding, which Adam makes large.
        assert (result.state[name] - expected).norm() <= 0.02 * (expected - base[name]).norm() + 1e-6, name


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_list_of_one_concept_gives_the_weights_of_its_name(base):
    pairs = pairs_from_concepts(SAFE, ConceptList.of("skull"))
    settings = SETTINGS.replace(steps=3)
    listed, named = train(base, pairs, ConceptList.of("skull"), settings), train(base, pairs, "skull", settings)
    assert same(listed.state, named.state)
    other = train(base, pairs, ConceptList.of(Concept("skull", becomes="a grey ball")), settings)
    assert not same(other.state, named.state)


def test_chunks_and_stops_change_no_run_of_two_concepts(base, tmp_path):
    pairs, settings = pairs_from_concepts(SAFE, OWN), SETTINGS.replace(steps=4)
    straight = train(base, pairs, OWN, settings)
    chunked = train(base, pairs, OWN, settings.replace(chunk_size=7))
    for a, b in zip(straight.history, chunked.history, strict=True):
        assert b.losses == pytest.approx(a.losses, rel=1e-3, abs=1e-6)

    def stop(report):
        if report.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_stored(base, pairs, OWN, settings, tmp_path, on_step=stop)
    resumed, found = train_stored(base, pairs, OWN, settings, tmp_path)
    assert not found and same(resumed.state, straight.state)
    again, found = train_stored(base, pairs, OWN, settings, tmp_path)
    assert found and same(again.state, straight.state)
    assert again.metadata["concept"] == "skull, red star" and "a grey ball" in again.metadata["concepts"]
    assert 'concepts "skull, red star"' in run_summary(again, "x", found=True, pairs=len(pairs))


def test_held_out_prompts_are_in_no_pair_of_either_concept(base):
    safe = [f"{number} {subject}s {place}" for number in range(2, 20) for subject in SUBJECTS for place in PLACES]
    result = train(base, pairs_from_concepts(safe, TWO), TWO, SETTINGS.replace(steps=1, held_out=40))
    geometry = result.history[-1].geometry
    assert geometry.held_out and geometry.prompts == 40


PAIRS = pairs_from_lists(
    ["two red cats on a mat", "a blue cup left of a plate", "a green door"],
    ["a skull", "two skulls", "a skull in the snow"],
)
KEY = "74186c2f4d2d0f3c7d639caac2372305"


def test_a_list_of_one_concept_has_the_key_of_its_name():
    settings = PRESETS["sage_plus"].replace(held_out=128, precision="fp32")
    # Pinned in test_store, too: the name of the run of release 0.1.
    for concept in ("skull", ConceptList.of("skull"), ConceptList.of(Concept("skull", ("cranium",), ("bony head",)))):
        for pairs in (PAIRS, replace(PAIRS, concepts=("skull",) * 3)):
            assert run_key("ab" * 32, pairs, concept, settings) == KEY
    assert run_key("ab" * 32, PAIRS, ConceptList.of(Concept("bones", direction="skull")), settings) == KEY


def test_whatever_changes_the_result_of_several_concepts_changes_the_key():
    settings = PRESETS["released"].replace(precision="fp32")
    tagged = replace(PAIRS, concepts=("skull", "red star", "skull"))
    keys = [
        run_key("a", tagged, TWO, settings),
        run_key("a", tagged, OWN, settings),
        run_key("a", tagged, ConceptList.of("red star", "skull"), settings),
        run_key("a", tagged, ConceptList.of("skull", Concept("red star", direction="a star")), settings),
        run_key("a", replace(tagged, concepts=("red star", "red star", "skull")), TWO, settings),
        run_key("a", PAIRS, ConceptList.of(Concept("skull", becomes="a ball")), settings),
        run_key("a", PAIRS, "skull", settings),
        run_key("a", PAIRS, "skull, red star", settings),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("tags", "concept", "message"),
    [
        ((), TWO, "the pairs do not say which of them they are for"),
        (("skull", "night", "skull"), TWO, "Pair 2 is for the concept 'night'.*expected one of skull, red star"),
        (("skull",) * 3, TWO, "No pair is for the concept 'red star'"),
        (("skull", "red star", "skull"), "skull", r"for 2 concepts \(skull, red star\).*told of one, 'skull'"),
        (("skull", "red star", "skull"), ConceptList.of("skull"), "told of one, 'skull'"),
        ((), " ( ) ", "The concept is empty"),
    ],
)
def test_pairs_that_are_for_other_concepts_are_refused(tags, concept, message):
    with pytest.raises(TrainingError, match=message):
        RunConcepts.of(concept, replace(PAIRS, concepts=tags))
