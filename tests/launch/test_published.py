"""The published scores: complete, and those of the talk."""

import pytest

from launch.data import published


@pytest.mark.parametrize("table", published.TABLES)
def test_published_scores_have_a_mean_and_a_deviation_for_every_model(table):
    for model in published.models_of(table):
        found = published.scores(table, model)
        assert {"paper_nll_x", "paper_nll_y"} <= set(found)
        assert all(0 < std < abs(mean) for mean, std in found.values())


def test_published_scores_of_images():
    assert published.scores("mnist", "HH-VAE")["accuracy"] == (0.981, 0.005)
    assert published.scores("fashion_mnist", "VAE")["paper_nll_y"] == (0.501, 0.012)
    assert published.scores("mnist", "HH-VAEM") == {}
    assert "accuracy" not in published.scores("wine", "HH-VAEM")
