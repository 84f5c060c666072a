"""GLUE: small files in every official format, skipped lines, and submission files."""
import gzip
import json

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks import make_task
from spanbert_jax.tasks.files import glue
from spanbert_jax.tasks.protocol import fitted_values

PARSES = "genre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\tsentence1\tsentence2"
# Of each task: the labelled file, the file to predict, and how (id, text, second, label) read in the one and the other.
LAYOUTS = {
    "cola": ('gj04\t1\t\tOur "friends won\'t buy.\nbc01\t0\t*\tThey drank the pub.\n',
             "index\tsentence\n0\tBill left.\n",
             [("1", 'Our "friends won\'t buy.', None, "1"), ("2", "They drank the pub.", None, "0")],
             [("0", "Bill left.", None)]),
    "sst2": ("sentence\tlabel\nhide new \t0\n\" lovely\t1\n", "index\tsentence\n0\tuneasy\n1\tof \" it\n",
             [("2", "hide new ", None, "0"), ("3", '" lovely', None, "1")],
             [("0", "uneasy", None), ("1", 'of " it', None)]),
    "mrpc": ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
             "1\t70\t71\tHe said \"so .\tSo he said .\n0\t5\t6\tOne .\tTwo .\n",
             "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t10\t11\tP .\tQ .\n",
             [("2", 'He said "so .', "So he said .", "1"), ("3", "One .", "Two .", "0")], [("0", "P .", "Q .")]),
    "stsb": ("index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
             "0\tmain\tMSR\t2012\t0001\tnone\tnone\tA plane.\tAn air plane.\t5.000\n"
             "1\tmain\tMSR\t2012\t0004\tnone\tnone\tA man.\tA flute.\t1.60\n",
             "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\n"
             "0\tmain\tMSR\t2012\t0001\tnone\tnone\tA girl.\tA brush.\n",
             [("0", "A plane.", "An air plane.", 5.0), ("1", "A man.", "A flute.", 1.6)],
             [("0", "A girl.", "A brush.")]),
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
            "133273\t2\t3\tHow?\tHow so?\t0\n402555\t5\t6\tWhy?\tWhy?\t1\n",
            "id\tquestion1\tquestion2\n0\tWho?\tWhom?\n",
            [("133273", "How?", "How so?", "0"), ("402555", "Why?", "Why?", "1")], [("0", "Who?", "Whom?")]),
    "mnli": (f"index\tpromptID\tpairID\t{PARSES}\tlabel1\tlabel2\tgold_label\n"
             "0\t31\t31n\tgov\t( b1 )\t( b2 )\t( p1 )\t( p2 )\tIt rains.\tIt pours.\tentailment\tneutral\tneutral\n"
             "1\t5\t5e\tgov\tb\tb\tp\tp\tYes.\tNo.\tneutral\tentailment\tcontradiction\n",
             f"index\tpromptID\tpairID\t{PARSES}\n9815\t3\t3c\tgov\tb\tb\tp\tp\tLook.\tSee.\n",
             [("0", "It rains.", "It pours.", "neutral"), ("1", "Yes.", "No.", "contradiction")],
             [("9815", "Look.", "See.")]),
    "qnli": ("index\tquestion\tsentence\tlabel\n0\tWhen?\tIn May.\tentailment\n1\tWho?\tIn May.\tnot_entailment\n",
             "index\tquestion\tsentence\n0\tWhere?\tThere.\n",
             [("0", "When?", "In May.", "entailment"), ("1", "Who?", "In May.", "not_entailment")],
             [("0", "Where?", "There.")]),
    "rte": ("index\tsentence1\tsentence2\tlabel\n0\tIt fell.\tIt rose.\tnot_entailment\n1\tX is.\tX.\tentailment\n",
            "index\tsentence1\tsentence2\n0\tA.\tB.\n",
            [("0", "It fell.", "It rose.", "not_entailment"), ("1", "X is.", "X.", "entailment")], [("0", "A.", "B.")]),
    "wnli": ("index\tsentence1\tsentence2\tlabel\n0\tIt hurt.\tThe pin hurt.\t1\n1\tIt was.\tHe was.\t0\n",
             "index\tsentence1\tsentence2\n0\tA.\tB.\n",
             [("0", "It hurt.", "The pin hurt.", "1"), ("1", "It was.", "He was.", "0")], [("0", "A.", "B.")]),
    "ax": ("index\tsentence1\tsentence2\tlabel\n0\tCats sat.\tNo cats sat.\tcontradiction\n1\tA b.\tA.\tentailment\n",
           "index\tsentence1\tsentence2\n0\tThe cat.\tA cat.\n",
           [("0", "Cats sat.", "No cats sat.", "contradiction"), ("1", "A b.", "A.", "entailment")],
           [("0", "The cat.", "A cat.")]),
}
METRICS = {"cola": "matthews", "ax": "matthews", "mrpc": "accuracy_f1", "qqp": "accuracy_f1",
           "stsb": "pearson_spearman"}
ORDER = {name: ["0", "1"] for name in ("cola", "sst2", "mrpc", "qqp", "wnli")} | {
    name: ["contradiction", "entailment", "neutral"] for name in ("mnli", "ax")} | {
    name: ["entailment", "not_entailment"] for name in ("qnli", "rte")} | {"stsb": ["score"]}


def task(name):
    return make_task("text_classification", {"glue": name, "length": 64})


def read(name, path, with_labels=True):
    issues = DataIssues()
    return list(task(name).read(str(path), issues, with_labels)), issues


def write(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_every_glue_task_has_a_test_file():
    assert LAYOUTS.keys() == glue.TASKS.keys()


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("variant", ["as it is", "gzip", "windows"])
def test_formats(name, variant, tmp_path):
    with_labels, to_predict, expected, unlabelled = LAYOUTS[name]
    if variant == "windows":  # line ends and a byte-order mark
        with_labels, to_predict = ("\ufeff" + text.replace("\n", "\r\n") for text in (with_labels, to_predict))
    suffix = ".tsv.gz" if variant == "gzip" else ".tsv"
    train, test = write(tmp_path / f"train{suffix}", with_labels), write(tmp_path / f"test{suffix}", to_predict)
    examples, issues = read(name, train)
    assert [(e.id, e.text, e.second, e.label) for e in examples] == expected
    first = 1 if name == "cola" else 2
    assert [e.location for e in examples] == [f"{train}:{first}", f"{train}:{first + 1}"]
    assert variant == "windows" or not issues.counts
    assert [(e.id, e.text, e.second) for e in read(name, test, with_labels=False)[0]] == unlabelled
    # What is to be predicted may have labels, which are not looked at.
    assert [(*found[:3], None) for found in expected] == [
        (e.id, e.text, e.second, e.label) for e in read(name, train, with_labels=False)[0]]
    with pytest.raises(UserError, match=f"{test}:2: id '.*' has no label: column .* is missing"):
        read(name, test)


@pytest.mark.parametrize("name", LAYOUTS)
def test_classes_and_metric(name, tmp_path):
    examples, _ = read(name, write(tmp_path / "train.tsv", LAYOUTS[name][0]))
    taught = task(name)
    taught = taught.fit(examples, None)
    assert (fitted_values(taught), taught.metric) == ({"labels": ORDER[name]}, METRICS.get(name, "accuracy"))
    guess = {"value": 1.0} if name == "stsb" else {"label": ORDER[name][0]}
    assert taught.metric in taught.score(examples, [{"id": e.id, **guess} for e in examples])


# Records as `datasets` writes them: fields in JSON, and (id, text, second, label) read.
RECORDS = {
    "cola": ({"sentence": "Our friends won't buy.", "label": 1, "idx": 0}, ("0", "Our friends won't buy.", None, "1")),
    "sst2": ({"sentence": 'hide "new', "label": 0, "idx": 3}, ("3", 'hide "new', None, "0")),
    "mrpc": ({"sentence1": "One, a.", "sentence2": "Two.", "label": 1, "idx": 2}, ("2", "One, a.", "Two.", "1")),
    "stsb": ({"sentence1": "A", "sentence2": "B", "label": 3.8, "idx": 2}, ("2", "A", "B", 3.8)),
    "qqp": ({"question1": "How?", "question2": "Why?", "label": 0, "idx": 9}, ("9", "How?", "Why?", "0")),
    "mnli": ({"premise": "A", "hypothesis": "B", "label": 1, "idx": 4}, ("4", "A", "B", "neutral")),
    "qnli": ({"question": "Q", "sentence": "S", "label": 1, "idx": 5}, ("5", "Q", "S", "not_entailment")),
    "rte": ({"sentence1": "A", "sentence2": "B", "label": 0, "idx": 6}, ("6", "A", "B", "entailment")),
    "wnli": ({"sentence1": "A", "sentence2": "B", "label": 1, "idx": 7}, ("7", "A", "B", "1")),
    "ax": ({"premise": "A", "hypothesis": "B", "label": 2, "idx": 8}, ("8", "A", "B", "contradiction"))}


@pytest.mark.parametrize("name", LAYOUTS)
def test_records_of_datasets(name, tmp_path):
    record, expected = RECORDS[name]
    unlabelled = record | {"label": -1 if name != "stsb" else -1.0, "idx": 99}
    rows = [",".join(f'"{str(value).replace(chr(34), chr(34) * 2)}"' for value in row.values())
            for row in (record, unlabelled)]
    contents = {"train.csv": "\n".join([",".join(record), *rows]), "train.json": json.dumps([record, unlabelled]),
                "train.jsonl": f"{json.dumps(record)}\n{json.dumps(unlabelled)}\n"}
    for file, content in contents.items():
        examples, _ = read(name, write(tmp_path / file, content))
        assert [(e.id, e.text, e.second, e.label) for e in examples[:1]] == [expected], file
        assert len(examples) == 1 or name == "stsb"
        examples, _ = read(name, tmp_path / file, with_labels=False)
        assert [(e.id, e.text, e.second) for e in examples] == [expected[:3], ("99", *expected[1:3])]


@pytest.mark.parametrize("name, expected", [("rte", ("entailment", "not_entailment")), ("cola", ("0", "1"))])
@pytest.mark.parametrize("labels", [(0.0, 1.0), (False, True), ("0.0", "1.0"), ("False", "True")])
def test_class_numbers_in_other_types(name, expected, labels, tmp_path):
    """Columns of floating-point numbers and booleans; datasets casts both to the numbers of its classes."""
    records = [RECORDS[name][0] | {"label": label, "idx": number} for number, label in enumerate(labels)]
    path = write(tmp_path / "train.jsonl", "".join(f"{json.dumps(record)}\n" for record in records))
    assert tuple(example.label for example in read(name, path)[0]) == expected
    for label in (2, 0.5, "yes"):
        with pytest.raises(UserError, match=f"train.jsonl:1: .*allowed are {', '.join(expected)}|0.5 is not the name"):
            read(name, write(path, json.dumps(records[0] | {"label": label})))


def test_broken_lines_of_qqp_are_skipped(tmp_path):
    path = write(tmp_path / "train.tsv", LAYOUTS["qqp"][0] + "7\t8\t9\tcut short\n\n10\t11\t12\tA?\tB?\t1\n"
                 "13\t14\t15\tA?\tB?\t1\tmore\n")
    examples, issues = read("qqp", path)
    assert [e.id for e in examples] == ["133273", "402555", "10"]
    assert examples[-1].location == f"{path}:6"
    assert issues.counts == {"lines with a wrong number of fields, left out": 2}
    assert issues.places["lines with a wrong number of fields, left out"] == [f"{path}:4", f"{path}:7"]
    with pytest.raises(UserError, match=f"{path}:4: 4 fields, but 6 columns"):
        read("qqp", path, with_labels=False)  # a prediction would be missing


def test_other_tasks_have_no_broken_lines(tmp_path):
    path = write(tmp_path / "dev.tsv", LAYOUTS["rte"][0] + "2\tonly one\tentailment\n")
    with pytest.raises(UserError, match=rf"{path}:4: 3 fields, but 4 columns \(index, sentence1"):
        read("rte", path)


def test_undecided_labels_of_mnli(tmp_path):
    path = write(tmp_path / "dev_matched.tsv", LAYOUTS["mnli"][0].replace("\tcontradiction\n", "\t-\n"))
    examples, issues = read("mnli", path)
    assert [e.label for e in examples] == ["neutral"]
    assert issues.places == {"examples without an agreed label, left out": [f"{path}:3"]}
    examples, issues = read("mnli", path, with_labels=False)
    assert [e.id for e in examples] == ["0", "1"] and not issues.counts
    with pytest.raises(UserError, match=":3: id '1': label '-' in column 'label': allowed are contradiction, ent"):
        read("ax", write(tmp_path / "ax.tsv", LAYOUTS["ax"][0].replace("\tentailment\n", "\t-\n")))


@pytest.mark.parametrize("name, old, new, message", [
    ("rte", "X.\tentailment", "X.\tneutral", ":3: id '1': label 'neutral' .* allowed are entailment, not_entailment"),
    ("sst2", "lovely\t1", "lovely\t2", ":3: id '3': label '2' in column 'label': allowed are 0, 1"),
    ("sst2", "lovely\t1", "lovely\t", ":3: id '3' has no label: column 'label' is empty"),
    ("stsb", "1.60", "much", ":3: id '1': label 'much' is not a number"),
    ("stsb", "1.60", "nan", ":3: id '1': label 'nan' is not a number"),
    ("qnli", "1\tWho?", "0\tWho?", r":3: id '0' occurs also at .*train.tsv:2"),
    ("wnli", "sentence2", "hypothesis", ":2: no field 'sentence2'; there are 'index', 'sentence1', 'hypothesis'"),
])
def test_mistakes_in_files(name, old, new, message, tmp_path):
    assert old in LAYOUTS[name][0]
    with pytest.raises(UserError, match=f"train.tsv{message}") as raised:
        read(name, write(tmp_path / "train.tsv", LAYOUTS[name][0].replace(old, new)))
    assert "\n" not in str(raised.value)


def test_settings_determined_by_glue():
    with pytest.raises(UserError, match="config.task.glue='squad': allowed are '', 'cola', 'sst2'"):
        task("squad")
    for field, value in (("text", "sentence"), ("metric", "f1"), ("regression", True), ("columns", ["a", "text"])):
        with pytest.raises(UserError, match=f"config.task.{field}=.*: config.task.glue='cola' determines it"):
            make_task("text_classification", {"glue": "cola", field: value})
    assert make_task("text_classification", {"glue": "mrpc", "group": "#1 ID"}).metric == "accuracy_f1"


def test_any_column_can_be_the_group(tmp_path):
    path = write(tmp_path / "train.tsv", LAYOUTS["mrpc"][0])
    grouped = make_task("text_classification", {"glue": "mrpc", "group": "#1 ID"}).read(str(path), DataIssues())
    assert [e.group for e in grouped] == ["70", "5"]


@pytest.mark.parametrize("name, file, submitted", [
    ("cola", "test.tsv", "CoLA.tsv"), ("sst2", "test.tsv", "SST-2.tsv"), ("mrpc", "test.tsv", "MRPC.tsv"),
    ("stsb", "test.tsv", "STS-B.tsv"), ("qqp", "test.tsv", "QQP.tsv"), ("qnli", "test.tsv", "QNLI.tsv"),
    ("rte", "test.tsv", "RTE.tsv"), ("wnli", "test.tsv", "WNLI.tsv"), ("ax", "test.tsv", "AX.tsv"),
    ("mnli", "test_matched.tsv", "MNLI-m.tsv"), ("mnli", "test_mismatched.tsv", "MNLI-mm.tsv"),
    ("mnli", "diagnostic.tsv", "AX.tsv")])
def test_submissions(name, file, submitted, tmp_path):
    layout = "ax" if file == "diagnostic.tsv" else name
    examples, _ = read(name, write(tmp_path / file, LAYOUTS[layout][1]), with_labels=False)
    label = ORDER[name][-1]
    guess, printed = ({"value": 2.71828}, "2.718") if name == "stsb" else ({"label": label}, label)
    files = task(name).files(examples, [{"id": e.id, **guess} for e in examples])
    lines = "".join(f"{found[0]}\t{printed}\n" for found in LAYOUTS[layout][3])
    assert files == {submitted: f"index\tprediction\n{lines}"}


def test_both_mnli_files_have_their_own_submission(tmp_path):
    examples = [example for file in ("test_matched.tsv", "test_mismatched.tsv")
                for example in read("mnli", write(tmp_path / file, LAYOUTS["mnli"][1]), with_labels=False)[0]]
    files = task("mnli").files(examples, [{"label": "neutral"}, {"label": "entailment"}])
    assert files == {"MNLI-m.tsv": "index\tprediction\n9815\tneutral\n",
                     "MNLI-mm.tsv": "index\tprediction\n9815\tentailment\n"}
