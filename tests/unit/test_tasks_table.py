import pytest
import torch

from metaopt.core.errors import InvalidConfig, TaskDataError
from metaopt.tasks import load_task

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
