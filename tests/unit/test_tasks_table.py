import pytest
import torch

from metaopt.core.errors import InvalidConfig, TaskDataError
from metaopt.tasks import Batch, load_task
from metaopt.tasks.base import hold_out

HEADER = "height,width,same,sort"
ROWS = [f"{n},{n % 5}.5,3,{'ab'[n % 2]}" for n in range(40)]


@pytest.fixture
def load(tmp_path):
    def loading(lines, **options):
        (tmp_path / "rows.csv").write_text("\n".join(lines))
        return load_task("csv", data_dir=tmp_path / "rows.csv", **{"label": "sort", **options})

    return loading


def training_rows(task):
    parts = [task.splits[name][:] for name in ("train", "meta", "guard")]
    return torch.cat([part.inputs for part in parts]), torch.cat([part.labels for part in parts])


def test_classification(load):
    task = load([HEADER, *ROWS])
    inputs, labels = training_rows(task)
    assert task.model_facts == {"in_features": 3, "classes": 2}
    assert (task.kind, task.topology) == ("classification", "mlp")
    assert set(labels.tolist()) == {0, 1}
    assert torch.allclose(inputs.mean(0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(inputs.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-6)


def test_regression(load):
    task = load(["a,b", *(f"{n},{100 + 2 * n}" for n in range(40))], label="b", predict="regression")
    inputs, labels = training_rows(task)
    assert task.model_facts == {"in_features": 1, "classes": 1}
    assert task.kind == task.describe().kind == "regression"
    assert torch.allclose(inputs[:, 0], labels, atol=1e-5)
    assert torch.allclose(labels.std(correction=0), torch.tensor(1.0))
    assert task.metrics_of_loss(task.baseline_loss) == {"r2": 0.0}


def test_the_mean_absolute_error_has_the_unit_of_the_table(load):
    task = load(["a,b", *(f"{n},{n % 2 * 10}" for n in range(400))], label="b", predict="regression")
    labels = task.splits["validation"][:].labels
    opposite = task.metrics(-labels.unsqueeze(-1), labels)["mean_absolute_error"]
    assert float(opposite) == pytest.approx(10, abs=1.5)


def changed(line, text):
    lines = [HEADER, *ROWS]
    lines[line - 1] = text
    return lines


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        ([HEADER, *ROWS], {"label": "sorts"}, "no column 'sorts'.*did you mean sort"),
        (changed(7, "tall,1,3,a"), {}, "line 7: column 'height' contains 'tall'"),
        (changed(7, "1,inf,3,a"), {}, "line 7: column 'width' contains 'inf'"),
        (changed(9, "1,,3,a"), {}, "line 9: column 'width' has a missing value"),
        (changed(9, "1,NaN,3,a"), {}, "line 9: column 'width' has a missing value"),
        (changed(9, "1,2,3,"), {}, "line 9: column 'sort' has a missing value"),
        (changed(5, "1,2,3"), {}, "line 5: 3 cells; expected 4"),
        (changed(5, ""), {"predict": "regression"}, "line 2: column 'sort' contains 'a'"),
        (changed(5, '"1,2,3,a'), {}, "is not a valid CSV file"),
        ([HEADER, *(row[:-1] + "a" for row in ROWS)], {}, "has 1 classes"),
        (["a,b", *(f"{n},{n}" for n in range(40))], {"label": "b"}, "40 classes in 40 rows.*predict=regression"),
        (["a,b", *(f"{n},1" for n in range(40))], {"label": "b", "predict": "regression"}, "the same number"),
        ([HEADER, *ROWS[:5]], {}, "5 rows are too few"),
        ([HEADER], {}, "0 rows are too few"),
        ([], {}, "0 columns"),
        (["a;b", "1;2"], {"label": "b"}, "1 columns.*separated by commas"),
        (["a,a,sort", "1,2,x"], {}, "several columns named 'a'"),
    ],
)
def test_an_invalid_table_is_an_error(load, tmp_path, lines, options, message):
    with pytest.raises(TaskDataError, match=message) as caught:
        load(lines, **options)
    assert str(tmp_path / "rows.csv") in str(caught.value)


@pytest.mark.parametrize("name", ["", "Unnamed: 0", " unnamed: 12 "])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_an_unnamed_column_that_numbers_the_rows_is_dropped(load, caplog, name, column):
    """Rows are sorted by label, so their numbers give it away."""
    rows = [[str(n % 7), str(n % 5), "ab"[n >= 20]] for n in range(40)]
    plain = load(["x,y,sort", *map(",".join, rows)])
    header = ["x", "y", "sort"]
    for number, row in enumerate([header, *rows], -1):
        row.insert(column, name if number < 0 else str(number))
    task = load([",".join(row) for row in [header, *rows]])
    assert task.digest() == plain.digest()
    (note,) = task.notes
    assert f"ignored the column {name.strip()!r}, which numbers the rows" in note
    assert note in caplog.text
    assert task.describe().to_mapping()["notes"] == [note]


@pytest.mark.parametrize("cells", ["0.5", "1"])
def test_an_unnamed_column_that_is_no_index_is_refused(load, cells):
    with pytest.raises(TaskDataError, match="column 1 has no name; name it"):
        load(["," + HEADER, *(f"{cells},{row}" for row in ROWS)])


def test_a_named_column_that_numbers_the_rows_is_shown(load):
    assert (
        load([HEADER, *ROWS]).notes[0].endswith("the column 'height' numbers the rows; remove it if that is no feature")
    )


@pytest.mark.parametrize(
    ("variants", "classes"),
    [
        (["0", "0.0", "1", "1.00"], 2),
        (["0", "-0", "1e0", "1"], 2),
        (["red  wine", "red\u00a0wine", " red wine ", "white"], 2),
        (["9007199254740992", "9007199254740993"], 2),
        (["yes", "Yes"], 2),
        (["1", "one", "1.0"], 2),
        (["1_0", "10"], 2),
    ],
)
def test_texts_of_one_label_are_one_class(load, variants, classes):
    rows = [f"{n % 7},{n % 5},{variants[n % len(variants)]}" for n in range(40)]
    task = load(["x,y,sort", *rows])
    assert task.model_facts["classes"] == classes


def test_different_texts_of_one_label_are_shown(load):
    task = load(["x,y,sort", *(f"{n % 7},{n % 5},{['0', '0.0', 'Yes', 'yes'][n % 4]}" for n in range(40))])
    assert [note.partition("rows.csv: ")[2] for note in task.notes] == [
        "labels that are the same number are one class: '0'/'0.0'",
        "labels that differ only in upper and lower case are different classes: 'Yes'/'yes'",
    ]


def test_many_such_labels_are_one_line(load):
    letters = [letter for pair in zip("abcdefgh", "ABCDEFGH", strict=True) for letter in pair]
    (note,) = load(["x,y,sort", *(f"{n % 7},{n % 5},{letters[n % 16]}" for n in range(64))]).notes
    assert note.endswith("'A'/'a', 'B'/'b', 'C'/'c', 'D'/'d', 'E'/'e' and 3 more")


@pytest.mark.parametrize("scale", [1.0, 1e300, 1e-300, 2.0**60, -3e307])
def test_features_of_any_size_are_standardised(load, scale):
    inputs, _ = training_rows(load(["x,sort", *(f"{scale * (n % 7 - 3)!r},{'ab'[n % 2]}" for n in range(40))]))
    assert torch.allclose(inputs.std(0, correction=0), torch.ones(1), atol=1e-5)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_labels_whose_errors_float32_cannot_hold_are_refused(load, scale):
    with pytest.raises(TaskDataError, match=r"column 'sort' has a standard deviation of .*; scale the column"):
        load(["x,sort", *(f"{n % 7},{scale * (n * n % 11 - 5)!r}" for n in range(40))], predict="regression")


def test_a_value_that_float32_cannot_hold_is_refused(load):
    lines = ["x,y,sort", *(f"{n % 7},{n % 5},{'ab'[n % 2]}" for n in range(400))]
    numbers = torch.arange(400).reshape(-1, 1)
    _, held_out = hold_out(Batch(numbers, numbers), 0.25, 0)
    lines[1 + int(held_out.inputs[0])] = "1e300,1,a"
    with pytest.raises(TaskDataError, match=r"column 'x' contains 1e\+300, which is too far"):
        load(lines)


@pytest.mark.parametrize("cell", ["9223372036854775809", "-18446744073709551617", "9007199254740993.0"])
def test_a_whole_number_that_float64_cannot_hold_is_refused(load, cell):
    with pytest.raises(TaskDataError, match=r"line 7: column 'height' contains '.*53 bits.*identifier"):
        load(changed(7, f"{cell},1,3,a"))
    assert load(changed(7, "9223372036854775808,1,3,a")).splits  # a power of two


@pytest.mark.parametrize("cell", ["1_000", "0x10", "1e400", "-inf", "1;5", "१_२"])
def test_a_cell_that_is_no_number_is_refused(load, cell):
    with pytest.raises(TaskDataError, match=r"line 7: column 'height' contains .*expected a finite number"):
        load(changed(7, f"{cell},1,3,a"))


def test_empty_lines_spaces_quotes_and_a_byte_order_mark_change_nothing(load, tmp_path):
    plain = load([HEADER, *ROWS])
    spaced = [", ".join(f'"{cell}"' if cell.isalpha() else cell for cell in row.split(",")) for row in ROWS]
    spaced = [line.replace(', "', ',"') for line in spaced]
    text = "\r\n".join(["height , width, same,sort", *spaced[:5], "", "   ", ",,,", *spaced[5:], "", ""])
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        (tmp_path / "rows.csv").write_bytes(text.encode(encoding))
        assert load_task("csv", data_dir=tmp_path / "rows.csv", label="sort").digest() == plain.digest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,x\0\n", "line 2 contains a NUL byte"),
        ("a,b\n1,x\n".encode("utf-16-le"), "NUL byte: it is no text, or UTF-16 without a byte order mark"),
        ("a,b\n1,für\n".encode("latin-1"), "is not a valid CSV file .*utf-8"),
        (b"a;b\n1;2\n", "its first line has semicolons"),
        (b"a\tb\n1\t2\n", "its first line has tabs"),
        (b"a,b\n" + b"1" * 200_000 + b",x\n", "field larger than field limit"),
        (b"", "0 columns"),
        (b"\n\n", "0 columns"),
        (b",b\n1,x\n2,x", "no feature column besides one that numbers the rows"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused_with_the_reason(tmp_path, content, message):
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(TaskDataError, match=message):
        load_task("csv", data_dir=tmp_path / "rows.csv", label="b")


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(TaskDataError, match="it is a folder; expected comma-separated values"):
        load_task("csv", data_dir=tmp_path, label="b")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(TaskDataError, match=r"nowhere\.csv: No such file.*data_dir"):
        load_task("csv", data_dir=tmp_path / "nowhere.csv")


def test_a_file_that_is_not_text_is_an_error(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"a,b\n\xff,1\n")
    with pytest.raises(TaskDataError, match="is not a valid CSV file"):
        load_task("csv", data_dir=tmp_path / "rows.csv")


def test_an_unknown_kind_of_prediction_is_an_error():
    with pytest.raises(InvalidConfig, match="predict is 'ranks'"):
        load_task("csv", predict="ranks")
