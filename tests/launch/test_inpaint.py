"""In-painting: where the holes are, what fills them, how it is scored, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from launch import inpaint
from launch.experiments import images
from tests.launch import small_images

pytestmark = pytest.mark.slow  # whole programs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with HMC, and one without."""
    paths = {}
    for model in ("hh-vae", "vae"):
        paths[model] = tmp_path_factory.mktemp(model)
        small_images.train(paths[model], model)
    return paths


def call(*words):
    return inpaint.main(["inpaint", *map(str, words)])


def holes(name, size=None, shape=(8, 10, 3), num=4, seed=0):
    shown = inpaint.make_mask(np.random.default_rng(seed), name, shape, num, size)
    assert shown.dtype == bool
    hidden = ~shown.reshape(num, *shape)
    np.testing.assert_array_equal(hidden, hidden[..., :1].repeat(shape[2], axis=-1))
    return hidden[..., 0]


def test_a_square_is_one_hole_for_all_images_at_any_place_inside():
    places = set()
    for seed in range(200):
        hidden = holes("square", 2, seed=seed)
        assert (hidden == hidden[0]).all()
        rows, columns = np.nonzero(hidden[0])
        assert len(rows) == 16
        assert np.ptp(rows) == np.ptp(columns) == 3
        places.add((rows.min(), columns.min()))
    assert places == {(i, j) for i in range(4) for j in range(6)}


def test_the_published_square_is_half_the_side():
    assert holes("square", shape=(28, 28, 1)).sum() == 4 * 14**2
    assert holes("square", shape=(64, 64, 3)).sum() == 4 * 32**2


def test_halves_and_borders():
    assert holes("left")[0, :, :5].all()
    assert holes("top")[0, :4].all()
    for first, second in (("left", "right"), ("top", "bottom")):
        np.testing.assert_array_equal(holes(first), ~holes(second))
    assert not holes("border", 3)[0, 3:5, 3:7].any()
    assert holes("border", 3)[0].sum() == 80 - 2 * 4


def test_dropped_pixels_are_as_many_as_asked_and_others_in_every_image():
    hidden = holes("drop70", shape=(28, 28, 1), num=50)
    error = 4 * np.sqrt(0.7 * 0.3 / hidden.size)
    assert abs(hidden.mean() - 0.7) < error
    assert (hidden[0] != hidden[1]).any()
    few = holes("drop10", shape=(4, 4, 1), num=100)
    assert few.any(axis=(1, 2)).all()  # or the score would be of nothing


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("sqare", None, "mask 'sqare' is unknown; use one of square, border"),
        ("left", 3, "mask 'left' has no size"),
        ("square", 4, "size=4: expected 1 to 3 for 8 pixels"),
        ("border", 0, "size=0: expected"),
    ],
)
def test_impossible_masks_are_refused(name, size, sentence):
    with pytest.raises(ValueError, match=sentence):
        holes(name, size)


def completed(run, x, shown, target=None, num_samples=50):
    return images.complete(
        jax.random.key(1), run.model, run.params, run.scaler, x, shown, target,
        num_samples=num_samples, schedule=run.schedule,
    )  # fmt: skip


def test_the_score_of_a_hole_is_the_joint_density_of_its_pixels():
    """A decoder that ignores its input makes the mixture over samples one product of densities."""
    run = small_images.untrained("digits,vae,smoke", small_images.digits())
    decoder = jax.tree.map(jnp.zeros_like, run.params["decoder"])
    logits = jnp.linspace(-2.0, 2.0, 64)
    decoder["layer1"]["affine"]["bias"] = logits
    run = run._replace(params={**run.params, "decoder": decoder})
    x = np.float32(run.table.x[:5])
    shown = inpaint.make_mask(np.random.default_rng(0), "drop40", (8, 8, 1), 5)
    done = completed(run, x, shown)
    prob = jax.nn.sigmoid(logits)
    density = np.where(x == 1, prob, 1 - prob)
    np.testing.assert_allclose(done.log_prob, np.log(density).sum(1, where=~shown), rtol=1e-4)
    np.testing.assert_allclose(done.mean, np.where(shown, x, prob), rtol=1e-5)


def test_what_is_hidden_moves_the_score_and_nothing_else():
    run = small_images.untrained("digits,hh-vae,smoke", small_images.digits())
    x = np.float32(run.table.x[:5])
    shown = inpaint.make_mask(np.random.default_rng(0), "square", (8, 8, 1), 5)
    first, other = (completed(run, v, shown) for v in (x, np.where(shown, x, 1 - x)))
    np.testing.assert_array_equal(first.mean[~shown], other.mean[~shown])
    np.testing.assert_array_equal(first.draw[~shown], other.draw[~shown])
    assert (first.log_prob != other.log_prob).all()


def test_a_label_that_is_given_is_read():
    run = small_images.untrained("digits,vae,smoke", small_images.digits())
    x, shown = np.float32(run.table.x[:5]), np.zeros((5, 64), bool)
    said = [completed(run, x, shown, np.full((5, 1), label, np.float32)) for label in (3, 4)]
    unsaid = completed(run, x, shown)
    assert np.abs(said[0].mean - said[1].mean).min() > 0
    assert np.abs(said[0].mean - unsaid.mean).min() > 0


def test_program_leaves_a_picture_arrays_and_scores_beside_the_first_run(runs, capsys):
    words = (f"--workdirs={runs['vae']},{runs['hh-vae']}", "--num=5", "--num_samples=30")
    assert call(*words) == 0
    folder = runs["vae"] / "inpaint" / "square"
    assert str(folder) in capsys.readouterr().out
    scores = json.loads((folder / "scores.json").read_text())
    stored = small_images.arrays(folder / "arrays.npz")
    assert [m["name"] for m in scores["models"]] == list(stored["models"]) == ["VAE", "HH-VAE"]
    assert scores["models"][0]["acceptance"] == 1.0
    assert 0 < scores["models"][1]["acceptance"] < 1
    assert (stored["nll_hole"] > 0).all()
    np.testing.assert_allclose(scores["models"][1]["nll_hole"], stored["nll_hole"][1].mean())
    shown, original = stored["mask"], stored["original"]
    assert (~shown).sum() == 5 * 16
    np.testing.assert_array_equal(stored["filled"][:, shown], stored["mean"][:, shown])
    np.testing.assert_array_equal(stored["filled"][0][shown], original[shown])
    with Image.open(folder / "figure.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 0
    assert call(*words, "--mask=left", "--target=7", "--show=draw") == 0
    assert call(*words, "--mask=left", "--target=own", "--show=draw") == 0
    again = small_images.arrays(runs["vae"] / "inpaint" / "left" / "arrays.npz")
    np.testing.assert_array_equal(again["rows"], stored["rows"])
    np.testing.assert_array_equal(again["filled"], again["draw"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--mask=hole"], "mask 'hole' is unknown"),
        (["--target=ten"], "--target=ten: expected own or one of 0, 1, 2"),
        (["--num=0"], "--num=0: expected 1 or more"),
        (["--workdirs=,"], "--workdirs is empty"),
        (["--workdirs=absent"], "absent holds no config.json"),
    ],
)
def test_wrong_requests_are_one_sentence(runs, capsys, words, sentence):
    assert call(f"--workdirs={runs['vae']}", *words) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert len(printed.splitlines()) == 1
