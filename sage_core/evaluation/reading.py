"""A plan read from TOML and checked whole.

Nothing is drawn before the whole plan is right. Every message names the file, the line and the field. Paths are those
of the plan's own folder unless they are absolute.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..drawing.guidance import PRESETS as SLD_PRESETS
from ..errors import SettingsError
from ..methods.table import KNOBS, METHODS, WHOLE, of_kind, settings_for, settings_of
from ..rows import shown
from ..scores.rates import NINE_CLASSES, NUDENET_LOWEST
from .attacking import read_attack
from .claims import AUTO, KINDS
from .fields import Section, read_toml
from .plan import (
    BASE,
    CAPTIONS,
    DISTANCES,
    GENEVAL,
    JUDGED,
    PRECISIONS,
    READER,
    SAMPLERS,
    SCORES,
    SHAPES,
    WITNESSES,
    Drawing,
    Making,
    MethodAttack,
    MethodPlan,
    Nudenet,
    Part,
    Plan,
    Scoring,
    usual_drawing,
)
from .reading_lists import read_prompt_lists, repeats

# The fields of a change that is made, and what of a removal each is.
_READ = (("guides", "guides"), ("keep", "preserve"), ("captions", "captions"), ("pairs", "pairs"))


def read_plan(file: str | os.PathLike[str]) -> Plan:
    """Read a plan and check all of its fields.

    Raises:
        SettingsError: with all problems, each with the file, the line and the field.
    """
    root = read_toml(Path(file))
    base = _base(root)
    in_world = base is None and root.values.get("base") == SHAPES
    output = root.place("output", root.text("output", "evaluation")) or root.source.file.parent
    locks = root.choice("locks", KINDS, AUTO)
    draw = _drawing(root.section("draw"), in_world)
    lists = read_prompt_lists(root.section("prompts"), output / "lists")
    attacks = root.sections("attack")
    score = _scoring(root.section("score"), in_world, lists, bool(attacks))
    methods = (MethodPlan(BASE), *(_method(section) for section in root.sections("method")))
    _require_different(root, methods)
    attacking = tuple(read_attack(section, draw, score, lists["attacks"], methods) for section in attacks)
    _require_own_names(attacks, attacking, lists)
    root.close()
    root.source.require_none()
    found: dict[str, Any] = {"score": score, "methods": methods, "attacking": attacking, "locks": locks}
    plan = Plan(root.source.file, output, base, draw, **lists, **found)
    _require_apart(root, plan)
    return plan


def _require_apart(root: Section, plan: Plan) -> None:
    """Refuse an output in a folder that is read: every file written would change its hash."""
    output = Path(os.path.realpath(plan.output))
    for folder in dict.fromkeys(path for path in _paths(asdict(plan) | {"output": None}) if path.is_dir()):
        if output.is_relative_to(os.path.realpath(folder)):
            root.problem("output", f"{plan.output} lies in {folder}, which the plan reads; choose another folder.")
    root.source.require_none()


def _paths(value: Any) -> Iterator[Path]:
    """Every path in a plan."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _paths(each)


def _base(root: Section) -> Path | None:
    if root.values.get("base") == SHAPES:
        root.has("base")
        return None
    return root.path("base", required=True, folder=None)


def _drawing(section: Section, in_world: bool) -> Drawing:
    usual = usual_drawing(in_world)
    sizes = [section.whole(side, getattr(usual, side), 8, 4096) for side in ("width", "height")]
    for side, size in zip(("width", "height"), sizes, strict=True):
        if size % 8:
            section.wrong(side, "a multiple of 8")
        elif in_world and size != getattr(usual, side):
            section.wrong(side, f"{getattr(usual, side)}, as the shapes world draws nothing else")
    found = Drawing(
        sampler=section.choice("sampler", SAMPLERS, usual.sampler),
        steps=section.whole("steps", usual.steps, 1, 1000),
        guidance=section.number("guidance", usual.guidance, 0, 100),
        width=sizes[0],
        height=sizes[1],
        seed=section.whole("seed", usual.seed, 0, 2**62),
        pictures=section.whole("pictures", usual.pictures, 1, 1000),
        batch=section.whole("batch", usual.batch, 1, 1000),
        precision=section.choice("precision", PRECISIONS, usual.precision),
        threads=section.whole("threads", usual.threads, 1, 1024),
    )
    section.close()
    return found


def _require_own_names(sections: Sequence[Section], attacks: Sequence[MethodAttack], lists: Mapping[str, Any]) -> None:
    """Refuse an attack that is called as a list or as another attack: folders and columns would mix them up."""
    names = [CAPTIONS, GENEVAL, *(each.name for kind in ("attacks", "safe") for each in lists[kind])]
    for place, name, other in repeats([*names, *(attack.name for attack in attacks)]):
        if place >= len(names):
            text = f"{name!r} is too like {other!r}, the name of a list or of another attack; give each its own."
            sections[place - len(names)].problem("name", text)


def _scoring(section: Section, in_world: bool, lists: Mapping[str, Any], attacked: bool) -> Scoring:
    questions, geneval, attacks, safe = (lists[name] for name in ("questions", "geneval", "attacks", "safe"))
    judge = _judge(section, in_world)
    clip = section.path("clip", folder=True)
    features = section.path("features", folder=None)
    witness = section.choice("witness", WITNESSES, "judge" if in_world else "nudenet")
    usual = [
        name
        for name, there in (
            ("tifa", questions and judge),
            ("geneval", geneval and judge),
            ("clipscore", (questions or safe) and clip),
            ("attacks", attacks),
            ("attacked", attacked),
            ("kept", any(each.must_stay for each in safe)),
            ("geometry", questions),
            ("kid", (questions or safe) and features),
        )
        if there
    ]
    what = section.choices("what", SCORES, usual)
    found = Scoring(
        what=what,
        judge=judge,
        judge_precision=section.choice("judge_precision", PRECISIONS[1:], "fp32"),
        sentences=section.path("sentences", folder=True),
        clip=clip,
        concept=section.text("concept", "skull" if in_world else "nudity"),
        question=section.text("question"),
        witness=witness,
        neighbours=section.whole("neighbours", 10, 1, 1000),
        published=section.flag("published", False),
        lost=section.whole("lost", 24, 0, 10_000),
        features=features,
        reference=_reference(section),
        nudenet=_nudenet(section),
    )
    _require_prompts(section, what, lists)
    if "attacked" in what and not (attacked and "attacks" in what):
        text = "attacked needs an [[attack]], and attacks beside it. Add what is missing, or leave it out."
        section.problem("what", text)
    looks = {found.witness_of(each) for each in attacks if "attacks" in what}
    looks |= {found.witness_of(each) for each in safe if "kept" in what and each.must_stay}
    needs = {"judge": bool(set(JUDGED) & set(what)) or "judge" in looks}
    needs["clip"] = ("clipscore" in what) or "clip" in looks
    needs["features"] = bool(set(DISTANCES) & set(what))
    for name, value in (("judge", judge), ("clip", clip), ("features", features)):
        if needs[name] and not value and not section.has(name):
            section.problem(name, f"it is missing, and scoring needs it ({', '.join(what)}). Name a folder.")
    section.close()
    return found


def _reference(section: Section) -> Path | None:
    """What pictures are compared with; None for the base's own."""
    if section.values.get("reference") == BASE:
        section.has("reference")
        return None
    found = section.path("reference", folder=None)
    if found and found.is_file() and found.suffix.lower() != ".npz":
        section.wrong("reference", f"{BASE!r}, a folder of photographs, or statistics in an .npz file")
    return found


def _nudenet(score: Section) -> Nudenet:
    usual, section = Nudenet(), score.section("nudenet")
    found = Nudenet(
        threshold=section.number("threshold", usual.threshold, NUDENET_LOWEST, 1),
        classes=section.choices("classes", NINE_CLASSES, usual.classes),
        detector=section.path("detector"),
        resolution=section.whole("resolution", usual.resolution, 32, 4096),
    )
    if section.has("resolution") and not found.detector:
        section.problem("resolution", "it is that of a detector's file; name the file in detector, or leave it out.")
    section.close()
    return found


def _require_prompts(section: Section, what: tuple[str, ...], lists: Mapping[str, Any]) -> None:
    questions, attacks, safe = (lists[name] for name in ("questions", "attacks", "safe"))
    if {"tifa", "geometry"} & set(what) and not questions:
        section.problem("what", "tifa and geometry need prompts.questions. Name the file, or leave them out.")
    if "soft_tifa" in what and "tifa" not in what:
        section.problem("what", "soft_tifa is made of tifa's answers. Add tifa, or leave soft_tifa out.")
    if "geneval" in what and not lists["geneval"]:
        section.problem("what", "geneval needs prompts.geneval. Name its evaluation_metadata.jsonl, or leave it out.")
    if "kept" in what and not any(each.must_stay for each in safe):
        section.problem("what", "kept needs a [[prompts.safe]] with a concept or make. Add one, or leave it out.")
    of_harmless = [name for name in ("vqascore", "clipscore", *DISTANCES) if name in what]
    if of_harmless and not (questions or safe):
        verb = "needs" if len(of_harmless) == 1 else "need"
        text = f"{' and '.join(of_harmless)} {verb} harmless prompts. Add [[prompts.safe]], or leave it out."
        section.problem("what", text)
    if "attacks" in what and not attacks:
        section.problem("what", "attacks need lists of prompts. Add [[prompts.attack]], or leave attacks out.")


def _judge(section: Section, in_world: bool) -> str:
    if section.values.get("judge") == READER or (in_world and "judge" not in section.values):
        section.has("judge")
        if not in_world:
            section.problem("judge", f"{READER!r} reads the shapes world's pictures alone; expected a judge's folder.")
        return READER
    found = section.path("judge", folder=True)
    return str(found) if found else ""


def _method(section: Section) -> MethodPlan:
    name = section.text("name", required=True)
    found = MethodPlan(
        name=name,
        text_encoder=_part(section, "text_encoder"),
        unet=_part(section, "unet"),
        loras=_loras(section),
        file=_part(section, "file"),
        make=_made(section),
        sld=section.choice("sld", SLD_PRESETS, ""),
        safety_text=section.text("safety_text"),
        safree=section.texts("safree"),
        gate=section.path("gate"),
        pictures=section.path("pictures", folder=True),
    )
    if found.safety_text and not section.has("sld"):
        section.problem("safety_text", "it has no effect without sld. Name a strength, or leave it out.")
    if found.gate and found.safree:
        section.problem(
            "gate", "it takes the place of a prompt's states, and so does safree. Make two methods of them."
        )
    given = ("make", "file", "text_encoder", "unet", "lora", "erase", "sld", "safree", "gate", "pictures")
    used = [each for each in given if section.has(each)]
    if "pictures" in used and len(used) > 1:
        text = f"these are drawn already, and {', '.join(used[:-1])} would have no effect. Make two methods of them."
        section.problem("pictures", text)
    if not used:
        section.problem("name", f"the method {name!r} changes nothing; expected one or more of {', '.join(given)}.")
    section.close()
    return found


def _part(section: Section, name: str) -> Part | None:
    """A file by its name alone, or a table with `file` and `strength`."""
    if not section.has(name):
        return None
    if isinstance(section.values[name], dict):
        return _part_of(section.section(name))
    file = section.path(name, folder=None)
    return Part(file) if file else None


def _part_of(section: Section) -> Part | None:
    file = section.path("file", required=True, folder=None)
    strength = section.number("strength", 1.0, -10, 10)
    section.close()
    return Part(file, strength) if file else None


def _loras(section: Section) -> tuple[Part, ...]:
    value = section.values.get("lora")
    if not isinstance(value, list):
        found = _part(section, "lora")
        return (found,) if found else ()
    section.has("lora")
    tables = [{"file": each} if isinstance(each, str) else each for each in value]
    if not tables or not all(isinstance(each, dict) for each in tables):
        section.wrong("lora", "files, or tables with file and strength; leave the field out for none")
        return ()
    parts = (_part_of(Section(each, (*section.where, "lora", n), section.source)) for n, each in enumerate(tables))
    return tuple(part for part in parts if part)


def _made(section: Section) -> Making | None:
    """What is made: `make` and its fields beside it, or the table `erase` of a closed form."""
    if section.has("erase") and section.has("make"):
        section.problem("make", "there is a table 'erase' as well, which also makes a change; keep one of them.")
    if section.has("make"):
        method = section.choice("make", METHODS, "sage_plus")
        if section.values["make"] != method:
            section.pass_over()
            return None
        return _making(section, method, {})
    if not section.has("erase"):
        return None
    table = section.section("erase")
    method = table.choice("method", of_kind("closed form"), "uce")
    if table.values.get("method", method) != method:
        table.pass_over()
        return None
    found = _making(table, method, _knobs(table, method))
    table.close()
    return found


def _making(section: Section, method: str, knobs: dict[str, float]) -> Making:
    row, listed = METHODS[method], None
    concepts: tuple[str, ...] = ()
    guides: tuple[str, ...] = ("",)
    if isinstance(section.values.get("concepts"), str) and section.values["concepts"].endswith((".toml", ".json")):
        listed = section.path("concepts")
    else:
        concepts, guides = section.texts("concepts"), section.texts("guides", ("",), blank=True)
        if not concepts and "concepts" not in section.values:
            section.problem("concepts", "it is missing; expected what to erase, such as ['nudity'].")
        if twice := next((text for text, count in Counter(concepts).items() if count > 1), None):
            section.problem("concepts", f"it names {shown(twice)} twice; name each once.")
        if len(guides) not in (1, max(len(concepts), 1)):
            section.wrong("guides", f"one guide for all, or one for each of {len(concepts)} concepts")
    for name, read in _READ:
        if section.has(name) and read not in row.reads:
            section.problem(name, f"{method} reads none, and it would have no effect; leave it out.")
    settings, found = dict(section.section("settings").values), None
    try:
        found = settings_of(method, knobs) if knobs else settings_for(method, settings, "the table")
    except SettingsError as error:
        if not knobs:
            section.problem("settings", str(error))
    for name, read in _READ:
        if not section.has(name) and read in row.needed(found):
            section.problem(name, f"it is missing, and {method} needs it; name a file of some hundred prompts.")
    return Making(
        method=method,
        concepts=concepts,
        guides=guides,
        concept_list=listed,
        keep=section.path("keep"),
        captions=section.path("captions"),
        pairs=section.path("pairs"),
        knobs=knobs,
        settings=settings,
        strength=_strength(section),
    )


def _strength(section: Section) -> float:
    """Of a change that is made; it must be one."""
    found = section.number("strength", 1.0, -10, 10)
    if not found:
        section.wrong("strength", "a number other than 0, at which there is no change")
    return found


def _knobs(section: Section, method: str) -> dict[str, float]:
    """How a closed form's shared knobs are turned."""
    knobs: dict[str, float] = {
        name: section.whole(name, 1, 1, 1000) if name in WHOLE else section.number(name, 1, 0, 1e6)
        for name in KNOBS
        if section.has(name)
    }
    for name, value in knobs.items():
        if name not in METHODS[method].knobs:
            section.problem(name, f"{method} has no such setting; leave it out.")
        elif not value:
            section.wrong(name, "a number above 0; leave it out for the method's own")
    return knobs


def _require_different(root: Section, methods: tuple[MethodPlan, ...]) -> None:
    for place, name, other in repeats([method.name for method in methods]):
        hint = "the base is always drawn" if other == BASE else "folders and tables would mix them up"
        text = f"{name!r} is too like {other!r}, another method's name: {hint}."
        root.source.problem(("method", place - 1, "name"), text)
    if len(methods) == 1 and root.values.get("method", []) == []:
        root.has("method")
        root.problem("method", "there is no method to compare with the base; expected one or more [[method]].")
