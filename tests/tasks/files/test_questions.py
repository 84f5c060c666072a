"""Files of questions: formats, positions of answers, and one-line errors."""
import gzip
import json
import pathlib
import re

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import questions as files
from spanbert_jax.tasks.files.questions import read_questions
from tests.paths import DATA, needs_data

CONTEXT = "The cat sat on the mat. A cat and a dog sat there."


def squad(tmp_path, *questions, context=CONTEXT, title="Cats"):
    """A file with one article of one paragraph."""
    path = tmp_path / "squad.json"
    article = {"title": title, "paragraphs": [{"context": context, "qas": list(questions)}]}
    path.write_text(json.dumps({"version": "1.1", "data": [article]}))
    return str(path)


def qa(name, *answers, **fields):
    return {"id": name, "question": "Who?", **fields,
            "answers": [{"text": text, "answer_start": start} for text, start in answers]}


def lines(tmp_path, *records, name="questions.jsonl"):
    path = tmp_path / name
    opened = gzip.open(path, "wt") if name.endswith(".gz") else open(path, "w")
    with opened as stream:
        stream.write("".join(record if isinstance(record, str) else json.dumps(record) + "\n" for record in records))
    return str(path)


def read(path, with_labels=True):
    issues = DataIssues()
    return list(read_questions(path, issues, with_labels)), issues


@needs_data
@pytest.mark.parametrize("name", ["squad-v1.1-train.json", "squad-v2.0-train.json", "xquad.de.json", "xquad.zh.json",
                                  "cmrc2018-zh-train.json"])
def test_real_files_equal_their_json(name):
    questions, issues = read(str(DATA / name))
    articles = json.loads((DATA / name).read_text())["data"]
    # XQuAD and CMRC have their titles behind the paragraphs, where they are not known in time.
    groups = [article["title"] if next(iter(article)) == "title" else str(number)
              for number, article in enumerate(articles, 1)]
    expected = [(record, paragraph, group) for article, group in zip(articles, groups)
                for paragraph in article["paragraphs"] for record in paragraph["qas"]]
    assert not issues.counts and len(questions) == len(expected)
    for question, (record, paragraph, group) in zip(questions, expected):
        assert (question.id, question.group) == (record["id"], group)
        assert (question.question, question.context) == (record["question"], paragraph["context"])
        assert question.answers == tuple((answer["text"], answer["answer_start"]) for answer in record["answers"])
        assert question.gold == tuple(answer["text"] for answer in record["answers"])
        assert question.impossible == record.get("is_impossible", False)
        assert all(question.context.startswith(text, start) for text, start in question.answers)


@needs_data
def test_articles_are_read_one_at_a_time(tmp_path):
    """The first article is available before the rest is parsed."""
    text = (DATA / "squad-v1.1-train.json").read_text()
    path = tmp_path / "cut.json"
    path.write_text(text[:len(text) // 2])
    questions, count = read_questions(str(path), DataIssues()), 0
    with pytest.raises(UserError, match="cut.json: not JSON"):
        for _question in questions:
            count += 1
    assert count > 2_000


def test_articles_without_a_title_are_grouped_by_number(tmp_path):
    path = tmp_path / "untitled.json"
    first, second = ([{"context": CONTEXT, "qas": [qa(name, ("cat", 4))]}] for name in "ab")
    path.write_text(json.dumps({"data": [{"paragraphs": first}, {"paragraphs": second, "title": ""}]}))
    questions, _ = read(str(path))
    assert [question.group for question in questions] == ["1", "2"]
    assert questions[1].location == f"{path}: article 2, paragraph 1, question 1"


def test_plausible_answers_are_ignored(tmp_path):
    record = qa("a", is_impossible=True, plausible_answers=[{"text": "cat", "answer_start": 4}])
    (question,), issues = read(squad(tmp_path, record))
    assert question.impossible and question.answers == question.gold == () and not issues.counts


@pytest.mark.parametrize("text, start, found, issue", [
    ("cat", 4, 4, None),
    ("cat", 5, 4, files.MOVED),
    ("cat", 15, 4, files.MOVED),  # 11 from the one at 4 and from the one at 26
    ("cat", 16, 26, files.MOVED),
    ("sat", 30, 40, files.MOVED),
    ("dog", 0, 36, files.MOVED),
    ("cat", -1, 4, files.OUTSIDE),
    ("cat", 10_000, 26, files.OUTSIDE),
    ("cow", 4, None, files.NOWHERE),
    ("cow", 10_000, None, files.NOWHERE),
    ("Cat", 4, None, files.NOWHERE),
    ("", 4, None, files.EMPTY),
    (" \n", 4, None, files.EMPTY)])
def test_moved_answers_use_the_nearest_occurrence(tmp_path, text, start, found, issue):
    (question,), issues = read(squad(tmp_path, qa("q7", (text, start))))
    assert question.answers == (() if found is None else ((text, found),))
    assert question.gold == (text,) and not question.impossible
    assert issues.counts == ({issue: 1} if issue else {})
    for places in issues.places.values():
        assert places == [f"{tmp_path}/squad.json: article 1, paragraph 1, question 1 (id 'q7')"]


def test_occurrences_may_overlap(tmp_path):
    (question,), _ = read(squad(tmp_path, qa("a", ("aa", 3)), context="baaabbaa"))
    assert question.answers == (("aa", 2),)


def test_a_missing_answer_keeps_the_others(tmp_path):
    (question,), issues = read(squad(tmp_path, qa("a", ("cow", 4), ("dog", 36))))
    assert question.answers == (("dog", 36),) and question.gold == ("cow", "dog")
    assert issues.counts == {files.NOWHERE: 1}


def test_impossible_questions(tmp_path):
    records = [qa("none"), qa("said", is_impossible=True), qa("both", ("cat", 4), is_impossible=True),
               {"id": "bare", "question": "Who?", "is_impossible": True}]
    questions, issues = read(squad(tmp_path, *records))
    assert all(question.impossible and question.gold == question.answers == () for question in questions)
    assert issues.counts == {files.UNANSWERED: 1, files.CONTRADICTORY: 1}
    assert "'none'" in issues.places[files.UNANSWERED][0] and "'both'" in issues.places[files.CONTRADICTORY][0]


def test_questions_without_labels(tmp_path):
    path = squad(tmp_path, {"id": "a", "question": "Who?"}, qa("b", ("cat", 4)), qa("c"))
    questions, issues = read(path, with_labels=False)
    assert [question.gold for question in questions] == [(), ("cat",), ()]
    assert not issues.counts and not any(question.impossible for question in questions)
    with pytest.raises(UserError, match=r"article 1, paragraph 1, question 1 \(id 'a'\): no field 'answers'"):
        read(path)


def test_json_lines_in_both_forms(tmp_path):
    both = {"question": "Who?", "context": CONTEXT}
    path = lines(
        tmp_path, {**both, "answers": {"text": ["cat", "dog"], "answer_start": [4, 36]}},
        "\n", {**both, "id": 7, "answers": [{"text": "mat", "answer_start": 19}]},
        {**both, "id": None, "title": "Dogs", "header": "any other field",
         "answers": {"text": [], "answer_start": []}})
    questions, issues = read(path)
    assert [question.id for question in questions] == ["1", "7", "4"]
    assert [question.answers for question in questions] == [(("cat", 4), ("dog", 36)), (("mat", 19),), ()]
    assert [question.location for question in questions] == [f"{path}:{n}" for n in (1, 3, 4)]
    assert questions[0].group == questions[1].group and questions[2].group == "Dogs"
    assert questions[2].impossible and issues.counts == {files.UNANSWERED: 1}


FLAT = [{"id": "a", "title": "Cats", "question": "Who?", "context": CONTEXT,
         "answers": {"text": ["cat"], "answer_start": [4]}},
        {"id": "b", "context": CONTEXT, "question": "Where?", "answers": [{"text": "mat", "answer_start": 19}]}]


@pytest.mark.parametrize("text", [
    json.dumps({"version": "v2", "data": FLAT}), json.dumps({"data": FLAT}, indent=1), json.dumps(FLAT),
    "".join(json.dumps(record) + "\n" for record in FLAT)], ids=["data", "indented", "array", "lines"])
@pytest.mark.parametrize("name", ["flat.json", "flat"])
def test_plain_records_in_a_json_file(tmp_path, text, name):
    (tmp_path / name).write_text(text)
    questions, issues = read(str(tmp_path / name))
    assert [(one.id, one.question, one.answers) for one in questions] == [
        ("a", "Who?", (("cat", 4),)), ("b", "Where?", (("mat", 19),))]
    assert questions[0].group == "Cats" and all(one.context == CONTEXT for one in questions) and not issues.counts
    assert [one.location for one in questions] == [f"{tmp_path / name}:{number}" for number in (1, 2)]


def test_a_single_record_and_lines_of_mrqa_in_a_json_file(tmp_path):
    (question,), _ = read(lines(tmp_path, FLAT[0], name="one.json"))
    assert question.id == "a"
    (question,), _ = read(lines(tmp_path, {"header": {"data": 1}}, mrqa(detected_answers=[]), name="mrqa.json"))
    assert question.id == "m1"


def test_squad_without_an_ending(tmp_path):
    pathlib.Path(squad(tmp_path, qa("a", ("cat", 4)))).rename(tmp_path / "squad")
    (question,), _ = read(str(tmp_path / "squad"))
    assert question.location == f"{tmp_path / 'squad'}: article 1, paragraph 1, question 1"


def test_the_context_of_a_whole_article_is_all_its_paragraphs(tmp_path):
    articles = [{"title": "Cats", "paragraphs": [
        {"context": CONTEXT, "qas": [qa("1", ("mat", 19))]}, {"context": "No question.", "qas": []},
        {"context": "A mat lay there.", "qas": [qa("2", ("mat", 2)), qa("3", is_impossible=True)]}]},
        {"title": "Dogs", "paragraphs": [{"context": "A mat.", "qas": [qa("4", ("mat", 2))]}]}]
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": articles}))
    issues = DataIssues()
    questions = list(read_questions(str(path), issues, whole_articles=True))
    assert [question.id for question in questions] == ["1", "2", "3", "4"] and not issues.counts
    whole = f"{CONTEXT}\nNo question.\nA mat lay there."
    assert [question.context for question in questions] == [whole, whole, whole, "A mat."]
    assert [question.answers for question in questions] == [
        (("mat", 19),), (("mat", whole.index("A mat") + 2),), (), (("mat", 2),)]


@needs_data
def test_whole_articles_of_real_files_contain_their_answers():
    path = str(DATA / "squad-v1.1-train.json")
    short, whole = (list(read_questions(path, DataIssues(), whole_articles=joined)) for joined in (False, True))
    assert len({question.context for question in whole}) == 34 and len(short) == len(whole)
    for one, other in zip(short, whole):
        assert (one.id, one.gold, one.group, one.location) == (other.id, other.gold, other.group, other.location)
        (text, at), (same, start) = one.answers[0], other.answers[0]
        assert text == same == other.context[start:start + len(text)]
        assert other.context[start - at:].startswith(one.context)


def test_documents_with_questions(tmp_path):
    document = {"title": "Cats", "text": CONTEXT, "questions": [
        {"id": "a", "question": "Who?", "answers": ["a cat", "dogs"], "answer_spans": [[24, 29], [34, 39]]},
        {"id": "b", "question": "Why?", "answers": ["it was tired"], "answer_spans": []}]}
    (first, second), issues = read(lines(tmp_path, document))
    assert first.answers == (("A cat", 24), ("a dog", 34)) and first.gold == ("a cat", "dogs")
    assert second.answers == () and second.gold == ("it was tired",) and not second.impossible
    assert first.group == "Cats" and issues.counts == {files.NOWHERE: 1}
    document["questions"][0]["answer_spans"] = [[1, 2, 3]]
    with pytest.raises(UserError, match=r"question 1 \(id 'a'\): field 'answer_spans' has \[1, 2, 3\]; a span is"):
        read(lines(tmp_path, document))
    unlabeled, _ = read(lines(tmp_path, {"text": CONTEXT, "questions": [{"id": "a", "question": "Who?"}]}), False)
    assert [(question.question, question.context) for question in unlabeled] == [("Who?", CONTEXT)]


def mrqa(**fields):
    return {"context": CONTEXT, "qas": [{"qid": "m1", "question": "Who?", "answers": ["The Cat", "tomcat"], **fields}]}


def test_mrqa(tmp_path):
    detected = [{"text": "dog", "char_spans": [[36, 38]]},
                {"text": "the cat", "char_spans": [[26, 28], [0, 6], [0, 6]]}]
    path = lines(tmp_path, {"header": {"dataset": "X"}}, mrqa(detected_answers=detected), name="x.jsonl.gz")
    (question,), issues = read(path)
    assert question.id == "m1" and question.location == f"{path}:2, question 1" and not issues.counts
    # Ends are inclusive; answers have the context's spelling, and only "answers" are correct texts.
    assert question.answers == (("The cat", 0), ("cat", 26), ("dog", 36))
    assert question.gold == ("The Cat", "tomcat")


@pytest.mark.parametrize("detected, found, issue", [
    ([{"text": "dog", "char_spans": [[35, 37]]}], (("dog", 36),), files.MOVED),
    ([{"text": "dog", "char_spans": [[36, 39]]}], (("dog", 36),), None),  # the space after it is no other answer
    ([{"text": "dog", "char_spans": [[900, 902]]}], (("dog", 36),), files.OUTSIDE),
    ([{"text": "dog", "char_spans": [[-14, -12]]}], (("dog", 36),), files.OUTSIDE),
    ([{"text": "cow", "char_spans": [[0, 2]]}], (), files.NOWHERE),
    ([{"text": "dog", "char_spans": []}], (), files.NOWHERE),
    ([], (), files.NOWHERE)])
def test_moved_spans_of_mrqa(tmp_path, detected, found, issue):
    (question,), issues = read(lines(tmp_path, mrqa(detected_answers=detected)))
    assert tuple((text.strip(), start) for text, start in question.answers) == found
    assert question.gold == ("The Cat", "tomcat") and not question.impossible
    assert issues.counts == ({issue: 1} if issue else {})


def test_mrqa_without_labels(tmp_path):
    path = lines(tmp_path, {"context": CONTEXT, "qas": [{"id": "a", "question": "Who?"}, mrqa()["qas"][0]]})
    questions, issues = read(path, with_labels=False)
    assert [question.gold for question in questions] == [(), ("The Cat", "tomcat")] and not issues.counts
    assert questions[0].group == questions[1].group


def test_contexts_of_mrqa_are_groups(tmp_path):
    records = [{"context": context, "qas": [{"qid": f"{number}", "question": "Who?"}]}
               for number, context in enumerate([CONTEXT, "Dogs.", CONTEXT])]
    questions, _ = read(lines(tmp_path, *records), with_labels=False)
    assert questions[0].group == questions[2].group != questions[1].group


def test_lone_surrogates_are_replaced_and_counted(tmp_path):
    """Python's JSON parser returns them, and no tokenizer accepts them. Offsets do not change."""
    path = lines(tmp_path, '{"question": "Who\\ud800?", "context": "a \\udc00 cat", '
                           '"answers": [{"text": "cat", "answer_start": 4}]}\n')
    (question,), issues = read(path)
    assert (question.question, question.context) == ("Who\ufffd?", "a \ufffd cat")
    assert question.answers == (("cat", 4),) and sum(issues.counts.values()) == 2


def test_empty_texts_are_kept(tmp_path):
    (question,), _ = read(lines(tmp_path, {"question": "", "context": ""}), with_labels=False)
    assert (question.question, question.context) == ("", "")


def test_given_questions():
    given = files.parse_question({"question": "Who?", "context": CONTEXT}, "input 3")
    assert given == files.Question("input 3", "input 3", "input 3", "Who?", CONTEXT)
    for inputs, message in (("Who?", "'Who\\?' is only a text; give 'question' and 'context'"),
                            ({"question": "Who?"}, "no field 'context'; there are 'question'"),
                            ({"question": 5, "context": ""}, "field 'question' is 5")):
        with pytest.raises(UserError, match=f"^input 3: {message}"):
            files.parse_question(inputs, "input 3")


def one(paragraphs=None, **article):
    return {"data": [{"paragraphs": [{"context": CONTEXT, "qas": [qa("a", ("cat", 4))]}]},
                     article if paragraphs is None else {"paragraphs": paragraphs}]}


@pytest.mark.parametrize("content, message", [
    (one(title="X"), "article 2: no field 'paragraphs'; is the file in another format?"),
    (one([{"context": CONTEXT}]), "article 2, paragraph 1: no field 'qas'"),
    (one([{"qas": []}]), "article 2, paragraph 1: no field 'context'"),
    (one([{"context": CONTEXT, "qas": [{"question": "Who?"}]}]), "article 2, paragraph 1, question 1: no field 'id'"),
    (one([{"context": CONTEXT, "qas": [{"id": "x7", "answers": []}]}]),
     "article 2, paragraph 1, question 1 (id 'x7'): no field 'question'"),
    (one([{"context": CONTEXT, "qas": [{"id": "x7", "question": "Who?"}]}]),
     "article 2, paragraph 1, question 1 (id 'x7'): no field 'answers'"),
    (one([{"context": CONTEXT, "qas": [{"id": "x7", "question": "Who?", "answers": [{"text": "cat"}]}]}]),
     "(id 'x7'), answer 1: no field 'answer_start'"),
    (one([{"context": CONTEXT, "qas": [qa("x7", ("cat", "4"))]}]), "(id 'x7'), answer 1: field 'answer_start' is '4'"),
    (one([{"context": CONTEXT, "qas": [qa("x7", ("cat", True))]}]), "field 'answer_start' is True"),
    (one([{"context": CONTEXT, "qas": [qa("x7", (None, 4))]}]), "(id 'x7'), answer 1: field 'text' is None"),
    (one([{"context": CONTEXT, "qas": [{"id": "x7", "question": "Who?", "answers": "cat"}]}]),
     "(id 'x7'): field 'answers' is 'cat'"),
    (one([{"context": CONTEXT, "qas": [qa("x7", is_impossible="no")]}]), "(id 'x7'): field 'is_impossible' is 'no'"),
    (one([{"context": CONTEXT, "qas": ["Who?"]}]), "paragraph 1, question 1: 'Who?' must be an object"),
    (one([{"context": 5, "qas": []}]), "article 2, paragraph 1: field 'context' is 5"),
    (one([[]]), "article 2, paragraph 1: [] must be an object"),
    ({"data": [7]}, "article 1 is not an object"),
    ({"version": "1.1"}, 'not an object with an array "data"'),
    ([7], "record 1 is 7; it must be an object")])
def test_malformed_articles(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}.*{re.escape(message)}") as caught:
        read(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("record, message", [
    ({"question": "Who?", "answers": []}, ":1: no field 'context'"),
    ({"context": CONTEXT, "answers": []}, ":1 (id '1'): no field 'question'"),
    ({"context": CONTEXT, "question": "Who?", "id": [1]}, ":1: field 'id' is [1]"),
    ({"context": CONTEXT, "question": "Who?", "answers": ["cat"]}, "answer 1: 'cat' must be an object"),
    ({"context": CONTEXT, "question": "Who?", "answers": {"text": ["cat"]}}, "answers: no field 'answer_start'"),
    ({"context": CONTEXT, "question": "Who?", "answers": {"text": ["cat"], "answer_start": [4, 5]}},
     "(id '1'): 1 answer in 'text' and 2 in 'answer_start'"),
    ({"context": CONTEXT, "question": "Who?", "answers": {"text": ["cat"], "answer_start": [4.5]}},
     "field 'answer_start' is 4.5"),
    (mrqa(), ":1, question 1 (id 'm1'): no field 'detected_answers'"),
    (mrqa(answers=[7], detected_answers=[]), "(id 'm1'): field 'answers' has 7, which is not a text"),
    (mrqa(detected_answers=[{"text": "cat"}]), "(id 'm1'), detected answer 1: no field 'char_spans'"),
    (mrqa(detected_answers=[{"text": "cat", "char_spans": [[4, 5, 6]]}]), "'char_spans' has [4, 5, 6]; a span is"),
    (mrqa(detected_answers=[{"text": "cat", "char_spans": [4, 6]}]), "'char_spans' has 4; a span is"),
    ({"context": CONTEXT, "qas": [{"question": "Who?"}]}, ":1, question 1: no field 'id'"),
    ({"qas": []}, ":1: no field 'context'"),
    ("[1, 2]\n", "record 1 is 1; it must be an object"),
    ("{\n", ":1: not a JSON line")])
def test_malformed_lines(tmp_path, record, message):
    path = lines(tmp_path, record)
    with pytest.raises(UserError, match=f"^{re.escape(path)}.*{re.escape(message)}") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_duplicate_ids(tmp_path):
    path = squad(tmp_path, qa("a", ("cat", 4)), qa("b", ("cat", 4)), qa("a", ("mat", 19)))
    with pytest.raises(UserError, match="question 3: id 'a' occurs also at .*article 1, paragraph 1, question 1;"):
        read(path)
    both = {"question": "Who?", "context": CONTEXT}
    path = lines(tmp_path, {**both, "id": "2"}, both)
    with pytest.raises(UserError, match=f"{path}:2: id '2' occurs also at {path}:1"):
        read(lines(tmp_path, {**both, "id": "2", "answers": []}, {**both, "answers": []}))
    assert len(read(path, with_labels=False)[0]) == 2  # there is no room to remember those of a file of any size


def test_ids_with_equal_hashes_are_distinct(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "hash", lambda name: 1, raising=False)
    questions, _ = read(squad(tmp_path, qa("a", ("cat", 4)), qa("b", ("cat", 4)), qa("c", ("cat", 4))))
    assert [question.id for question in questions] == ["a", "b", "c"]


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="missing.json: cannot be read"):
        read(str(tmp_path / "missing.json"))
    path = lines(tmp_path, *[mrqa(qid=number, detected_answers=[]) for number in range(50)], name="cut.jsonl.gz")
    data = open(path, "rb").read()
    open(path, "wb").write(data[:len(data) - 20])
    with pytest.raises(UserError, match="cut.jsonl.gz: broken compressed data"):
        read(path)


def test_paragraphs_are_read_one_at_a_time(tmp_path):
    """In an article that is the whole file."""
    paragraph = {"context": CONTEXT, "qas": [qa("a", ("cat", 4))]}
    text = json.dumps({"data": [{"title": "X", "paragraphs": [paragraph] * 9000}]})
    path = tmp_path / "cut.json"
    path.write_text(text[:len(text) // 2])
    assert next(read_questions(str(path), DataIssues(), with_labels=False)).group == "X"
