import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from jaxspeech.observe import plots
from jaxspeech.observe.plots import Series

STEPS = np.arange(10, 1010, 10)


def series(**options):
    return Series("train", STEPS, np.linspace(5, 1, len(STEPS)), **options)


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(
    "svg",
    [
        plots.curves([series(noisy=True), series(marked=True, colour=1)], "loss", 1000, log=True),
        plots.histogram(np.array([0.5, 1.5, 12.0]), edges=[2.0, 12.5]),
        plots.bars(["32 × 1.5 s", "16 × 3 s"], [0.02, 0.05], "padding (%)"),
    ],
    ids=["curves", "histogram", "bars"],
)
def test_a_plot_is_svg_that_loads_nothing_and_takes_the_colours_of_the_page(svg):
    ET.fromstring(svg)
    assert not re.search(r'(href|src)="(?!#)', svg)
    assert not re.search(r"url\((?!#)", svg)
    assert "<style" not in svg  # it would hold for the whole page
    assert "var(--s1)" in svg
    assert "var(--muted)" in svg
    assert not re.search(r"#(0a0b0[1-6]|010203|040506)", svg)


def test_axes_have_labels_with_units():
    assert {"step", "WER (%)"} <= set(texts(plots.curves([series()], "WER (%)", 1000)))
    assert {"duration (s)", "utterances"} <= set(texts(plots.histogram(np.ones(3))))


def test_curves_of_one_run_share_their_axis():
    late = Series("dev", np.array([900.0, 1000.0]), np.array([1.0, 2.0]))
    assert "0" in texts(plots.curves([late], "WER (%)", 1000))
    assert "200" in texts(plots.curves([late], "WER (%)", 1000))


def test_a_log_axis_comes_only_where_it_helps():
    wide = Series("a", STEPS, np.geomspace(1, 1000, len(STEPS)))
    assert {"1", "10", "100", "1,000"} <= set(texts(plots.curves([wide], "loss", 1000, log=True)))
    assert "10" not in texts(plots.curves([series()], "loss", 1000, log=True))


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("values", [[np.nan], [1.0], [np.nan, 0.5, np.nan], [0.0, 0.0], [1e-300, 1e300]], ids=str)
def test_odd_values_do_not_break_a_plot(values):
    y = np.array(values)
    for log in (True, False):
        svg = plots.curves([Series("odd", np.arange(len(y)), y, noisy=True)], "loss", 0, log=log, zero=True)
        assert ET.fromstring(svg).tag.endswith("svg")
        assert "loss" in texts(svg)


def test_names_are_no_formulas_and_no_markup():
    svg = plots.curves([Series("$\\alpha$ <b>", STEPS, 1.0 * STEPS), series()], "loss", 1000)
    assert "$\\alpha$ <b>" in texts(svg)


def test_the_same_data_gives_the_same_plot():
    assert plots.curves([series()], "loss", 1000) == plots.curves([series()], "loss", 1000)


def test_long_curves_are_thinned_to_means():
    x, y = np.arange(100_000.0), np.random.default_rng(0).normal(size=100_000)
    y[50] = np.nan
    thin_x, thin_y = plots._thin(x, y)
    assert len(thin_x) == len(thin_y) <= 1000
    assert thin_x.mean() == pytest.approx(x.mean())
    assert np.nanmean(y) == pytest.approx(thin_y.mean(), abs=1e-4)
    assert len(plots.curves([Series("a", x, y)], "loss", 100_000)) < 150_000


def test_smoothing_neither_lags_nor_bends():
    line = np.linspace(3, 1, 500)
    smooth = plots._smooth(line)
    np.testing.assert_allclose(smooth[10:-10], line[10:-10])
    np.testing.assert_allclose(smooth, line, atol=0.01)


def test_smoothing_steps_over_what_is_missing():
    y = np.ones(100)
    y[40:60] = np.nan
    smooth = plots._smooth(y)
    assert np.isnan(smooth[50])
    np.testing.assert_allclose(smooth[np.isfinite(smooth)], 1.0)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.0005, "0.0005"), (12000, "12k"), (250000, "250k"), (3.5e6, "3.5M"), (2000, "2,000")],
)
def test_numbers_on_axes_are_short(value, shown):
    assert plots.number(value) == shown
