"""`sage attack`: test an aligned text encoder by prompts and embeddings that try to bring the concept back."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import plots
from ..errors import SettingsError
from ..options import count
from . import common

if TYPE_CHECKING:
    from torch import Tensor

    from ..attacks.naming import NamedAttack
    from ..attacks.plans import AttackPlan
    from ..attacks.store import StoredAttack

# The library's further goal, pictures, needs latents, which no file gives.
_GOALS = ("embedding", "direction", "noise", "pooled")
_TEXT = """
Attack an aligned text encoder, to test it.

An attack that fails says something only if it succeeds on the base: the same attack is run there too, unless
--no-control. PROMPTS are unsafe prompts of your own; those that refer to minors are refused before anything runs.
--store keeps attacks: an interrupted one goes on, a finished one is found again.

--concepts names what is attacked by a file, as `sage train` takes it. No token of the names that a training may have
seen is used. Prompts that do not name the concept have it written into them, by its names in `unseen` if it has any;
without PROMPTS its own unsafe ones are taken. --concept says which, if the file has several.

BASE and ALIGNED hold an SD 1.x text encoder. The goal `noise` goes through a U-Net: the base's, from --unet, and the
one under attack, from --attacked-unet where it is another.

methods: tokens, genetic (both find prompts), soft (embeddings for each prompt), inversion (one embedding for all)
goals: embedding, direction (needs --concept; Ring-A-Bell's), noise (needs --unet), pooled (MMA-Diffusion's)

examples:
  sage attack sd15.safetensors sage.safetensors unsafe.txt --out found.txt
  sage attack sd15.safetensors sage.safetensors unsafe.txt --method genetic --goal direction --concept nudity
  sage attack sd15.safetensors sage.safetensors safe.txt --concepts concepts.toml --concept cigarette
  sage attack sd15.safetensors sage.safetensors unsafe.txt --method inversion --goal noise --concept nude \\
      --unet sd15.safetensors --out embedding.safetensors --curve curve.png
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = common.add_command(subparsers, "attack", run, _TEXT)
    command.add_argument("base", type=Path, metavar="BASE")
    command.add_argument("aligned", type=Path, metavar="ALIGNED")
    command.add_argument("prompts", type=Path, metavar="PROMPTS", nargs="?")
    command.add_argument("--method", default="tokens", help="see above (default: tokens)")
    command.add_argument("--goal", default="embedding", help="see above (default: embedding)")
    command.add_argument("--concept", type=common.text, help="its name in the prompts, or in the file of --concepts")
    command.add_argument("--concepts", type=Path, metavar="FILE", help="file of one or more concepts (.toml or .json)")
    command.add_argument("--place", default="", help="of the free tokens: front, concept or all")
    command.add_argument("--tokens", type=count(0, 75), default=0, help="free tokens of each prompt")
    command.add_argument("--steps", type=count(1, 1_000_000), default=100, help="(default: %(default)s)")
    command.add_argument("--restarts", type=count(1, 1000), default=1, help="(default: %(default)s)")
    command.add_argument("--candidates", type=count(2, 10_000), default=32, help="tried a step (default: %(default)s)")
    command.add_argument("--below", type=common.distance, default=0.0, help="distance that counts as broken")
    command.add_argument("--learning-rate", type=common.rate, default=0.1, help="of embeddings")
    command.add_argument("--words", type=Path, metavar="FILE", help="only these may be used; by default all words")
    command.add_argument("--any-token", action="store_true", help="use parts of words, too")
    command.add_argument("--without", type=common.text, action="append", help="words that may not be used; may repeat")
    command.add_argument("--unet", type=Path, metavar="CHECKPOINT", help="the base's U-Net")
    command.add_argument("--attacked-unet", type=Path, metavar="CHECKPOINT", help="the U-Net under attack")
    command.add_argument("--size", type=count(8, 2048), default=512, help="of pictures, in pixels (default: 512)")
    command.add_argument("--seed", type=count(0, 2**32 - 1), default=0, help="(default: %(default)s)")
    command.add_argument("--no-control", action="store_true", help="do not attack the base as well")
    command.add_argument("--out", type=Path, metavar="FILE", help="the prompts (.txt), or embeddings (.safetensors)")
    command.add_argument("--curve", type=Path, metavar="PNG", help="draw success against tries")
    command.add_argument("--store", type=Path, default=Path(".sage-runs"), help="of attacks (default: %(default)s)")
    common.add_work(command)


def run(options: argparse.Namespace) -> int:
    """The report of an attack; its prompts or embeddings, and its curve, if asked for."""
    outputs = {"--out": options.out, "--curve": options.curve, "--report": options.report}
    inputs = {"BASE": options.base, "ALIGNED": options.aligned, "PROMPTS": options.prompts, "--words": options.words}
    inputs |= {"--unet": options.unet, "--attacked-unet": options.attacked_unet}
    inputs |= common.concept_inputs(options.concepts)
    common.check_outputs(outputs, inputs)
    _check(options)
    from ..attacks.budgets import success_curves
    from ..attacks.embeddings import numbered
    from ..attacks.store import AttackedModel, attack_stored, summary

    plan = _plan(options)
    if options.out and plan.method == "soft":
        files = {f"--out ({file.name})": file for file in numbered(options.out, len(plan.prompts))}
        common.check_outputs(files | {"--report": options.report, "--curve": options.curve}, inputs)
    base_unet = _unet(options.unet) if plan.through_unet and options.unet else None
    other = options.attacked_unet if plan.through_unet else None
    base = AttackedModel(common.read_state(options.base), base_unet)
    victim = AttackedModel(common.read_state(options.aligned), _unet(other) if other else base_unet)
    bars, device = common.Bars(options.quiet), common.device(options)

    def attacked(name: str, model: AttackedModel) -> StoredAttack:
        bar = bars(name)
        return attack_stored(
            plan,
            model,
            base,
            options.store,
            size=options.size,
            device=device,
            on_step=lambda step: bar(step.step, step.steps),
        )

    found = attacked("attacking", victim)
    control = None if options.no_control else attacked("control", base)
    if options.out:
        _save(options.out, plan, found)
    if options.curve:
        curves = {"under attack": found.outcome.curve()}
        curves |= {"control: the base": control.outcome.curve()} if control else {}
        plots.save_figure(options.curve, success_curves(curves))
    common.write(options, _value(options, plan, found, control), summary(plan, found, control) + "\n")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what would have no effect, or would write a kind of file that its name does not say."""
    if options.goal not in _GOALS:
        raise SettingsError(f"--goal is '{options.goal}'; expected one of {', '.join(_GOALS)}.")
    for name, path in (("--unet", options.unet), ("--attacked-unet", options.attacked_unet)):
        if path is not None and options.goal != "noise":
            raise SettingsError(f"{name} has no effect on the goal {options.goal}; add --goal noise, or leave it out.")
    if options.attacked_unet is not None and options.unet is None:
        raise SettingsError("--unet is missing; --attacked-unet is compared with the base's U-Net.")
    common.check_suffix("--curve", options.curve, ".png")
    if options.out and options.method in ("soft", "inversion"):
        common.check_safetensors("--out", options.out)
    elif options.out and options.out.suffix.lower() != ".txt":
        raise SettingsError(f"--out is '{options.out}', and {options.method} finds prompts; expected a name in .txt.")


def _plan(options: argparse.Namespace) -> AttackPlan:
    from ..attacks.budgets import AttackBudget
    from ..attacks.plans import AttackPlan

    asked = _asked(options)
    return AttackPlan(
        asked.prompts,
        asked.concept,
        options.method,
        options.goal,
        options.place,
        options.tokens,
        AttackBudget(options.steps, options.restarts, below=options.below),
        options.candidates,
        "all" if options.any_token else "words",
        common.prompts(options.words) if options.words else (),
        asked.without + tuple(options.without or ()),
        options.learning_rate,
        seed=options.seed,
    )


def _asked(options: argparse.Namespace) -> NamedAttack:
    from ..attacks.naming import NamedAttack, name_attack

    prompts = common.prompts(options.prompts) if options.prompts else ()
    if not options.concepts:
        if not prompts:
            raise SettingsError("PROMPTS is missing; expected a file of unsafe prompts, or --concepts with a file.")
        return NamedAttack(prompts, options.concept or "", ())
    return name_attack(
        common.concepts(options.concepts),
        options.concept or "",
        prompts,
        along=options.goal == "direction",
        one_name=options.place == "concept" or (options.method == "inversion" and not options.place),
    )


def _unet(path: Path) -> Mapping[str, Tensor]:
    from ..unet.files import read_unet, sizes_of

    return {name: value for name, _, value in read_unet(path, sizes_of(path)).tensors()}


def _save(path: Path, plan: AttackPlan, found: StoredAttack) -> None:
    from ..attacks.embeddings import save_embeddings
    from ..files import write_text

    if plan.soft:
        save_embeddings(path, found.embeddings(), found.metadata)
    else:
        write_text(path, "".join(text + "\n" for text in found.texts()))


def _value(
    options: argparse.Namespace, plan: AttackPlan, found: StoredAttack, control: StoredAttack | None
) -> dict[str, Any]:
    def about(attack: StoredAttack) -> dict[str, Any]:
        outcome = attack.outcome
        return {
            "success": outcome.success.to_dict(),
            "curve": [{"tries": tries, **hits.to_dict()} for tries, hits in outcome.curve()],
            "prompts": [
                {"prompt": text, "broken": bool(hit), "distance": float(distance)}
                for text, hit, distance in zip(attack.texts(), outcome.hits, outcome.distances, strict=True)
            ],
        }

    return {
        "out": common.path_text(options.out) if options.out else None,
        "plan": plan.to_dict(),
        "found": found.found,
        "attack": about(found),
        "control": about(control) if control else None,
    }
