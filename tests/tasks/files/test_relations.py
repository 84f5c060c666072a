"""Files of relations: both formats, one-line errors, and whole real files."""
import collections
import gzip
import json
import re

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files.relations import read_relations
from tests.paths import DATA, needs_data

RECORD = {"id": "a1", "docid": "d", "token": ["Ann", "-LRB-", "born", "-rrb-", "in", "New", "York"], "subj_start": 0,
          "subj_end": 0, "obj_start": 5, "obj_end": 6, "subj_type": "PERSON", "obj_type": "CITY", "relation": "born_in"}
SEMEVAL = ('1\t"A <e1>tin of <b>fish</b></e1>-like \\"food\\" in the <e2>tin</e2>."\n'
           'Content-Container(e1,e2)\nComment: no\n\n'
           '23\t"The <e2>cook</e2>, his (<e1>knife</e1>)"\nInstrument-Agency(e1,e2)\nComment:\n')


def read(path, format="auto", with_labels=True):
    issues = DataIssues()
    return list(read_relations(str(path), format, issues, with_labels)), issues


def write(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def semeval(tmp_path):
    return write(tmp_path / "train.txt", SEMEVAL)


def test_fields_of_tacred(tmp_path):
    (relation,), issues = read(write(tmp_path / "train.json", [RECORD]))
    assert relation.tokens == ("Ann", "(", "born", ")", "in", "New", "York")
    assert (relation.subject, relation.object) == ((0, 0), (5, 6))
    assert (relation.subject_type, relation.object_type, relation.relation) == ("PERSON", "CITY", "born_in")
    assert (relation.id, relation.group) == ("a1", "d")
    assert relation.entities() == {"subject": {"text": "Ann", "start": 0, "end": 3},
                                   "object": {"text": "New York", "start": len("Ann ( born ) in "), "end": 24}}
    assert not issues.counts


@pytest.mark.parametrize("bracket, meant", list(zip("LRB RRB LSB RSB LCB RCB".split(), "()[]{}")))
def test_penn_treebank_brackets_are_replaced(tmp_path, bracket, meant):
    record = {**RECORD, "token": [f"-{bracket}-", f"-{bracket.lower()}-", f"x-{bracket}-", "a", "b", "c", "d"]}
    (relation,), _ = read(write(tmp_path / "train.json", [record]))
    assert relation.tokens[:3] == (meant, meant, f"x-{bracket}-")


def test_arrays_gzip_and_json_lines_give_the_same(tmp_path):
    records = [{**RECORD, "id": f"r{number}", "docid": f"d{number}"} for number in range(3)]
    found = [read(write(tmp_path / "a.json", records))[0],
             read(write(tmp_path / "a.json.gz", gzip.compress(json.dumps(records).encode())))[0],
             read(write(tmp_path / "a.txt", "\n".join(map(json.dumps, records))))[0],
             read(write(tmp_path / "b.json", "  \n" + json.dumps(records, indent=1)), "tacred")[0]]
    assert [[(one.id, one.group, one.tokens, one.relation) for one in relations] for relations in found[1:]] == [
        [(one.id, one.group, one.tokens, one.relation) for one in found[0]]] * 3
    assert [one.id for one in found[0]] == ["r0", "r1", "r2"]


def test_relations_without_a_document_are_their_own_group(tmp_path):
    records = [{key: value for key, value in {**RECORD, "id": id}.items() if key != "docid"} for id in ("a", "b")]
    relations, _ = read(write(tmp_path / "train.json", records))
    assert len({relation.group for relation in relations}) == 2


def test_relation_names_are_optional_for_prediction(tmp_path):
    unnamed = {key: value for key, value in RECORD.items() if key != "relation"}
    records = [unnamed, {**unnamed, "id": "b", "relation": None}, {**RECORD, "id": "c"}]
    relations, _ = read(write(tmp_path / "test.json", records), with_labels=False)
    assert [relation.relation for relation in relations] == [None, None, "born_in"]


def test_records_of_open_nre(tmp_path):
    entities = [{"h": {"name": "Ann", "id": "Q1", "pos": h}, "t": {"name": "New York", "pos": t}, "relation": "born_in"}
                for h, t in (([0, 1], [5, 7]), ([0, 3], [15, 23]))]
    words, text = ["Ann", "(", "born", ")", "in", "New", "York"], "Ann (born), in\tNew York."
    content = "\n".join(map(json.dumps, ({"token": words} | entities[0], {"text": text} | entities[1])))
    (of_words, of_text), issues = read(write(tmp_path / "wiki.txt", content))
    assert (of_words.tokens, of_words.subject, of_words.object) == (tuple(words), (0, 0), (5, 6))
    for one in (of_words, of_text):
        assert (one.subject_type, one.object_type, one.relation) == ("", "", "born_in")
        assert [entity["text"] for entity in one.entities().values()] == ["Ann", "New York"]
    assert of_text.text == text and of_text.characters == ((0, 3), (15, 23))
    assert [one.id for one in (of_words, of_text)] == ["1", "2"] and list(issues.counts.values()) == [2]
    unlabelled = {"text": text, "subject": [0, 3], "object": [15, 23]}
    (of_text,), _ = read(write(tmp_path / "test.json", unlabelled), with_labels=False)
    assert of_text.entities()["object"]["text"] == "New York" and of_text.relation is None


def test_fields_of_semeval(semeval):
    (first, second), issues = read(semeval)
    assert first.tokens == ("A", "tin", "of", "<b>fish</b>", "-like", '\\"food\\"', "in", "the", "tin", ".")
    assert (first.subject, first.object) == ((1, 3), (8, 8))
    assert (first.id, first.relation, first.location) == ("1", "Content-Container(e1,e2)", f"{semeval}:1")
    assert second.tokens == ("The", "cook", ",", "his", "(", "knife", ")")
    assert (second.subject, second.object) == ((5, 5), (1, 1))
    assert (second.id, second.subject_type, second.object_type) == ("23", "", "")
    assert first.group != second.group
    assert not issues.counts
    assert first.entities()["subject"] == {"text": "tin of <b>fish</b>", "start": 2, "end": 20}


def test_semeval_with_carriage_returns(tmp_path, semeval):
    plain, _ = read(semeval)
    other, issues = read(write(tmp_path / "crlf.txt", SEMEVAL.replace("\n", "\r\n").encode()), "semeval")
    assert [(one.tokens, one.subject, one.object, one.relation) for one in other] == [
        (one.tokens, one.subject, one.object, one.relation) for one in plain]
    assert not issues.counts


def test_sentences_of_semeval_without_relations(tmp_path):
    text = '8001\t"The <e1>cat</e1> on the <e2>mat</e2>."\n8002\t"A <e1>b</e1> <e2>c</e2>"\n'
    relations, _ = read(write(tmp_path / "TEST_FILE.txt", text), with_labels=False)
    assert [(one.id, one.relation) for one in relations] == [("8001", None), ("8002", None)]
    with pytest.raises(UserError, match=r"TEST_FILE.txt:1: id '8001'.*no relation"):
        read(tmp_path / "TEST_FILE.txt")


def changed(**fields):
    return [{**RECORD, "id": "first"}, {**RECORD, **fields}]


def without(field):
    return [{key: value for key, value in RECORD.items() if key != field}]


@pytest.mark.parametrize("content, expected_parts", [
    (changed(subj_start=7, subj_end=7), [":2", "'a1'", "subj_start is 7", "from 0 to 6"]),
    (changed(obj_end=7), [":2", "'a1'", "obj_end 7"]),
    (changed(obj_start=-1), [":2", "'a1'", "obj_start is -1"]),
    (changed(subj_start=3, subj_end=2), [":2", "'a1'", "subj_start is 3", "subj_end 2"]),
    (changed(subj_start="0"), [":2", "'a1'", "'subj_start'", "int"]),
    (changed(token=[]), [":2", "'a1'", "'token'", "nonempty"]),
    (changed(token=["a", 1]), [":2", "'a1'", "'token'", "words"]),
    (changed(token="a b c d e f g"), [":2", "'a1'", "'token'", "list"]),
    (changed(relation=None), [":2", "'a1'", "'relation'"]),
    (changed(relation=" "), [":2", "'a1'", "name of the relation is empty"]),
    *[(without(field), [":1", "'a1'", f"'{field}'"])
      for field in ("token", "subj_start", "obj_end", "subj_type", "obj_type", "relation")],
    ([["a"]], ["record 1 is ['a']; it must be an object"]),
    (changed(h={"pos": [0, 1]}, t={"pos": [[5, 6]]}), [":2", "'a1'", "'pos' of 't' is [[5, 6]]"]),
    (changed(h={"pos": [0, 8]}, t={"pos": [5, 6]}), [":2", "'a1'", "subj_end 7"]),
    ({"P31": [RECORD]}, [":1", "'token'"]),
    ({"data": [RECORD]}, [":1", "'token'"]),
    ("[1, 2]", ["record 1 is 1; it must be an object"]),
    ('[{"id": "a1", ', ["not JSON"]),
    ('{"id": "a1"', [":1", "JSON"]),
])
def test_errors_in_tacred_are_one_line(tmp_path, content, expected_parts):
    with pytest.raises(UserError) as error:
        read(write(tmp_path / "train.json", content))
    message = str(error.value)
    assert all(part in message for part in ["train.json", *expected_parts]), message
    assert "\n" not in message


@pytest.mark.parametrize("text, expected_parts", [
    ('7\t"The <e1>cat</e1> on the mat."\nOther\n', [":1", "'7'", "<e2>words</e2>"]),
    ('7\t"A <e1>cat</e1> <e1>cat</e1> <e2>mat</e2>."\nOther\n', [":1", "'7'", "each once"]),
    ('7\t"A </e1>cat<e1> on a <e2>mat</e2>."\nOther\n', [":1", "'7'", "<e1>words</e1>"]),
    ('7\t"A <e1>cat</e1> on a <e2> </e2>."\nOther\n', [":1", "'7'", "<e2>words</e2>"]),
    ('7\t"A <e1>cat</e1> <e2>mat</e2>"\nComment:\n', [":1", "'7'", "no relation"]),
    ('7\t"A <e1>cat</e1> <e2>mat</e2>"\nOther\nAnother\n', [":3", "'Another'"]),
    ('word\tO\n', [":1", "'word\\tO'", "SemEval"]),
])
def test_errors_in_semeval_are_one_line(tmp_path, text, expected_parts):
    with pytest.raises(UserError) as error:
        read(write(tmp_path / "train.txt", text))
    message = str(error.value)
    assert all(part in message for part in ["train.txt", *expected_parts]), message
    assert "\n" not in message


def test_a_given_format_is_not_detected(tmp_path, semeval):
    with pytest.raises(UserError, match="not JSON"):
        read(semeval, "tacred")
    with pytest.raises(UserError, match="not a line of SemEval"):
        read(write(tmp_path / "train.json", [RECORD]), "semeval")


@pytest.mark.parametrize("content", [None, gzip.compress(b"[" + b" " * 10_000, mtime=0)[:-20]])
def test_files_that_cannot_be_read(tmp_path, content):
    if content:
        write(tmp_path / "gone.json", content)
    with pytest.raises(UserError, match="gone.json: (cannot be read|broken compressed data)"):
        read(tmp_path / "gone.json")


def test_repeated_and_missing_ids_are_numbered_and_counted(tmp_path):
    records = [RECORD, {**RECORD, "id": "b"}, RECORD, {**RECORD, "relation": "other"}, {**RECORD, "id": "a1-2"},
               *without("id"), {**RECORD, "id": None}]
    for content in (records, "\n".join(map(json.dumps, records))):
        relations, issues = read(write(tmp_path / "train.json", content))
        assert [relation.id for relation in relations] == ["a1", "b", "a1-2", "a1-3", "a1-2-2", "6", "7"]
        assert [relation.relation for relation in relations] == ["born_in"] * 3 + ["other"] + ["born_in"] * 3
        assert issues.counts == {"examples with the id of an earlier one, numbered": 3,
                                 "relations without an id, which get the number of their record": 2}
    assert issues.places["examples with the id of an earlier one, numbered"][0].endswith(":3 (id a1 is a1-2)")


def test_repeats_of_a_relation_without_a_document_are_of_one_group(tmp_path):
    relations, _ = read(write(tmp_path / "train.json", without("docid") * 2))
    assert relations[0].group == relations[1].group
    twice, _ = read(write(tmp_path / "train.txt", '7\t"A <e1>cat</e1> <e2>mat</e2>"\nOther\n\n' * 2))
    assert [relation.id for relation in twice] == ["7", "7-2"] and twice[0].group == twice[1].group


def test_overlapping_entities_are_kept_and_counted(tmp_path):
    spans = [(0, 1, 1, 2), (1, 2, 0, 1), (0, 6, 3, 3), (0, 0, 1, 1), (5, 6, 3, 4)]
    records = [{**RECORD, "id": str(number), **dict(zip(("subj_start", "subj_end", "obj_start", "obj_end"), span))}
               for number, span in enumerate(spans)]
    relations, issues = read(write(tmp_path / "train.json", records))
    assert len(relations) == 5 and issues.counts == {"relations whose entities overlap": 3}


def test_lone_surrogates_are_replaced_and_counted(tmp_path):
    record = {**RECORD, "token": ["\ud800a", *RECORD["token"][1:]]}
    (relation,), issues = read(write(tmp_path / "train.jsonl", record))
    assert relation.tokens[0] == "\ufffda" and sum(issues.counts.values()) == 1


@needs_data
def test_a_whole_real_file_of_tacred():
    path = DATA / "re" / "redocred-tacred-style-train.json.gz"
    with gzip.open(path) as stream:
        records = json.load(stream)
    relations, issues = read(path)
    assert issues.counts == {"examples with the id of an earlier one, numbered": 90}
    assert len({relation.id for relation in relations}) == len(records) == 16_326
    for relation, record in zip(relations, records, strict=True):
        assert relation.tokens == tuple(record["token"]) and relation.relation == record["relation"]
        assert relation.subject == (record["subj_start"], record["subj_end"])
        assert relation.object_type == record["obj_type"] and relation.group == record["docid"]


@needs_data
def test_a_whole_real_file_of_semeval():
    path = DATA / "re" / "semeval2010-task8-TRAIN_FILE.TXT"
    text = path.read_text()
    relations, issues = read(path)
    assert [relation.id for relation in relations] == [str(number) for number in range(1, 8001)]
    assert not issues.counts
    named = re.findall(r"^(?:Other|[A-Z]\w+-[A-Z]\w+\(e[12],e[12]\))$", text, re.MULTILINE)
    assert collections.Counter(relation.relation for relation in relations) == collections.Counter(named)
    tagged = re.findall(r'^\d+\t"(.*)"$', text, re.MULTILINE)
    for name, span in (("e1", "subject"), ("e2", "object")):
        meant = re.findall(rf'^\d+\t".*<{name}>(.*)</{name}>.*"$', text, re.MULTILINE)
        for relation, sentence, words in zip(relations, tagged, meant, strict=True):
            entity, plain = relation.entities()[span], re.sub(r"</?e[12]>", "", sentence)
            assert entity["text"] == words == plain[entity["start"]:entity["end"]]
        ends = [(relation, getattr(relation, span)) for relation in relations]
        assert [" ".join(relation.tokens[first:last + 1]) for relation, (first, last) in ends] == meant


@needs_data
def test_a_real_file_in_another_format():
    with pytest.raises(UserError, match=r"fewrel-val_wiki-16rel.json.gz:1: .* no field 'token'"):
        read(DATA / "re" / "fewrel-val_wiki-16rel.json.gz")
