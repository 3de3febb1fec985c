"""Scoring against the official procedure written naively, and averages, resuming and comparing by hand."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from sage_core.errors import JudgeError, QuestionError
from sage_core.intervals import permutation_p_value
from sage_core.tifa.comparison import compare
from sage_core.tifa.evaluation import evaluate
from sage_core.tifa.judges.base import Answer
from sage_core.tifa.questions import Question
from sage_core.tifa.scoring import ScoredQuestion, TifaResult, score_answers
from sage_core.tifa.sentences import SentenceEncoder

CHOICES = ("a dog", "a cat", "the red bus", "two")


def ask(caption: str, text: str, answer: str = "a dog", element_type: str = "object") -> Question:
    return Question(caption, f"caption {caption}", text, CHOICES, answer, element_type, "dog")


class Script:
    """A judge that answers from a table and remembers what it was asked."""

    name = "script"

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def answer(self, images, questions, *, likelihoods=True, on_batch=None):
        replies = [[self.answers[q.question] for q in some] for some in questions]
        self.asked += [q.question for some in questions for q in some]
        if on_batch is not None:
            on_batch(sum(map(len, questions)))
        return replies


@pytest.fixture(scope="module")
def sentence_folder(tmp_path_factory) -> Path:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("sentences")
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a dog cat the red bus two three puppy is it"
    (folder / "vocab.txt").write_text(words.replace(" ", "\n") + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=16, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def official_choice(folder: Path, answer: str, choices: tuple[str, ...]) -> str:
    """TIFA's rule for one answer, each text embedded alone, in float64."""
    if answer in choices:
        return answer
    from transformers import AutoTokenizer, BertModel

    tokenizer, model = AutoTokenizer.from_pretrained(folder), BertModel.from_pretrained(folder).double().eval()

    def embed(text: str) -> np.ndarray:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
        mean = states.mean(0)
        return mean / np.sqrt((mean**2).sum())

    return choices[int(np.argmax([embed(choice) @ embed(answer) for choice in choices]))]


def test_answers_become_choices_by_the_official_rule(sentence_folder):
    answers = ["a dog", "A dog", "puppy", "it is a red bus", "three", "cat", "", "two two two three", "a cat "]
    questions = [ask("c", f"question {i}", CHOICES[i % 4]) for i in range(len(answers))]
    encoder = SentenceEncoder.from_folder(sentence_folder)
    encoder.texts_per_batch = 3
    scored = score_answers(["c"] * len(answers), questions, [Answer(a) for a in answers], encoder)
    expected = [official_choice(sentence_folder, answer, CHOICES) for answer in answers]
    assert [s.chosen for s in scored] == expected
    assert [s.score for s in scored] == [int(e == q.answer) for e, q in zip(expected, questions, strict=True)]
    assert len(set(expected)) > 1


def test_padding_changes_no_embedding_and_each_text_is_embedded_once(sentence_folder):
    encoder = SentenceEncoder.from_folder(sentence_folder)
    texts = ["two", "is it a red bus the dog is", "two", "a cat"]
    together = encoder.embed(texts)
    alone = torch.cat([SentenceEncoder.from_folder(sentence_folder).embed([text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    encoder.model.forward = None  # would fail if anything were embedded again
    assert torch.equal(encoder.embed(texts[::-1]), together.flip(0))


def test_sentence_encoder_survives_lack_of_memory(sentence_folder, monkeypatch):
    encoder = SentenceEncoder.from_folder(sentence_folder)
    embed, sizes = encoder._embed, []

    def small(texts):
        if len(texts) > 2:
            raise torch.cuda.OutOfMemoryError("injected")
        sizes.append(len(texts))
        return embed(texts)

    monkeypatch.setattr(encoder, "_embed", small)
    texts = ["a", "a dog", "the cat", "two", "three"]
    torch.testing.assert_close(encoder.embed(texts), SentenceEncoder.from_folder(sentence_folder).embed(texts))
    assert sum(sizes) == 5


def test_a_missing_sentence_encoder_is_named(tmp_path):
    with pytest.raises(JudgeError, match="all-mpnet-base-v2"):
        SentenceEncoder.from_folder(tmp_path)


def test_without_a_sentence_encoder_the_likeliest_choice_stands_and_the_result_says_so():
    question = ask("c", "what?")
    (scored,) = score_answers(["c"], [question], [Answer("puppy", (0.6, 0.2, 0.1, 0.1))])
    assert scored.chosen == "a dog" and scored.probability == 0.6
    result = evaluate([grey(0)], [[question]], Script({"what?": Answer("puppy", (0.6, 0.2, 0.1, 0.1))}))
    assert result.matching == "likelihood" and "matched by likelihood" in result.to_markdown()
    with pytest.raises(JudgeError, match="'puppy' to 'what\\?' is none of"):
        score_answers(["c"], [question], [Answer("puppy")])


def test_without_a_sentence_encoder_a_judge_that_sees_no_choice_is_not_right_by_luck(sentence_folder):
    asked = [ask("c", "how many?", answer) for answer in CHOICES]
    answers = [Answer("none", (0.7, 0.1, 0.1, 0.1)), Answer("a horse", (0.0, 0.0, 0.0, 0.0)), Answer("unclear"),
               Answer("a horse", (0.0, 0.0, 0.0, 0.1))]  # fmt: skip
    scored = score_answers(["c"] * 4, asked, answers)
    assert [row.chosen for row in scored] == ["none", "a horse", "unclear", "two"]
    assert [row.score for row in scored] == [0, 0, 0, 1] and scored[2].probability is None
    # With one TIFA's own rule holds for every answer.
    official = score_answers(["c"] * 4, asked, answers, SentenceEncoder.from_folder(sentence_folder))
    assert all(row.chosen in CHOICES for row in official)


def grey(level: int) -> torch.Tensor:
    return torch.full((2, 2, 3), level, dtype=torch.uint8)


def scored(caption: str, right: int, element_type: str = "object", probability: float | None = None, text: str = "q"):
    chosen = "a dog" if right else "two"
    return ScoredQuestion(caption, ask(caption, text, element_type=element_type), chosen, chosen, probability)


def by_hand(name: str = "run") -> TifaResult:
    """Caption A: 1 of 1 right. Caption B: 1 of 4. Caption C: 2 of 2."""
    rows = [
        scored("A", 1, "object", 0.9, "a1"),
        scored("B", 0, "object", 0.2, "b1"),
        scored("B", 0, "color", 0.4, "b2"),
        scored("B", 1, "color", 0.8, "b3"),
        scored("B", 0, "counting", None, "b4"),
        scored("C", 1, "color", None, "c1"),
        scored("C", 1, "counting", None, "c2"),
    ]
    return TifaResult(name, "script", "sentence embedding", tuple(rows))


def test_tifa_is_the_mean_over_captions_not_over_questions():
    result = by_hand()
    assert result.average == pytest.approx((1 + 0.25 + 1) / 3)
    assert result.average != pytest.approx(4 / 7)
    assert result.deviation == pytest.approx(statistics.stdev([1, 0.25, 1]))
    assert result.caption_scores == {"A": 1, "B": 0.25, "C": 1}


def test_types_are_means_over_questions():
    assert by_hand().by_type == pytest.approx({"object": 1 / 2, "color": 2 / 3, "counting": 1 / 2})
    assert by_hand().type_counts == {"object": 2, "color": 3, "counting": 2}
    assert list(by_hand().by_type) == ["object", "color", "counting"], "in the order of the paper's table"


def test_soft_scores_average_captions_and_skip_what_has_no_probability():
    result = by_hand()
    assert result.soft_questions == 4
    assert result.soft_arithmetic == pytest.approx((0.9 + (0.2 + 0.4 + 0.8) / 3) / 2)
    assert result.soft_geometric == pytest.approx((0.9 + (0.2 * 0.4 * 0.8) ** (1 / 3)) / 2)
    hard = TifaResult("r", "j", "m", (scored("A", 1),))
    assert hard.soft_arithmetic is None and hard.soft_geometric is None and hard.deviation is None
    sure = TifaResult(
        "r", "j", "m", (scored("A", 1, probability=0.0, text="1"), scored("A", 1, probability=1.0, text="2"))
    )
    assert sure.soft_geometric == 0 and sure.soft_arithmetic == 0.5


def test_a_run_without_questions_is_refused():
    with pytest.raises(QuestionError, match="no scored question"):
        TifaResult("r", "j", "m", ())


def test_results_are_saved():
    result = by_hand()
    value = json.loads(json.dumps(result.to_dict()))
    assert [row["question"] for row in value["questions"]] == ["a1", "b1", "b2", "b3", "b4", "c1", "c2"]
    assert value["tifa"] == result.average and value["soft_questions"] == 4
    assert value["intervals_95"]["TIFA"] == list(vars(result.intervals()["TIFA"]).values())


def test_table_holds_the_standard_deviation_and_says_what_its_intervals_are():
    table = by_hand().to_markdown()
    interval = by_hand().intervals()["TIFA"]
    low, high = 100 * interval.low, 100 * interval.high
    assert f"| TIFA (mean over captions) | 75.0 ± 43.3 | {low:.1f}-{high:.1f} | 3 |" in table
    assert "±: standard deviation over captions. Intervals: Wilson's" in table
    assert "–" not in table
    assert "soft TIFA, arithmetic (mean over captions)" in table and "GenEval 2's is over all questions." in table
    assert "GenEval" not in TifaResult("r", "j", "m", (scored("A", 1),)).to_markdown()


def test_one_caption_has_no_interval():
    """Of one caption, or of a type that only one caption has questions of, a bootstrap would print 75.0-75.0."""
    one = replace(by_hand(), questions=by_hand().questions[1:5])
    assert one.intervals() == {} and one.to_dict()["intervals_95"] == {}
    assert "| TIFA (mean over captions) | 25.0 | – | 1 |" in one.to_markdown() and "±" not in one.to_markdown()
    assert one.to_markdown().endswith("for each caption, then over captions; GenEval 2's is over all questions.")
    assert "\n\n–: fewer than two captions to tell from. Soft" in one.to_markdown()
    two = replace(by_hand(), questions=by_hand().questions[:4])
    assert set(two.intervals()) == {"TIFA", "soft arithmetic", "soft geometric", "object"}
    assert "| color | 50.0 | – | 2 |" in two.to_markdown() and "–: fewer than two" in two.to_markdown()


def test_intervals_at_the_ceiling_are_not_sold_as_certainty():
    rows = tuple(scored(name, 1, text=f"{name}{number}") for name in "ABCDEFGHIJ" for number in range(4))
    result = TifaResult("r", "j", "m", rows)
    found = result.intervals()
    # Ten captions without a mistake are ten of ten by Wilson, whatever they were asked, at Student's quantile.
    z = student.ppf(0.975, 9)
    expected = 100 * 10 / (10 + z**2)
    assert found["TIFA"] == found["object"] and found["TIFA"].high == 1
    assert f"| TIFA (mean over captions) | 100.0 ± 0.0 | {expected:.1f}-100.0 | 10 |" in result.to_markdown()


QUESTIONS = [[ask("A", "a1"), ask("A", "a2")], [ask("B", "b1")], [ask("A", "a1")]]
TABLE = {"a1": Answer("a dog", (0.7, 0.1, 0.1, 0.1)), "a2": Answer("a cat", (0.2, 0.6, 0.1, 0.1)), "b1": Answer("two")}


def test_evaluation_keeps_images_captions_and_questions_together():
    seen = []
    result = evaluate(
        [grey(0), grey(1), grey(2)], QUESTIONS, Script(TABLE), on_progress=lambda *a: seen.append(a), images_per_step=2
    )
    assert [(q.image, q.question.question, q.score) for q in result.questions] == [
        ("A", "a1", 1), ("A", "a2", 0), ("B", "b1", 0), ("A#2", "a1", 1),
    ]  # fmt: skip
    assert result.caption_scores == {"A": 2 / 3, "B": 0}
    assert seen[-1] == (4, 4)


def test_a_stopped_evaluation_goes_on_where_it_was(tmp_path):
    log = tmp_path / "log.jsonl"
    images = [grey(0), grey(1), grey(2)]

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(images, QUESTIONS, Script(TABLE), log=log, on_progress=stop, images_per_step=1)
    assert len(log.read_text().splitlines()) == 2
    with open(log, "a") as file:
        file.write('{"image": "B", "cut of')
    judge = Script(TABLE)
    result = evaluate(images, QUESTIONS, judge, log=log, images_per_step=1)
    assert judge.asked == ["b1", "a1"], "the cut line and what was not reached are asked, the rest is not"
    assert result == evaluate(images, QUESTIONS, Script(TABLE))
    assert [json.loads(line)["question"] for line in log.read_text().splitlines()] == ["a1", "a2", "b1", "a1"]
    judge = Script({})
    assert evaluate(images, QUESTIONS, judge, log=log) == result and judge.asked == []


def test_a_log_answers_for_the_same_image_and_choices_only(tmp_path):
    log = tmp_path / "log.jsonl"
    evaluate([grey(0)], [QUESTIONS[1]], Script(TABLE), log=log)
    judge = Script(TABLE)
    evaluate([grey(9)], [QUESTIONS[1]], judge, log=log)
    evaluate([grey(0)], [[replace(QUESTIONS[1][0], choices=("a dog", "two"))]], judge, log=log)
    assert judge.asked == ["b1", "b1"]


@pytest.mark.parametrize(
    ("images", "ids", "message"),
    [(2, None, "2 images came with questions about 3"), (3, ["a", "b", "a"], "3 images came with 2 different ids")],
)
def test_mismatches_are_refused(images, ids, message):
    with pytest.raises(JudgeError, match=message):
        evaluate([grey(0)] * images, QUESTIONS, Script(TABLE), image_ids=ids)


def shift(result: TifaResult, flips: set[str], name: str = "other") -> TifaResult:
    rows = tuple(
        replace(q, chosen="two" if q.score else "a dog") if q.question.question in flips else q
        for q in result.questions
    )
    return replace(result, name=name, questions=rows)


def test_comparison_by_hand():
    base = by_hand("base")
    other = shift(base, {"a1", "b2", "c1"})
    comparison = compare(base, other)
    assert comparison.tifa.change == pytest.approx((-1 + 0.25 - 0.5) / 3)
    assert {n: d.change for n, d in comparison.by_type.items()} == pytest.approx(
        {"object": -1 / 2, "color": 0, "counting": 0}
    )
    assert {q.question.question for q in comparison.lost} == {"a1", "c1"}
    assert {q.question.question for q in comparison.gained} == {"b2"}
    # Of the sign patterns of (-1, 0.25, -0.5) the observed one, (-1, -0.25, -0.5) and both mirrored reach 1.25.
    assert comparison.p_value == pytest.approx(4 / 8)
    assert comparison.tifa.interval.low <= comparison.tifa.change <= comparison.tifa.interval.high
    assert "| TIFA (mean over captions) | 75.0 | 33.3 | -41.7 |" in comparison.to_markdown()
    assert json.loads(json.dumps(comparison.to_dict()))["tifa"]["change"] == comparison.tifa.change


def test_a_run_against_itself_differs_by_nothing():
    comparison = compare(by_hand("a"), by_hand("b"))
    assert comparison.p_value == 1 and comparison.tifa.change == 0 and not comparison.lost + comparison.gained
    # Three captions without a change are no proof that there is none.
    assert comparison.tifa.interval.low < -0.5 and comparison.tifa.interval.high > 0.5


def test_a_change_that_one_caption_tells_of_has_no_interval():
    whole = by_hand("a")
    one = replace(whole, questions=tuple(q for q in whole.questions if q.question.id == whole.questions[0].question.id))
    comparison = compare(one, replace(one, name="b"))
    assert comparison.tifa.interval is None and comparison.to_dict()["tifa"]["interval_95"] is None
    assert "| +0.0 | – |" in comparison.to_markdown()


def test_only_like_runs_are_compared():
    base = by_hand("base")
    with pytest.raises(QuestionError, match="share 6 questions, but 1 are only in the first"):
        compare(base, replace(base, questions=base.questions[1:]))
    with pytest.raises(QuestionError, match="judge 'script' and 'run' 'blip'"):
        compare(base, replace(by_hand(), judge="blip"))


@pytest.mark.parametrize("n", [9, 40])
def test_permutation_test_is_scipys(n):
    from scipy import stats

    values = np.round(np.random.default_rng(n).normal(0.12, 0.4, n), 2)
    reference = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=20000, rng=2)
    found = permutation_p_value(values, resamples=20000)
    assert found == pytest.approx(reference.pvalue, abs=1e-9 if n < 13 else 0.012)
    assert permutation_p_value(values + 3) < 0.01 < permutation_p_value(values - values.mean())
