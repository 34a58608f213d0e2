"""Learning curves: read from the record of a run, drawn for several."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from reranker.cli.app import app
from reranker.errors import DataError
from reranker.training.curves import Point, draw, read_curve
from reranker.training.record import RECORD_FILE

_SVG = "{http://www.w3.org/2000/svg}"


def test_validations_are_read_and_steps_are_not(tmp_path: Path) -> None:
    lines = [
        {"kind": "validation", "seen": 0, "seconds": 0.0, "nDCG@10": 0.2},
        {"kind": "step", "step": 1, "loss": 3.0},
        {"kind": "validation", "seen": 8, "seconds": 1.5, "nDCG@10": 0.55},
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / RECORD_FILE).write_text(text, "utf-8")
    assert read_curve(tmp_path) == (
        Point(seen=0, value=0.2, seconds=0.0),
        Point(seen=8, value=0.55, seconds=1.5),
    )
    with pytest.raises(DataError, match="no validation with nDCG@5"):
        read_curve(tmp_path, "nDCG@5")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"seen": 3}', "line 1: no event of a run: the field kind"),
        ("[1]", "line 1: no event of a run"),
        ('{"kind": "validation", "seen": 3, "nDCG@10": 0.2}', "seconds"),
        ('{"kind": "validation", "seen": "x", "seconds": 1, "nDCG@10": 0.2}', "without lists seen"),
    ],
)
def test_a_record_of_something_else_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / RECORD_FILE).write_text(f"{line}\n", "utf-8")
    with pytest.raises(DataError, match=message):
        read_curve(tmp_path)


@pytest.mark.parametrize(
    ("best", "highest"), [(0.0, "0.2"), (0.2, "0.2"), (0.63, "0.8"), (1, "1.0")]
)
def test_a_picture_shows_every_point_inside_its_lines(best: float, highest: str) -> None:
    curves = {
        "plain & <simple>": (
            Point(seen=0, value=0.0, seconds=0),
            Point(seen=320, value=best, seconds=9),
        ),
        "other": (Point(seen=160, value=best / 2, seconds=5),),
    }
    picture = ElementTree.fromstring(draw(curves, "nDCG@10"))
    marks = [float(line.get("y1", "")) for line in picture.iter(f"{_SVG}line")]
    labels = [text.text for text in picture.iter(f"{_SVG}text")]
    assert highest in labels
    assert "plain & <simple>" in labels
    circles = list(picture.iter(f"{_SVG}circle"))
    assert len(circles) == 3
    for circle in circles:
        assert min(marks) - 0.1 <= float(circle.get("cy", "")) <= max(marks) + 0.1
    first, last, _ = (float(circle.get("cx", "")) for circle in circles)
    assert first < last


def test_runs_of_the_same_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    line = {"kind": "validation", "seen": 0, "seconds": 0.0, "nDCG@10": 0.2}
    runs = [tmp_path / name for name in ("a/first", "b/first", "second")]
    for run in runs:
        run.mkdir(parents=True)
        (run / RECORD_FILE).write_text(f"{json.dumps(line)}\n", "utf-8")
    ended = CliRunner().invoke(app, ["adapter", "curve", *map(str, runs), "--json"])
    assert list(json.loads(ended.stdout)) == [str(runs[0]), str(runs[1]), "second"]
