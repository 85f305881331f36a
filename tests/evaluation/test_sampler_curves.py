"""Quality against passes as a picture: which samplers share a curve, and what is drawn."""

import sys

import pytest

from hf_maskgit.evaluation.sampler_curves import curves, draw_curves


def row(passes, **options):
    """Figures of one sampler."""
    return {
        "options": options,
        "passes": passes,
        "nats_per_token": 1 / passes,
        "difference": 0.5,
        "standard_errors": {"passes": 0.1, "nats_per_token": 0.01, "difference": 0.02},
    }


ROWS = [
    row(9.0, steps=18),
    row(4.0, steps=6),
    row(4.0, steps=6, order="random"),
    row(3.0, pace="threshold", confidence_threshold=0.9),
    row(2.0, pace="threshold", confidence_threshold=0.5),
    row(2.5, pace="threshold", threshold_factor=1.0),
    row(2.5, preset="fast"),
]


def test_samplers_that_differ_in_their_speed_alone_share_a_curve():
    found = {name: [point["passes"] for point in points] for name, points in curves(ROWS).items()}
    assert found == {
        "the defaults": [4.0, 9.0],
        "order='random'": [4.0],
        "pace='threshold', by confidence_threshold": [2.0, 3.0],
        "pace='threshold', by threshold_factor": [2.5],
        "preset='fast'": [2.5],
    }


@pytest.mark.wide
def test_a_line_of_panels_for_each_model_and_one_look_per_sampler(monkeypatch, tmp_path):
    figure_class = pytest.importorskip("matplotlib.figure").Figure
    drawn = []
    save = figure_class.savefig
    monkeypatch.setattr(
        figure_class, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))
    )
    picture = draw_curves({"verses": ROWS, "molecules": ROWS[1:]}, tmp_path / "curves.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes] == [*["verses"] * 2, *["molecules"] * 2]
    colors = {}
    for axes, rows in zip(figure.axes, (ROWS, ROWS, ROWS[1:], ROWS[1:]), strict=True):
        measure = "nats_per_token" if "nats" in axes.get_ylabel() else "difference"
        for (name, points), container in zip(curves(rows).items(), axes.containers, strict=True):
            line = container.lines[0]
            assert list(line.get_xdata()) == [point["passes"] for point in points]
            assert list(line.get_ydata()) == [point[measure] for point in points]
            colors.setdefault(name, set()).add(line.get_color())
    assert all(len(found) == 1 for found in colors.values())
    assert len(set.union(*colors.values())) == len(colors) == 5
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(curves(ROWS))


def test_a_missing_matplotlib_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_maskgit\[plots\]'"):
        draw_curves({"verses": ROWS}, tmp_path / "curves.png")
