"""Reads a list of concepts from a small TOML or JSON file that a person wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import PromptError
from ..rows import parse_json, parse_toml, read_text, shown, text_problem
from .concepts import Concept, ConceptList
from .minors import without_minors
from .pairs import DEFAULT_TEMPLATES, read_prompts

# What a file of concepts can end in.
CONCEPT_SUFFIXES = (".toml", ".json")
# How messages call a list that comes from no file.
_TYPED = "The list of concepts"
_TEXTS = ("name", "direction", "becomes")
_LISTS = ("names", "unseen", "near", "templates", "unsafe")
# Those that a written list holds; `unsafe` names files.
_WRITTEN_LISTS = tuple(name for name in _LISTS if name != "unsafe")
_WAY = 'TOML has a [[concepts]] for each, JSON {"concepts": [{"name": "skull"}]}'


def read_concepts(path: str | os.PathLike[str]) -> ConceptList:
    """The concepts of a file, with the prompts of the files that it names in `unsafe`.

    Each concept has a `name` and may have `names`, `unseen`, `near`, `templates`, `direction`, `becomes`, as `Concept`
    says, and `unsafe`: one or more names of prompt files, which lie in the folder of this file or below it. TOML needs
    Python 3.11 or the package tomli.

    Raises:
        PromptError: a file cannot be read, or holds what a concept cannot have; the message names file, concept, field
            and value.
    """
    file = Path(path)
    text, notes = _text(file)
    return _listed(str(file), file.parent, _content(str(file), text, file.suffix.lower()), notes)


def parse_concepts(text: str, folder: str | os.PathLike[str]) -> ConceptList:
    """The concepts of a text as `read_concepts` reads them from a file; `unsafe` names files in `folder`.

    Raises:
        PromptError: as by `read_concepts`.
    """
    return _listed(_TYPED, Path(folder), _content(_TYPED, text, _suffix_of(text)), ())


def concept_files(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """A file of concepts and the prompt files that it names, as `read_concepts` would read them.

    Raises:
        PromptError: the file cannot be read, or a name in it leads out of its folder.
    """
    file = Path(path)
    content = _content(str(file), _text(file)[0], file.suffix.lower())
    return (file, *_named(str(file), file.parent, content))


def named_files(text: str, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The prompt files that a text names, as `parse_concepts` would read them; raises PromptError as it does."""
    return _named(_TYPED, Path(folder), _content(_TYPED, text, _suffix_of(text)))


def concepts_text(concepts: ConceptList) -> str:
    """A list of concepts as a text that `parse_concepts` and `read_concepts` (.toml) read.

    Unsafe prompts of a concept's own are not in it, since a list names their files.
    """
    return "\n".join(map(_as_toml, concepts))


def _as_toml(concept: Concept) -> str:
    written = ("name", "direction", "becomes", *_WRITTEN_LISTS)
    fields: dict[str, Any] = {name: getattr(concept, name) for name in written}
    if concept.templates == DEFAULT_TEMPLATES:
        del fields["templates"]
    lines = (f"{name} = {_quoted(value)}" for name, value in fields.items() if value)
    return "\n".join(("[[concepts]]", *lines, ""))


def _quoted(value: str | tuple[str, ...]) -> str:
    """A text or a list of texts in TOML, whose basic strings are those of JSON."""
    return json.dumps(value if isinstance(value, str) else list(value), ensure_ascii=False)


def _named(source: str, folder: Path, content: list[Any]) -> tuple[Path, ...]:
    named: list[Path] = []
    for number, values in enumerate(content, 1):
        where = _where(source, number, values)
        named += _prompt_files(folder, where, _fields(where, values))
    return tuple(dict.fromkeys(named))


def _listed(source: str, folder: Path, content: list[Any], notes: tuple[str, ...]) -> ConceptList:
    concepts = []
    for number, values in enumerate(content, 1):
        where = _where(source, number, values)
        fields = _fields(where, values)
        prompts: list[str] = []
        for prompt_file in _prompt_files(folder, where, fields):
            found, more = _unsafe(prompt_file, where)
            prompts += found
            notes += more
        try:
            concepts.append(Concept(**fields | {"unsafe": tuple(dict.fromkeys(prompts))}))
        except PromptError as error:
            raise PromptError(f"{source}, concept {number}: {error}") from error
    try:
        return ConceptList(tuple(concepts), notes)
    except PromptError as error:
        raise PromptError(f"{source}: {error}") from error


def _text(file: Path) -> tuple[str, tuple[str, ...]]:
    if file.suffix.lower() not in CONCEPT_SUFFIXES:
        raise PromptError(f"{file} has the suffix '{file.suffix}', expected {' or '.join(CONCEPT_SUFFIXES)}.")
    return read_text(file, PromptError)


def _suffix_of(text: str) -> str:
    """What a typed text is written in: TOML begins with a bracket, too, but never with one around a brace or text."""
    start = text.lstrip()
    return ".toml" if start.startswith("[[") or not start.startswith(("{", "[")) else ".json"


def _content(source: str, text: str, suffix: str) -> list[Any]:
    """The list of concepts as it is written."""
    try:
        content = parse_toml(text) if suffix == ".toml" else parse_json(text)
    except ValueError as error:
        raise PromptError(f"{source} cannot be read: {error}. {_WAY}.") from error
    except ImportError as error:
        raise PromptError(
            f"{source}: TOML needs Python 3.11 or the package tomli. Write the same as JSON: {_WAY}."
        ) from error
    if isinstance(content, dict):
        if unknown := sorted(set(content) - {"concepts"}):
            raise PromptError(f"{source} holds {shown(unknown[0])}; expected 'concepts' alone. {_WAY}.")
        content = content.get("concepts", [])
    if not isinstance(content, list):
        raise PromptError(f"{source}: 'concepts' is {shown(content)}, expected a list. {_WAY}.")
    if not content:
        raise PromptError(f"{source} holds no concept. {_WAY}.")
    return content


def _where(source: str, number: int, values: Any) -> str:
    name = values.get("name") if isinstance(values, dict) else None
    return f"{source}, concept {number}" + (f" ({shown(name)})" if isinstance(name, str) else "")


def _fields(where: str, values: Any) -> dict[str, Any]:
    """The fields of one concept, of the right types; `unsafe` are names of files."""
    if not isinstance(values, dict):
        raise PromptError(f"{where} is {shown(values)}, expected its fields. {_WAY}.")
    if unknown := [name for name in values if name not in (*_TEXTS, *_LISTS)]:
        known = ", ".join((*_TEXTS, *_LISTS))
        raise PromptError(f"{where}: there is no field {shown(unknown[0])}. Known fields: {known}.")
    if "name" not in values:
        raise PromptError(f"{where} lacks 'name'; expected what it is called, such as 'nudity'.")
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if name in _LISTS:
            value = [value] if isinstance(value, str) else value
            if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
                raise PromptError(f"{where}: '{name}' is {shown(value)}, expected a text or a list of texts.")
            fields[name] = tuple(value)
        elif not isinstance(value, str) or not value.strip():
            way = "a text, such as 'nudity'." if name == "name" else "a text. Leave it out for none."
            raise PromptError(f"{where}: '{name}' is {shown(value)}, expected {way}")
        else:
            fields[name] = value
    return fields


def _prompt_files(folder: Path, where: str, fields: Mapping[str, Any]) -> list[Path]:
    root = os.path.abspath(folder)
    found = []
    for name in fields.get("unsafe", ()):
        if problem := text_problem(name):
            raise PromptError(f"{where}: 'unsafe' holds {problem}.")
        # A list of concepts that came from elsewhere must not read any file of this machine. Links are the user's own.
        path = os.path.abspath(os.path.join(root, name))
        if not path.startswith(os.path.join(root, "")):
            raise PromptError(
                f"{where}: 'unsafe' is {shown(name)}, which lies outside of the list's folder. Put the file into "
                f"{root}, and give its name alone."
            )
        found.append(Path(path))
    return found


def _unsafe(path: Path, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The unsafe prompts of a file that may be used, and what to say of the others."""
    try:
        prompts, report = read_prompts(path)
    except PromptError as error:
        raise PromptError(f"{where}, 'unsafe': {error}") from error
    kept, left_out = without_minors(prompts)
    if not kept:
        raise PromptError(f"{where}, 'unsafe': every prompt of {path.name} refers or may refer to a minor.")
    notes = [f"{path.name}: {report.summary()}"] if report.skipped or report.notes else []
    if left_out:
        notes.append(f"Skipped in {path.name}: {left_out:,} x refers to a minor.")
    return tuple(prompts[place] for place in kept), tuple(notes)
