"""The renderer: what it makes of a trained run and of every kind of domain, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from functions import domains, vamoh
from functions.domains import Domain
from launch import render
from launch.data import fields
from launch.data.items import Items
from launch.experiments import field_render
from launch.experiments import vamoh as experiment
from tests.launch import small_vamoh

pytestmark = pytest.mark.slow  # whole programs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    small_vamoh.train(path, experiment="vamoh")
    return path


def call(run, *arguments):
    return render.main(["render", f"--workdir={run}", *arguments])


def arrays(folder):
    with np.load(folder / "arrays.npz") as stored:
        return dict(stored)


def files(folder):
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def trained(run):
    """Model, parameters and data of the run, for tests that ask the networks themselves."""
    config = small_vamoh.config(experiment="vamoh")
    field = experiment.load_field(config)
    state = small_vamoh.restored(run, experiment="vamoh")
    return experiment.make_model(config, field), jax.tree.map(lambda a: a[0], state.params), field


def test_super_resolution_leaves_arrays_a_figure_and_pictures_beside_the_run(run, capsys):
    before = files(run)
    assert call(run, "--task=super_resolution", "--size=24x40", "--num=2") == 0
    assert "2 of digits at 24x40 points" in capsys.readouterr().out
    folder = run / "renders" / "super_resolution_24x40"
    names = ("arrays.npz", "figure.png", "0.png", "1.png")
    assert files(run) == before | {(folder / name).relative_to(run) for name in names}
    drawn = arrays(folder)["render_24"]
    assert drawn.shape == (2, 24 * 40, 1)
    with Image.open(folder / "1.png") as picture:
        pixels = np.asarray(picture)
    np.testing.assert_array_equal(pixels, np.round(255 * drawn[1].reshape(24, 40)))


def test_renders_are_the_mixture_at_the_finer_coordinates(run):
    assert call(run, "--task=reconstruct", "--size=11", "--num=2", "--chunk=7") == 0
    stored = arrays(run / "renders" / "reconstruct_11x11")
    model, params, field = trained(run)
    assert field.domain == Domain("image", (8, 8))
    coords = domains.coordinates(Domain("image", (11, 11)))
    for z, found in zip(stored["z"], stored["render_11"], strict=True):
        variables = {"params": params}
        decoded = model.apply(variables, z, coords, method="decode")
        means = model.apply(variables, decoded, method="means")
        expected = jnp.sum(jnp.exp(decoded.log_pi)[..., None] * means, axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_posterior_draws_depend_on_the_seed_alone(run, tmp_path):
    def latents(name, *arguments):
        assert call(run, "--task=reconstruct", f"--output={tmp_path / name}", *arguments) == 0
        return arrays(tmp_path / name)["z"]

    mean = latents("mean")
    drawn = latents("drawn", "--z=sample")
    np.testing.assert_array_equal(latents("again", "--z=sample"), drawn)
    assert np.abs(drawn - mean).min() > 0
    assert np.abs(drawn - latents("other", "--z=sample", "--seed=1")).min() > 0


def test_interpolation_goes_from_item_to_item(run):
    assert call(run, "--task=interpolate", "--num=2") == 0
    assert call(run, "--task=reconstruct", "--num=4") == 0
    path, whole = (arrays(run / "renders" / f"{t}_8x8") for t in ("interpolate", "reconstruct"))
    assert path["steps"].shape == (2, field_render.STEPS, 64, 1)
    for end, items in ((0, slice(0, 2)), (-1, slice(2, 4))):
        np.testing.assert_allclose(path["z"][:, end], whole["z"][items], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(path["steps"][:, end], whole["render_8"][items], rtol=1e-4)
    assert np.ptp(whole["z"], axis=0).max() > 1e-3
    assert (run / "renders" / "interpolate_8x8" / "1_8.png").exists()


def test_segmentation_is_the_most_probable_component(run):
    assert call(run, "--task=segmentation", "--size=16", "--num=1") == 0
    folder = run / "renders" / "segmentation_16x16"
    stored = arrays(folder)
    model, params, field = trained(run)
    coords = domains.coordinates(Domain("image", (16, 16)))
    log_pi = model.apply({"params": params}, stored["z"][0], coords, method="decode").log_pi
    np.testing.assert_array_equal(stored["segments"][0], np.argmax(log_pi, axis=0))
    entropy = -np.sum(np.exp(log_pi) * log_pi, axis=0)
    np.testing.assert_allclose(stored["entropy"][0], entropy, rtol=1e-4)
    shown = stored["data"][0].reshape(8, 2, 8, 2)  # a datum is repeated on its four finer pixels
    np.testing.assert_array_equal(shown[:, 0, :, 0], shown[:, 1, :, 1])
    np.testing.assert_allclose(shown[:, 0, :, 0].ravel(), field.test[0, :, 0] / 16)
    with Image.open(folder / "0_entropy.png") as picture:
        assert picture.size == (16, 16)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--task=inpant"], "task 'inpant' is unknown; did you mean inpaint?"),
        (["--task=left", "--size=9x9x9"], "size has 3 axes, but a domain of kind 'image' has 2"),
        (["--task=left", "--size=big"], "--size=big: expected a number of points such as 512"),
        (["--task=left", "--size=0"], "--size=0: expected"),
        (["--task=interpolate", "--num=91"], "num=91 takes 182 test items, but digits has 180"),
        (["--task=left", "--chunk=0"], "--chunk=0: expected 1 or more"),
        (["--task=left", "--workdir=/dev/null"], "/dev/null holds no config.json"),
    ],
)
def test_wrong_request_is_one_sentence(run, capsys, arguments, sentence):
    assert call(run, *arguments) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert len(printed.splitlines()) == 1


def test_run_of_another_experiment_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"experiment": "tabular", "mesh": {}}')
    assert call(tmp_path, "--task=samples") == 2
    assert (
        "is a run of experiment 'tabular'; expected one of vamoh, gasp, functa"
        in capsys.readouterr().err
    )


KINDS = {  # domain -> (task, one size, the shape that it means)
    Domain("series", (12,)): ("left", 30, (30,)),
    Domain("sphere", (6, 12), "corners"): ("drop50", 9, (9, 18)),
    Domain("voxels", (6, 6, 6)): ("segmentation", 9, (9, 9, 9)),
    Domain("video", (3, 6, 4)): ("outpaint", 9, (3, 9, 6)),
}


def untrained(domain):
    """VAMoH with its first parameters, and random data of the domain with holes in it."""
    rng = np.random.default_rng(0)
    kind = "bernoulli" if domain.kind == "voxels" else "continuous_bernoulli"
    shapes = {part: (3, *domain.shape) for part in ("train", "valid", "test")}
    values = {p: np.round(rng.random((*s, 1))).astype(np.float32) for p, s in shapes.items()}
    masks = {part: rng.random(shape) > 0.2 for part, shape in shapes.items()}
    items = Items(domain, values, kind, 0, "Noise.", masks=masks)
    field = fields.make("noise", items)
    config = small_vamoh.config()
    net, geometry = experiment.make_model(config, field), experiment.make_geometry(config, domain)
    params = jax.jit(vamoh.init, static_argnums=1)(jax.random.key(0), net, geometry)
    return experiment.make_field_model(config, field, geometry), params, field


@pytest.mark.parametrize("domain", KINDS, ids=[domain.kind for domain in KINDS])
def test_every_kind_of_domain_is_drawn_and_hidden_values_do_not_matter(domain, tmp_path):
    task, size, shape = KINDS[domain]
    model, params, field = untrained(domain)
    finer = field_render.resolution(domain, task, (size,))
    assert finer == domain._replace(shape=shape)

    def draw(field):
        return field_render.render(
            jax.random.key(1), model, params, field, task, finer,
            num=2, estimate="sample", is_drawn=True, chunk=50, paper=False,
        )  # fmt: skip

    drawn = draw(field)
    assert not drawn.pictures  # of images only
    drawn.draw(drawn.arrays, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert np.asarray(picture).std() > 0
    name = "mean" if task == "segmentation" else f"render_{shape[0]}"
    assert drawn.arrays[name].shape == (2, np.prod(shape), 1)

    hidden = ~field.test_mask
    if task != "segmentation":
        hidden[:2] = np.isnan(drawn.arrays["input"][..., 0])
    spoiled = np.where(hidden[..., None], np.nan, field.test)
    again = draw(field._replace(test=spoiled))
    np.testing.assert_array_equal(again.arrays[name], drawn.arrays[name])
