"""Questions about long texts: as long as asked, answered by the text, the same for the same names."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from tasks.made import ROWS, write_jsonl

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RETRIEVED, GeneratorConfig, TaskConfig
from seer_ray.tasks.datasets import load_problems
from seer_ray.tasks.generators import generate
from seer_ray.tasks.graders import make_grader
from seer_ray.tasks.retrieval import WORDS, Texts

NAMES = [name for name in RETRIEVED if name != "documents"]


def made(name, length=1500, difficulty=1, index=0, seed=0, texts=WORDS):
    config = GeneratorConfig(name, length=length, difficulty=difficulty)
    return generate(config, index, seed, texts)


def numbers_of(text, keys):
    """Of a needle problem, by rereading its text."""
    said = re.findall(r"magic numbers for (\S+) is: (\d+)\.", text)
    return {value for key, value in said if key in keys}


def solve(name, problem):
    text, asked = problem.document, problem.question.rpartition("\n")[2]
    if name.startswith("needle"):
        return numbers_of(text, re.findall(r"[a-z]+-[a-z]+(?:-\d+)?", asked))
    if name == "tracking":
        values = {}
        for target, value in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", text):
            values[target] = values.get(value, value)  # assigned before it is read
        wanted = re.search(r"the value (\d+)", asked)[1]
        return {target for target, value in values.items() if value == wanted}
    words = re.findall(r"\d+\. (\S+)", text) if name == "common_words" else text.split()
    ranked = Counter(words).most_common()
    count = 10 if name == "common_words" else 3
    assert ranked[count - 1][1] > ranked[count][1]  # the answer is not a matter of taste
    return {word for word, _ in ranked[:count]}


@pytest.mark.parametrize("difficulty", [1, 3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_the_text_gives_the_answer(name, difficulty):
    for index in range(3):
        problem = made(name, difficulty=difficulty, index=index)
        answers = json.loads(problem.answer)
        assert solve(name, problem) == set(answers) and len(set(answers)) == len(answers)
        assert problem == made(name, difficulty=difficulty, index=index)
        assert problem.question.count(problem.document) == 1
        grade = make_grader("contains_all")(f"They are {', '.join(answers)}.", problem.answer)
        assert (grade.correct, grade.score) == (True, 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_length_is_filled_by_words_or_by_any_other_measure(name):
    for measure in (WORDS.measure, lambda text: len(text) // 3):
        for length in (2500, 6000):
            problem = made(name, length, texts=Texts(measure))
            assert 0.97 * length < measure(problem.question) <= length


def test_other_seeds_indices_and_difficulties_are_other_problems():
    for name in NAMES:
        found = [made(name, 800, d, i, s) for d in (1, 2) for i in (0, 1) for s in (0, 1)]
        assert len({p.question for p in found}) == len({p.id for p in found}) == 8


def test_needles_lie_anywhere():
    places = [
        (p := made("needle", 800, index=index)).document.index("magic") / len(p.document)
        for index in range(40)
    ]
    assert min(places) < 0.15 and max(places) > 0.85 and 0.35 < sum(places) / 40 < 0.65


def test_a_text_that_cannot_be_so_short_says_how_short_it_can_be():
    with pytest.raises(
        ConfigError, match=r"task.generator.length=20: the shortest needle .* has (\d+) words"
    ):
        made("needle", 20)


def test_documents_are_asked_about_among_others(tmp_path):
    rows = [
        {
            "document": f"Town {i} has {i + 50} streets.",
            "question": f"Streets of {i}?",
            "answer": [str(i + 50)],
        }
        for i in range(30)
    ]
    generator = GeneratorConfig("documents", length=120, documents=write_jsonl(tmp_path / "d.jsonl", rows))
    task = TaskConfig(generator=generator, grader="contains_any", limit=5)
    problems = load_problems(task)
    for index, problem in enumerate(problems):
        text = problem.messages[0]["content"]
        assert rows[index]["document"] in text and f"Question: Streets of {index}?" in text
        assert json.loads(problem.answer) == [str(index + 50)]
        assert 100 < len(text.split()) <= 120
        document = text[problem.document.start : problem.document.end]
        assert document.startswith("Document 1:") and document.endswith("streets.")


def test_documents_must_be_named_and_have_their_columns(tmp_path):
    with pytest.raises(ConfigError, match=r"task.generator.documents: name the documents"):
        load_problems(TaskConfig(generator=GeneratorConfig("documents")))
    path = write_jsonl(tmp_path / "d.jsonl", ROWS)
    with pytest.raises(ConfigError, match=r"no column 'document' in .*d.jsonl:1"):
        load_problems(TaskConfig(generator=GeneratorConfig("documents", documents=path)))
    with pytest.raises(ConfigError, match=r"means nothing with task.generator.name=needle"):
        load_problems(TaskConfig(generator=GeneratorConfig("needle", documents=path)))


@pytest.mark.parametrize(
    ("grader", "text", "answer", "correct", "score"),
    [
        ("contains_all", "It is 12 and 34.", '["12", "34"]', True, 1.0),
        ("contains_all", "It is 12.", '["12", "34"]', False, 0.5),
        ("contains_all", "paris", "Paris", True, 1.0),
        ("contains_any", "I think Rome", '["Paris", "rome"]', True, 1.0),
        ("contains_any", "no idea", '["Paris", "rome"]', False, 0.0),
        ("f1", "The Eiffel tower!", '["an Eiffel Tower", "tower"]', True, 1.0),
        ("f1", "the big tower", "Eiffel tower", False, 0.5),
        ("f1", "", "Eiffel tower", False, 0.0),
        ("f1", "große Straße", "Straße", False, 2 / 3),
        ("rouge_l", "police killed the gunman", "police kill the gunman", None, 0.75),
        ("rouge_l", "", "a summary", None, 0.0),
        ("contains_all", "[1, 2]", "[1, 2]", True, 1.0),
    ],
)
def test_scores(grader, text, answer, correct, score):
    grade = make_grader(grader)(text, answer)
    assert grade.correct is correct and grade.score == pytest.approx(score)
    assert make_grader(grader)(text, None).score is None


def test_several_references_stay_apart(tmp_path):
    rows = [{"question": "Where?", "answer": ["Paris, France", "France"]}]
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    problem = load_problems(TaskConfig(data=path, grader="f1"))[0]
    assert json.loads(problem.answer) == ["Paris, France", "France"]
    assert load_problems(TaskConfig(data=path, grader="exact"))[0].answer == "Paris, France, France"
