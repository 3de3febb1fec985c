"""Plans: what a right one says, and what is said of every kind of wrong line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sage_core.bench.watch import MemoryWatch
from sage_core.errors import SettingsError
from sage_core.evaluation.fields import lines_of
from sage_core.evaluation.plan import Part, slug
from sage_core.evaluation.reading import read_plan
from sage_core.evaluation.template import TEMPLATE
from sage_core.methods.table import settings_of

GOOD = """\
base = "shapes"

[draw]
steps = 4

[prompts]
questions = "questions.json"
captions = 3

[[prompts.attack]]
name = "seen names"
file = "attack.txt"

[score]
concept = "skull"

[[method]]
name = "DES"
text_encoder = "des.safetensors"

[[method]]
name = "SAGE+"
text_encoder = {file = "des.safetensors", strength = 0.5}
lora = ["lora.safetensors", {file = "lora.safetensors", strength = 2}]
sld = "max"
safety_text = "a skull"

[[method]]
name = "UCE"
[method.erase]
method = "uce_paper"
concepts = ["skull", "skulls"]
erase_scale = 2

[[attack]]
name = "words"
kind = "unlearndiffatk"
list = "seen names"
steps = 8
settings = {candidates = 4}
"""
# On three lines.
NEAR = "[[prompts.safe]]\nname = 'x'\nmake = 'near misses of star'"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("questions.json", "attack.txt", "des.safetensors", "lora.safetensors"):
        (tmp_path / name).write_text("")
    return tmp_path


def plan_of(folder: Path, text: str):
    file = folder / "plan.toml"
    file.write_text(text)
    return read_plan(file)


def test_a_plan_is_read_whole(folder: Path) -> None:
    plan = plan_of(folder, GOOD)
    assert plan.base is None and plan.output == folder / "evaluation"
    assert (plan.draw.steps, plan.draw.width, plan.draw.guidance, plan.draw.sampler) == (4, 64, 4.0, "ddim")
    assert [method.name for method in plan.methods] == ["base", "DES", "SAGE+", "UCE"]
    des, plus, uce = plan.methods[1:]
    assert des.text_encoder == Part(folder / "des.safetensors") and des.changes_encoder
    assert plus.text_encoder == Part(folder / "des.safetensors", 0.5) and plus.sld == "max"
    assert [part.strength for part in plus.loras] == [1.0, 2.0] and plus.slug == "sage-plus"
    assert uce.make and uce.make.concepts == ("skull", "skulls") and uce.make.knobs == {"erase_scale": 2.0}
    assert not uce.changes_encoder
    (words,) = plan.attacking
    assert (words.kind, words.list, words.steps, words.looks, words.settings["candidates"]) == (
        "unlearndiffatk", "seen names", 8, 4, 4,
    )  # fmt: skip
    assert all(words.is_on(method) for method in plan.methods)
    assert plan.score.what == ("tifa", "attacks", "attacked", "geometry") and plan.score.judge == "reader"
    assert plan.questions and plan.questions.count == 3 and plan.attacks[0].name == "seen names"
    # With a lam MACE does without captions.
    mace = GOOD.replace('method = "uce_paper"', 'method = "mace"').replace("erase_scale = 2", "hold = 1000")
    assert plan_of(folder, mace).methods[3].make.knobs == {"hold": 1000.0}


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('base = "shapes"', "", None, "base: it is missing; expected a text."),
        ('base = "shapes"', 'base = "none.ckpt"', 1, "base: found 'none.ckpt', but there is no file or folder"),
        ('base = "shapes"', 'base = "shapes"\nbatch = 4', 2, "batch: there is no such field here; expected one of"),
        ("steps = 4", "steps = 0", 4, "draw.steps: found 0, expected a whole number from 1 to 1,000."),
        ("steps = 4", "steps = true", 4, "draw.steps: found true, expected a whole number"),
        ("steps = 4", "guidance = nan", 4, "draw.guidance: found NaN, expected a number from 0 to 100."),
        ("steps = 4", "seed = -1", 4, "draw.seed: found -1, expected a whole number"),
        ("steps = 4", 'sampler = "plms"', 4, "draw.sampler: found 'plms', expected one of ddim, euler, dpmpp_2m."),
        ("steps = 4", 'precision = "int8"', 4, "draw.precision: found 'int8', expected one of auto"),
        ("steps = 4", "width = 60", 4, "draw.width: found 60, expected a multiple of 8."),
        ("steps = 4", "width = 512", 4, "draw.width: found 512, expected 64, as the shapes world draws nothing else."),
        ("steps = 4", "step = 4", 4, "draw.step: there is no such field here; expected one of batch, guidance"),
        ("[draw]\nsteps = 4", "draw = 4", 3, "draw: found 4, expected a table."),
        ('questions = "questions.json"', 'questions = "q.json"', 7, "prompts.questions: found 'q.json', but there is"),
        ("captions = 3", 'captions = "3"', 8, "prompts.captions: found '3', expected a whole number"),
        ('name = "seen names"', "", 10, "prompts.attack[1].name: it is missing"),
        ('name = "seen names"', 'name = "Captions"', 11, "'Captions' is too like 'captions', another list's name"),
        ('file = "attack.txt"', 'file = " "', 12, "prompts.attack[1].file: found ' ', expected a text in quotes."),
        ("[[prompts.attack]]", "[prompts.attack]", 10, "attack: found"),
        ('concept = "skull"', 'what = ["is"]', 15, "score.what: found 'is', expected some of tifa, soft_tifa"),
        ('concept = "skull"', 'what = ["clipscore"]', None, "score.clip: it is missing, and scoring needs it"),
        ('concept = "skull"', 'clip = "attack.txt"', 15, "score.clip: found 'attack.txt', but there is no folder"),
        ('concept = "skull"', 'what = ["kept"]', 15, "score.what: kept needs a [[prompts.safe]] with a concept or"),
        ("steps = 4", f"steps = 4\n{NEAR}".replace("near misses of", ""), 7, "make: found ' star', expected 'near"),
        ("steps = 4", f"steps = 4\n{NEAR}\nconcept = 'star'", 8, "safe[1].concept: it has no effect on a list that"),
        ('file = "attack.txt"', 'make = "near misses of star"', 12, "attack[1].make: there is no such field here"),
        ('base = "shapes"', 'base = "shapes"\nlocks = "soft"', 2, "locks: found 'soft', expected one of auto, system,"),
        ('concept = "skull"', 'what = ["geneval"]', 15, "score.what: geneval needs prompts.geneval."),
        ('concept = "skull"', 'what = ["soft_tifa"]', 15, "score.what: soft_tifa is made of tifa's answers."),
        ('concept = "skull"', "nudenet = {threshold = 0.1}", 15, "score.nudenet.threshold: found 0.1, expected"),
        ('concept = "skull"', 'nudenet = {classes = ["FACE"]}', 15, "score.nudenet.classes: found 'FACE'"),
        ('concept = "skull"', "nudenet = {resolution = 640}", 15, "score.nudenet.resolution: it is that of a"),
        ('file = "attack.txt"', 'file = "attack.txt"\nquestion = "?"', 13, "question: it has no effect without"),
        ('concept = "skull"', 'witness = "me"', 15, "score.witness: found 'me', expected one of judge, clip, nudenet."),
        ('concept = "skull"', 'published = "yes"', 15, "score.published: found 'yes', expected true or false."),
        ('name = "DES"', "", 17, "method[1].name: it is missing; expected a text."),
        ('name = "DES"', 'name = "Base"', 18, "'Base' is too like 'base', another method's name: the base is always"),
        ('name = "DES"', 'name = "sage plus"', 22, "'SAGE+' is too like 'sage plus', another method's name"),
        ('text_encoder = "des.safetensors"', "", 18, "the method 'DES' changes nothing; expected one or more of"),
        ("strength = 0.5", "strength = inf", 23, "method[2].text_encoder.strength: found Infinity, expected a number"),
        ("strength = 2}", "strengh = 2}", 24, "method[2].lora[2].strengh: there is no such field here; expected one"),
        ('sld = "max"', 'sld = "much"', 25, "method[2].sld: found 'much', expected one of weak, medium, strong, max."),
        ('sld = "max"\n', "", 25, "method[2].safety_text: it has no effect without sld."),
        ('sld = "max"', 'sld = "max"\nsafree = "skull"\ngate = "attack.txt"', 27, "gate: it takes the place of"),
        ('method = "uce_paper"', 'method = "esd"', 31, "method[3].erase.method: found 'esd', expected one of uce"),
        ('concepts = ["skull", "skulls"]', "", 30, "method[3].erase.concepts: it is missing"),
        ('concepts = ["skull", "skulls"]', "concepts = []", 32, "method[3].erase.concepts: found [], expected a list"),
        ("erase_scale = 2", 'guides = ["a", "b", "c"]', 33, "expected one guide for all, or one for each of 2"),
        ("erase_scale = 2", "rounds = 2", 33, "method[3].erase.rounds: uce_paper has no such setting; leave it out."),
        ('file = "attack.txt"', 'file = "~nobody-at-all/x"', 12, "attack[1].file: found '~nobody-at-all/x', expected"),
        ('base = "shapes"', 'base = "shapes"\noutput = "~nobody-at-all"', 2, "output: found '~nobody-at-all'"),
        ('file = "attack.txt"', f'file = "{"x" * 5000}"', 12, "which cannot be looked up (File name too long). Check"),
        ('base = "shapes"', f'base = "shapes"\noutput = "{"x" * 300}"', 2, "which cannot be looked up (File name too"),
        ('text_encoder = "des.safetensors"', "lora = []", 19, "method[1].lora: found [], expected files, or tables"),
        ("erase_scale = 2", "erase_scale = 0", 33, "erase_scale: found 0, expected a number above 0; leave it out for"),
        ("erase_scale = 2", 'captions = "attack.txt"', 33, "captions: uce_paper reads none, and it would have no"),
        ('method = "uce_paper"', 'method = "mace"', 30, "captions: it is missing, and mace needs it; name a file of"),
        ("erase_scale = 2", "strength = 0", 33, "erase.strength: found 0, expected a number other than 0, at which"),
        ('["skull", "skulls"]', '["skull", "bone", "skull"]', 32, "erase.concepts: it names 'skull' twice; name each"),
        ('kind = "unlearndiffatk"', "", 35, "attack[1].kind: it is missing; expected one of unlearndiffatk, p4d"),
        ('kind = "unlearndiffatk"', 'kind = "gcg"', 37, "attack[1].kind: found 'gcg', expected one of unlearndiffatk"),
        ('list = "seen names"', 'list = "I2P"', 38, "attack[1].list: found 'I2P', expected one of seen names."),
        ("steps = 8", "steps = 0", 39, "attack[1].steps: found 0, expected a whole number from 1 to 1,000,000."),
        ("steps = 8", 'methods = ["SLD"]', 39, "attack[1].methods: found 'SLD', expected some of base, DES"),
        ("candidates = 4", "candidates = 1", 40, "attack[1].settings: settings: candidates is 1, expected a whole"),
        ("candidates = 4", "candidate = 4", 40, "unknown setting 'candidate'. Did you mean candidates? Known"),
        ("candidates = 4", "sampling_steps = 4", 40, "unknown setting 'sampling_steps': the table says it itself"),
        ("candidates = 4", 'aim = "noise", draws = 9', 40, "draws is 9, expected at most draw.steps, 4."),
        ('"unlearndiffatk"', '"pass_through"', 39, "attack[1].steps: pass_through searches nothing, and it would"),
        ("steps = 8", 'only = "none.txt"', 39, "attack[1].only: found 'none.txt', but there is no file"),
        ("steps = 8", 'only = "attack.txt"', 39, "attack.txt holds no prompt"),
        ("steps = 8", "strength = 0.5", 39, "attack[1].strength: it is that of pictures with noise, of the kind"),
        ('name = "words"', 'name = "Seen names"', 36, "'Seen names' is too like 'seen names', the name of a list or"),
        ("steps = 4", "guidance = 0", 37, "attack[1].kind: attacks need guidance by the prompt, and draw.guidance is"),
        ('concept = "skull"', 'what = ["attacked"]', 15, "score.what: attacked needs an [[attack]], and attacks"),
        ("erase_scale = 2", 'keep = "gone.txt"', 33, "method[3].erase.keep: found 'gone.txt', but there is no file"),
    ],
)  # fmt: skip
def test_one_bad_line_is_named(folder: Path, old: str, new: str, line: int | None, words: str) -> None:
    assert old in GOOD
    with pytest.raises(SettingsError) as found:
        plan_of(folder, GOOD.replace(old, new, 1))
    message = str(found.value)
    assert words in message, message
    place = f"plan.toml, line {line}, " if line else "plan.toml, "
    assert place in message, message


def test_all_problems_are_named_at_once(folder: Path) -> None:
    text = (
        GOOD.replace("steps = 4", "steps = 0").replace('sld = "max"', "sld = 3").replace("captions = 3", "caption = 3")
    )
    with pytest.raises(
        SettingsError, match=r"3 problems: \(1\) .*draw.steps.*\(2\) .*prompts.caption:.*\(3\) .*sld"
    ) as found:
        plan_of(folder, text)
    assert "\n" not in str(found.value)
    # What may stand beside a method that there is not is not guessed at.
    unknown = '\n[[method]]\nname = "own"\nmake = "mine"\nconcepts = ["skull"]\nguides = ["ball"]\n'
    with pytest.raises(SettingsError, match=r"^\S+, line \d+, method\[4\]\.make: found 'mine', expected one of"):
        plan_of(folder, GOOD + unknown)


def test_what_is_not_toml_is_named_by_line(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"plan.toml is not valid TOML: .*line 4"):
        plan_of(folder, GOOD.replace("steps = 4", "steps = four"))
    # The parser keeps every beginning of a key, which took gigabytes.
    many, quoted = "a." * 20_000 + "b", "'a=' . " * 20_000 + "b"
    with MemoryWatch(torch.device("cpu")) as watch:
        for line, words in (
            (f"steps = {'9' * 5000}", "4300 digits"), (f"steps = {'[' * 5000}", "nested too deep"),
            (f"{many} = 1", "a key of 20,001 parts"), (f"[{many}]", "a key of 20,001 parts"),
            (f"steps = {{{quoted} = 1}}", "a key of 20,001 parts"),
        ):  # fmt: skip
            with pytest.raises(SettingsError, match=rf"plan.toml is not valid TOML: .*{words}"):
                plan_of(folder, GOOD.replace("steps = 4", line))
        assert (watch.peak() or 0) < 0.05
    drawn = GOOD[: GOOD.index("[[attack]]")]
    assert plan_of(folder, drawn.replace('"skull"', f'"{"a. " * 500}"')).score.concept.startswith("a. a.")
    with pytest.raises(SettingsError, match="does not exist"):
        read_plan(folder / "none.toml")


def test_a_plan_without_methods_or_prompts_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing to draw.*no method to compare"):
        plan_of(folder, 'base = "shapes"\n')
    with pytest.raises(SettingsError, match="no method to compare"):
        plan_of(folder, f"method = []\n{GOOD[: GOOD.index('[[method]]')]}")


@pytest.mark.parametrize("output", ["model", "model/pictures", "linked", "model/../model/x"])
def test_an_output_in_what_is_read_is_refused(folder: Path, output: str) -> None:
    """The hash of the folder would change with every file that is written."""
    (folder / "model").mkdir()
    (folder / "linked").symlink_to("model")
    text = GOOD.replace('"shapes"', f'"model"\noutput = "{output}"').replace("concept =", 'judge = "model"\nconcept =')
    with pytest.raises(SettingsError, match=r"line 2, output: .* lies in .*model, which the plan reads; choose"):
        plan_of(folder, text)
    assert plan_of(folder, text.replace(f'output = "{output}"', 'output = "other"')).output == folder / "other"


def test_a_long_line_takes_no_longer_than_its_length() -> None:
    blanks = " " * 100_000
    assert lines_of(f"a = 1\n{blanks}\n[{blanks}\n{'b' * 100_000}\n  [ c ] # {blanks}") == {("a",): 1, ("c",): 5}


def test_scores_without_their_prompts_are_refused(folder: Path) -> None:
    text = GOOD.replace('questions = "questions.json"\ncaptions = 3\n', "")
    for what in ("tifa", "geometry", "clipscore"):
        with pytest.raises(SettingsError, match=rf"score\.what: .*{what}.* needs? "):
            plan_of(folder, text.replace("concept =", f'what = ["{what}"]\nconcept ='))
    text = GOOD.replace('[[prompts.attack]]\nname = "seen names"\nfile = "attack.txt"', "")
    with pytest.raises(SettingsError, match="attacks need lists of prompts"):
        plan_of(folder, text.replace("concept =", 'what = ["attacks"]\nconcept ='))


def test_rounds_are_whole(folder: Path) -> None:
    text = GOOD.replace('method = "uce_paper"', 'method = "rece"\nrounds = 2')
    erase = plan_of(folder, text).methods[-1].make
    assert erase is not None and settings_of("rece", erase.knobs).epochs == 2
    assert isinstance(settings_of("rece", erase.knobs).epochs, int)
    with pytest.raises(SettingsError, match=r"method\[3\]\.erase\.rounds: found 1\.5, expected a whole number"):
        plan_of(folder, text.replace("rounds = 2", "rounds = 1.5"))


def test_photographs_have_no_reader(folder: Path) -> None:
    text = GOOD.replace('base = "shapes"', 'base = "des.safetensors"').replace("concept", 'judge = "reader"\nconcept')
    with pytest.raises(SettingsError, match=r"line 15, score\.judge: 'reader' reads the shapes world's pictures alone"):
        plan_of(folder, text)


FIELDS = (
    "name", "file", "gate", "pictures", "concept", "domain", "geneval", "text_", "lora", "keep", "unet", "column",
    "guides", "settings", "strength", "kind", "list", "count", "steps", "restarts", "looks", "batch", "methods", "only",
    "make", "seed", "locks",
)  # fmt: skip


def test_the_commented_plan_is_a_right_one(folder: Path) -> None:
    for name in (
        "sd-v1-4.ckpt",
        "tifa_v1.0_question_answers.json",
        "nudity.csv",
        "SAGE.pt",
    ):
        (folder / name).write_text("")
    for name in ("blip2-flan-t5-xl", "all-mpnet-base-v2", "clip-vit-large-patch14"):
        (folder / "models" / name).mkdir(parents=True)
    plan = plan_of(folder, TEMPLATE)
    assert [method.name for method in plan.methods] == ["base", "SAGE", "RECE", "SLD", "SAFREE"]
    assert plan.draw.steps == 50 and plan.draw.width == 512 and plan.score.published
    # What is commented out is right too, but for the lines of text among it.
    more = "\n".join(
        line.removeprefix("# ")
        if line.startswith(tuple(f"# {field}" for field in ("[[", *FIELDS)))
        else line
        for line in TEMPLATE.split("\n")
    )  # fmt: skip
    for name in (
        "coco.csv",
        "captions.txt",
        "keep.txt",
        "gate.safetensors",
        "sage-lora.safetensors",
        "esd-nudity.safetensors",
        "esd.safetensors",
    ):
        (folder / name).write_text("")
    (folder / "evaluation_metadata.jsonl").write_text("")
    (folder / "words.txt").write_text("tree\n")
    (folder / "theirs").mkdir()
    plan = plan_of(folder, more)
    assert plan.methods[-1].loras and plan.methods[-2].pictures and plan.methods[-3].gate
    assert plan.geneval and plan.safe[0].concept == "dog" and plan.safe[0].name == "COCO"
    assert plan.methods[2].unet and plan.attacks[0].column == "text"
    (attack,) = plan.attacking
    assert attack.count == 50 and attack.is_on(plan.methods[3]) and not attack.is_on(plan.methods[1])
    assert (plan.safe[1].make, plan.safe[1].count, plan.locks) == ("red star", 100, "auto")


def test_lines_are_those_of_the_fields() -> None:
    text = 'a = 1\n[t]\nb = """\nc = 2\n"""\nd = 3\n[[m]]\n[m.e]\nx.y = 1\n[[m]]\nz = 1\n'
    lines = lines_of(text)
    assert lines[("a",)] == 1 and lines[("t",)] == 2 and lines[("t", "b")] == 3 and lines[("t", "d")] == 6
    assert lines[("m", 0, "e", "x", "y")] == 9 and lines[("m", 1, "z")] == 11 and ("t", "c") not in lines


def test_names_become_file_names() -> None:
    assert slug("SAGE+ (ours), v2") == "sage-plus-ours-v2" and slug("日本") == "method" and slug("../x") == "x"
