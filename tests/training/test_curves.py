"""Curves: every number of the log once, in the panel that it belongs to."""

import sys

import pytest

from hf_maskgit.training import curves
from hf_maskgit.training.run_log import LOG_NAME, append_line
from scripts import plot_run
from tests.support.project import ROOT

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def run(tmp_path):
    """A run that was told to go on once, so that its update 4 was told of twice."""
    folder = tmp_path / "run"
    folder.mkdir()
    for step in (2, 4, 4, 6):
        rest = {"learning_rate": 1e-3 / step, "tokens_per_second": 100.0 * step}
        append_line(folder / LOG_NAME, step, {"loss": 8.0 / step, **rest})
        append_line(
            folder / LOG_NAME, step, {"eval_nats_per_token": 9.0 / step, "eval_std_error": 0.1}
        )
    return folder


@pytest.fixture
def figures(monkeypatch):
    """What is drawn, before it is a picture."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    drawn = []

    class Seen(figure):
        def savefig(self, *arguments, **options):
            drawn.append(self)
            super().savefig(*arguments, **options)

    monkeypatch.setattr(curves, "_figure_class", lambda: Seen)
    return drawn


@pytest.mark.wide
def test_a_picture_of_the_run_lies_in_its_folder(run, figures):
    path = curves.draw_own_curves(run)
    assert path == run / "curves.png"
    assert path.read_bytes().startswith(PNG)
    (figure,) = figures
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["Training loss", "Held-out bound", "Learning rate", "Speed"]
    loss, bound, _, speed = figure.axes
    assert loss.lines[0].get_xydata().tolist() == [[2, 4], [4, 2], [6, 8 / 6]]
    assert speed.lines[0].get_ydata().tolist() == [200, 400, 600]
    (band,) = bound.collections
    edges = band.get_paths()[0].vertices
    at_two = sorted({y for x, y in edges.tolist() if x == 2})
    assert (at_two[0], at_two[-1]) == pytest.approx((4.3, 4.7)), "two standard errors to each side"


@pytest.mark.wide
def test_only_what_was_told_is_drawn(tmp_path, figures):
    append_line(tmp_path / LOG_NAME, 1, {"loss": 2.0, "denoiser_loss": 1.5, "critic_loss": 0.5})
    curves.draw_own_curves(tmp_path)
    (axes,) = figures[0].axes
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["loss", "denoiser_loss", "critic_loss"]
    with pytest.raises(ValueError, match="There is no log of a run: .*none/training_log.jsonl"):
        curves.draw_own_curves(tmp_path / "none")
    (tmp_path / LOG_NAME).write_text("")
    with pytest.raises(ValueError, match="There is nothing to draw yet: .* told of no update"):
        curves.draw_own_curves(tmp_path)


def test_without_matplotlib_a_sentence_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_maskgit\[plots\]'.*`hf-maskgit plot`"):
        curves.draw_own_curves(run)
    with pytest.raises(ImportError, match=r"which is not installed: pip install"):
        plot_run.main([str(run)])


@pytest.mark.wide
def test_the_script_draws_one_run_or_several(run, tmp_path, figures, capsys):
    plot_run.main([str(run)])
    assert capsys.readouterr().out == f"{run / 'curves.png'}\n"
    (other := tmp_path / "other").mkdir()
    append_line(other / LOG_NAME, 3, {"loss": 2.0})
    both = tmp_path / "both.svg"
    plot_run.main([str(run), str(other), "--output_file", str(both)])
    assert both.read_text().lstrip().startswith("<?xml")
    legend = figures[1].axes[0].get_legend().get_texts()
    assert [text.get_text() for text in legend] == ["run", "other"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Name the output folder of a run, first or with '--runs'."),
        (["a", "b"], "Several runs make one picture: say where with --output_file."),
        (["a", "--output_file", "no/such/folder/x.png"], "There is no folder"),
    ],
)
def test_mistakes_of_who_draws_are_named(words, said, capsys):
    with pytest.raises(SystemExit):
        plot_run.main(words)
    assert said in capsys.readouterr().err


def test_the_extra_is_the_one_that_the_sentence_names():
    assert "\nplots = [" in (ROOT / "pyproject.toml").read_text()
