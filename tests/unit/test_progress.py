"""Progress is a line in a log and a bar on a terminal."""

import sys

from metaopt.training.progress import progress


def test_a_log_gets_few_lines(caplog, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with caplog.at_level("INFO"), progress(100, "MLP", done=10) as bar:
        for _ in range(90):
            bar.update(loss=0.5)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "MLP: 100 of 100 steps, loss 0.5, 0 s left"


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(4, "MLP", done=2) as bar:
        bar.update(2, loss=0.25)
    shown = capsys.readouterr().err
    assert "MLP: 100%" in shown
    assert "loss=0.25" in shown
