"""One row of numbers for a set of texts, and the table and pictures of many rows."""

import numpy as np
import pytest

from hf_maskgit.evaluation.text_quality import MEASURES, TextMeter, halves_of_real
from hf_maskgit.evaluation.text_quality_report import (
    draw_frontier,
    draw_over_passes,
    quality_table,
)

pytest.importorskip("sacrebleu")


def test_a_row_by_hand():
    meter = TextMeter(["a b", "c d e f"], ["a b c", "d"])
    row = meter.measure(["a b", "A b A b"])
    assert row["num_texts"] == 2
    assert row["mean_length"] == 3
    assert row["length_distance"] == 0
    assert row["distinct_1"] == 3 / 6
    assert row["repeated_bigrams"] == 1 / 4  # ab; Ab bA Ab: capitals are units of their own
    assert row["longest_copy"] == (2 + 1) / 2
    assert row["copied_share"] == 3 / 6
    assert row["whole_copies"] == 0
    assert not {"perplexity", "mauve"} & set(row)


def test_characters_are_units_where_asked_for():
    row = TextMeter(["CC"], ["CCO"], by_characters=True).measure(["C C O", "OCO"])
    assert row["mean_length"] == 3
    assert row["longest_copy"] == 2.5
    assert row["whole_copies"] == 0.5


def test_halves_of_real_texts_are_disjoint_and_the_same_for_a_seed():
    texts = [f"t{i}" for i in range(9)]
    shown, reference = halves_of_real(texts, 4, 1)
    assert len(set(shown) | set(reference)) == 8
    assert halves_of_real(texts, 4, 1) == (shown, reference)
    assert halves_of_real(texts, 4, 2) != (shown, reference)
    with pytest.raises(ValueError, match=r"There are 9 real texts, and 10 are needed"):
        halves_of_real(texts, 5, 0)


def test_a_meter_without_references_is_refused():
    with pytest.raises(ValueError, match=r"There is no real text to compare with\."):
        TextMeter([])
    with pytest.raises(ValueError, match="MAUVE needs 50 texts on either side, and 2 real ones"):
        TextMeter(["a", "b"], featuriser=object())


def test_mauve_is_of_the_features_of_both_sides():
    pytest.importorskip("mauve")

    class Ends:
        """A featuriser of two clouds, far apart."""

        def features(self, texts):
            ends = np.array([[1, 0] if "a" in text else [0, 1] for text in texts], np.float32)
            noise = np.random.default_rng(0).normal(0, 1e-3, ends.shape)
            return ends + noise.astype(np.float32)

    real = ["a x", "b x"] * 30
    meter = TextMeter(real, featuriser=Ends())
    assert meter.measure(real)["mauve"] == pytest.approx(1, abs=1e-3)
    assert meter.measure(["b x"] * 60)["mauve"] < 0.5


ROWS = [
    {"name": "real texts", "perplexity": 20.0, "token_entropy": 3.0, "distinct_2": 0.9},
    *(
        {
            "name": f"{steps} {temperature}",
            "steps": steps,
            "temperature": temperature,
            "passes": float(steps),
            "perplexity": 30.0 / temperature,
            "token_entropy": 2.0 + temperature,
            "distinct_2": 0.5,
        }
        for steps in (8, 32)
        for temperature in (1.0, 0.5)
    ),
]


def test_the_table_has_a_column_for_what_was_measured():
    heading, _, first, second, *_ = quality_table(ROWS).splitlines()
    assert heading == "| texts | passes | perplexity | token entropy | distinct-2 |"
    assert first == "| real texts |  | 20 | 3 | 0.9 |"
    assert second == "| 8 1.0 | 8 | 30 | 3 | 0.5 |"


@pytest.mark.wide
def test_pictures_have_a_curve_for_each_setting(tmp_path, monkeypatch):
    figure_class = pytest.importorskip("matplotlib.figure").Figure
    drawn = []
    save = figure_class.savefig

    def keep(self, *args, **kwargs):
        drawn.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(figure_class, "savefig", keep)
    assert draw_frontier(ROWS, tmp_path / "frontier.png").stat().st_size > 1000
    draw_over_passes(ROWS, tmp_path / "passes.png")
    (axes,) = drawn[0].axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert curves["steps=8"] == [[2.5, 60.0], [3.0, 30.0]]  # along the temperature
    assert curves["real texts"] == [[3.0, 20.0]]
    shown = [MEASURES[name] for name in ("perplexity", "token_entropy", "distinct_2")]
    assert [panel.get_ylabel() for panel in drawn[1].axes] == shown
    curves = {line.get_label(): line.get_ydata() for line in drawn[1].axes[0].lines}
    assert list(curves["temperature=0.5"]) == [60.0, 60.0]
    assert list(curves["real texts"]) == [20.0, 20.0]
