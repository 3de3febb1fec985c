"""Questions by a language model, checked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from sage_core.errors import JudgeError, QuestionError, SettingsError
from sage_core.tifa.questions import ELEMENT_TYPES
from sage_core.tifa.writing import grammars, language_model
from sage_core.tifa.writing.grammars import question_grammar, repeats
from sage_core.tifa.writing.language_model import LanguageModel
from sage_core.tifa.writing.make_questions import SMALL, make_questions, make_questions_by_rule

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
CAPTION = "two brown dogs left of a bench"
GOOD = {
    "element": "two",
    "element_type": "counting",
    "question": "how many dogs are there?",
    "choices": ["1", "2"],
    "answer": "2",
}


class Script:
    """A writer whose texts are given; it reads the answer back unless the question holds "unclear"."""

    name = "script"
    parameters = SMALL
    can_follow_grammars = False

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.seeds: list[int | None] = []
        self.grammars: list[list[str] | None] = []

    def complete(self, prompts, *, tokens=1024, seed=None, grammars=None, on_token=None):
        assert all(CAPTION in prompt or "a cat" in prompt for prompt in prompts)
        self.seeds.append(seed)
        self.grammars.append(grammars)
        if on_token is not None:
            on_token(tokens // 2, tokens)
        return [self.texts.pop(0) for _ in prompts]

    def likeliest(self, prompts, choices):
        assert all("Description: " in p and "Question: " in p for p in prompts)
        return [0 if "unclear" in p else len(some) - 1 for p, some in zip(prompts, choices, strict=True)]


def rows(*changes: dict) -> str:
    return "\n".join(json.dumps({**GOOD, **change}) for change in changes)


def test_sound_questions_are_kept_whatever_stands_around_them():
    for text in (rows({}), f"Sure! ```json\n[{rows({})}]\n``` {{not json}} Anything else?"):
        made = make_questions({"c1": CAPTION}, Script(text))
        (question,) = made.questions
        assert question.to_row() == {"id": "c1", "caption": CAPTION, **{k: GOOD[k] for k in (
            "question", "choices", "answer", "element_type", "element")}}  # fmt: skip
        assert not made.dropped and not made.without


@pytest.mark.parametrize(
    "wrapped",
    [
        '{{"questions": [{0}, {1}]}}',
        '{{"description": "dogs", "elements": {{"counting": [{0}], "other": {1}}}}}',
        '[{{"questions": [{0}]}}, {1}]',
        'Here: {{"question": {0}}} and {1}',
        '{{"questions": [{0}, {1}, {{"question": "are th',
    ],
)
def test_questions_inside_another_object_are_found(wrapped):
    other = {**GOOD, "question": "are there two dogs?", "choices": ["no", "yes"], "answer": "yes"}
    made = make_questions({"c1": CAPTION}, Script(wrapped.format(json.dumps(GOOD), json.dumps(other))))
    assert [question.question for question in made.questions] == [GOOD["question"], other["question"]]
    assert not made.dropped


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": "7"}, "not among the choices"),
        ({"element": "three"}, "element 'three' is not in the caption"),
        ({"element_type": "number"}, "element_type 'number' is unknown"),
        ({"choices": None}, "missing choices"),
        ({"question": "How many dogs are there?"}, "asked twice"),
        ({"question": "unclear?"}, "the caption alone is answered with '1', not '2'"),
        ({"question": None, "choices": [{"text": "1"}]}, "missing question, choices"),
    ],
)
def test_unsound_questions_are_dropped_and_the_reason_said(change, reason):
    made = make_questions({"c1": CAPTION}, Script(rows({}, change)))
    assert len(made.questions) == 1
    (dropped,) = made.dropped
    assert dropped.caption_id == "c1" and reason in dropped.reason and reason in made.summary()


def test_captions_without_a_sound_question_are_tried_again_with_other_numbers():
    writer = Script("I would rather not.", rows({"element": "a cat"}), "no", rows({}))
    seen = []
    made = make_questions(
        {"c1": CAPTION, "c2": "a cat"}, writer, attempts=3, seed=40, on_caption=lambda *a: seen.append(a)
    )
    assert [q.id for q in made.questions] == ["c1", "c2"] and not made.without
    assert writer.seeds == [None, 41, 42] and seen[-1] == (200, 200)
    # Half of the first batch, which holds both captions, and all of it.
    assert seen[:2] == [(99, 200), (200, 200)]


def test_what_never_succeeds_is_listed():
    made = make_questions({"c1": CAPTION}, Script("no", "no"), attempts=2)
    assert made.without == ("c1",) and len(made.dropped) == 2
    assert "1 captions without a question: c1" in made.summary()


@pytest.mark.parametrize("captions", [{}, {"c1": " "}])
def test_nothing_to_ask_about_is_refused(captions):
    with pytest.raises(QuestionError):
        make_questions(captions, Script())
    with pytest.raises(QuestionError):
        make_questions_by_rule(captions)


def test_a_way_that_does_not_exist_is_refused():
    with pytest.raises(SettingsError, match="expected 'auto', 'judge' or 'write'"):
        make_questions({"c1": CAPTION}, Script(), way="guess")
    with pytest.raises(SettingsError, match="attempts is 0"):
        make_questions({"c1": CAPTION}, Script(), attempts=0)


def test_a_large_model_writes_inside_a_grammar_where_it_can_and_the_missing_package_is_named():
    writer = Script(rows({}))
    assert "pip install llguidance" in make_questions({"c1": CAPTION}, writer).summary()
    assert writer.grammars == [None]
    writer = Script(rows({}))
    writer.can_follow_grammars = True
    assert "llguidance" not in make_questions({"c1": CAPTION}, writer).summary()
    assert writer.grammars == [[question_grammar(CAPTION)]]


@pytest.fixture(scope="module")
def language_folder(tmp_path_factory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("language")
    words = ["<unk>", "</s>", *re.findall(r"\S+", "a dog is red blue the how many two three user : answer ?")]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=len(words),
        initializer_range=0.6, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


PROMPTS = ["how many ?", "the dog is red a dog is blue :", "a", "two three two"]
CHOICES = [["a dog", "the red dog is blue"], ["two", "three"], ["red", "blue", "the"], ["dog", "is a dog"]]


@pytest.mark.parametrize("template", [None, "{% for m in messages %}user : {{ m.content }} {% endfor %}answer :"])
def test_language_model_batches_are_one_prompt_at_a_time(language_folder, template):
    model = LanguageModel.from_folder(language_folder)
    model.tokenizer.chat_template = template
    model.prompts_per_batch = 3
    texts = model.complete(PROMPTS, tokens=6)
    picked = model.likeliest(PROMPTS, CHOICES)
    for prompt, choices, text, index in zip(PROMPTS, CHOICES, texts, picked, strict=True):
        ids = model.tokenizer(f"user : {prompt} answer :" if template else prompt).input_ids
        with torch.no_grad():
            written = model.model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)[0, len(ids) :]
            assert text == model.tokenizer.decode(written, skip_special_tokens=True)
            scores = []
            for choice in choices:
                end = model.tokenizer(choice).input_ids
                logits = model.model(torch.tensor([ids + end])).logits[0].log_softmax(-1)
                scores.append(sum(logits[len(ids) - 1 + t, end[t]].item() for t in range(len(end))) / len(end))
        assert index == max(range(len(scores)), key=scores.__getitem__)
    assert len(set(texts)) > 1 and len(set(picked)) > 1


def test_language_model_sampling_repeats_with_its_seed_and_leaves_the_global_one_alone(language_folder):
    model = LanguageModel.from_folder(language_folder)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = model.complete(PROMPTS, tokens=8, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert model.complete(PROMPTS, tokens=8, seed=1) == first != model.complete(PROMPTS, tokens=8, seed=2)


INSTRUCTION = "how many ? two "
ASKED = [
    ("the dog is", (" red", " blue")),
    (" a dog :", (" red", " the red dog", " is")),
    ("two", (" two three", " a")),
    (" user :", (" a",)),
]


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("context", ["", "a red dog is "])
def test_likelihoods_are_those_of_one_whole_text_at_a_time(language_folder, monkeypatch, context, copied):
    if not copied:
        monkeypatch.setattr(language_model, "_COPIED_LAYERS", frozenset())
    model = LanguageModel.from_folder(language_folder)
    model.rows_per_batch = 3
    # Twice, as the second time the instruction is not read again.
    for _ in range(2):
        found = model.likelihoods(INSTRUCTION, context, ASKED)
        assert (next(iter(model._instructions.values())) is not None) == copied
        assert [len(row) for row in found] == [2, 3, 2, 1]
        for (question, choices), row in zip(ASKED, found, strict=True):
            start = model.tokenizer(INSTRUCTION + context + question).input_ids
            for choice, score in zip(choices, row, strict=True):
                end = model.tokenizer(choice).input_ids
                with torch.no_grad():
                    logits = model.model.double()(torch.tensor([start + end])).logits[0].log_softmax(-1)
                model.model.float()
                slow = sum(logits[len(start) - 1 + place, token].item() for place, token in enumerate(end))
                assert score == pytest.approx(slow, abs=1e-5)


def test_an_empty_question_is_refused(language_folder):
    with pytest.raises(JudgeError, match="is empty"):
        LanguageModel.from_folder(language_folder).likelihoods(INSTRUCTION, "", [("", (" a",))])


def test_what_has_been_read_for_one_instruction_is_not_taken_for_another(language_folder):
    model, fresh = (LanguageModel.from_folder(language_folder) for _ in range(2))
    model.likelihoods("a dog ", "is ", ASKED)
    assert model.likelihoods("the ", "is ", ASKED) == fresh.likelihoods("the ", "is ", ASKED)
    assert model.likelihoods("the ", "is ", ASKED) != model.likelihoods("a dog ", "is ", ASKED)


def test_a_text_that_repeats_itself_is_stopped(language_folder):
    model = LanguageModel.from_folder(language_folder)
    # Of a model that ignores all but the last word, the first choice runs in a circle.
    seen = []
    texts = model.complete(["a", "two three two"], tokens=400, on_token=lambda *a: seen.append(a))
    assert len(model.tokenizer(texts[0]).input_ids) < 200
    assert seen == [(number, 400) for number in range(1, len(seen) + 1)] and len(seen) < 200


def test_repetition_is_word_for_word_and_long():
    row = torch.arange(100)
    looped = torch.cat([row[:50], row[10:42]])
    almost = looped.clone()
    almost[60] = 7
    assert repeats(torch.stack([looped, almost, row[:82]])).tolist() == [True, False, False]
    assert repeats(torch.zeros(1, 63)).tolist() == [False] and repeats(torch.zeros(1, 64)).tolist() == [True]


def test_writing_ends_when_it_is_cancelled(language_folder):
    def cancel(written, tokens):
        if written == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LanguageModel.from_folder(language_folder).complete(["a"], tokens=400, on_token=cancel)


def test_a_grammar_without_its_package_is_refused_by_name(language_folder, monkeypatch):
    monkeypatch.setattr(grammars, "find_spec", lambda name: None)
    model = LanguageModel.from_folder(language_folder)
    assert not model.can_follow_grammars
    with pytest.raises(JudgeError, match="pip install llguidance"):
        model.complete(["a"], grammars=['start: "a"'])


@pytest.fixture(scope="module")
def byte_model() -> LanguageModel:
    """A random Llama that reads bytes, so that it can write any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: place for place, word in enumerate(["</s>", *alphabet])}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=257,
        max_position_embeddings=4096, initializer_range=0.6, eos_token_id=0, bos_token_id=None,
    )  # fmt: skip
    return LanguageModel(LlamaForCausalLM(config), tokenizer, "bytes")


CAPTIONS = {"c1": 'Two "brown" dogs, left of a bench', "c2": "a cat in a café"}


def test_all_that_is_written_inside_the_grammar_is_a_question_about_a_piece_of_the_caption(byte_model):
    pytest.importorskip("llguidance", reason="the optional package llguidance is not installed")
    rules = [question_grammar(caption) for caption in CAPTIONS.values()]
    for seed in (None, 3):
        texts = byte_model.complete(list(CAPTIONS.values()), tokens=500, seed=seed, grammars=rules)
        assert texts == byte_model.complete(list(CAPTIONS.values()), tokens=500, seed=seed, grammars=rules)
        for caption, text in zip(CAPTIONS.values(), texts, strict=True):
            *lines, last = text.split("\n")
            assert lines or last.endswith("}")
            for line in lines:
                row = json.loads(line)
                assert row["element"] in caption and row["element_type"] in ELEMENT_TYPES
                assert row["choices"] == ["yes", "no"] or len(row["choices"]) == 4
                assert row["question"].endswith("?") and len(row["question"]) < 100


def test_a_caption_without_a_word_has_no_grammar():
    with pytest.raises(JudgeError, match="holds no word"):
        question_grammar("...")


def test_a_missing_language_model_is_named(tmp_path):
    with pytest.raises(JudgeError, match="Qwen/Qwen2"):
        LanguageModel.from_folder(tmp_path / "absent")
