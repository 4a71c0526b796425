"""Functa: stored numbers, the inner loop against explicit ones, masks, batches, published sizes."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions import domains, functa
from functions.domains import Domain
from tests.functions.programs import dot_generals, jit, operands

GOLDEN = Path(__file__).parents[1] / "golden"
DOMAIN = Domain("image", (4, 5))
N, C, Z, B = 20, 2, 3, 4
MODEL = functa.Functa(C, Z, width=6, num_layers=2, omega=4.0)
COORDS = functa.coordinates(DOMAIN)


def stored(topic):
    """Returns the groups of a golden file by case and name."""
    groups = {}
    with np.load(GOLDEN / f"{topic}.npz") as file:
        for name in file.files:
            *group, key = name.split(".")
            groups.setdefault(tuple(group), {})[key] = file[name]
    return groups


def of_stored(group, latent_size):
    """Returns the module and parameters of a golden group."""
    weights = [group[f"weight{i}"] for i in range(sum(n.startswith("weight") for n in group))]
    names = [f"layer_{i}" for i in range(len(weights) - 1)] + ["output"]
    net = {
        name: {"kernel": weight, "bias": group[f"bias{i}"]}
        for i, (name, weight) in enumerate(zip(names, weights, strict=True))
    }
    width = weights[0].shape[1]
    model = functa.Functa(
        weights[-1].shape[1], latent_size, width, len(weights) - 1, float(group["omega"])
    )
    if "map_w" in group:
        net["shifts"] = {"kernel": group["map_w"], "bias": group["map_b"]}
    else:
        shifts = group["shifts"].ravel()
        net["shifts"] = {"kernel": np.zeros((latent_size, shifts.size)), "bias": shifts}
    return model, net


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_network_gives_the_stored_outputs(case):
    group = stored("functa_siren")[case, "shift_only"]
    model, net = of_stored(group, 1)
    with jax.enable_x64(True):
        got = model.apply({"params": net}, np.zeros(1), group["coords"])
        np.testing.assert_allclose(got, group["out"], rtol=1e-10, atol=1e-10)
    single = jax.tree.map(np.float32, net)
    got = model.apply({"params": single}, np.zeros(1, np.float32), np.float32(group["coords"]))
    np.testing.assert_allclose(got, group["out"], rtol=1e-5, atol=2e-6)


@pytest.mark.golden
@pytest.mark.parametrize("size", [4, 7])
def test_coordinates_are_the_stored_grids(size):
    group = stored("functa_siren")["c0", f"grid{size}"]
    for convention, name in (("centres", "coords"), ("corners", "coords_uncentred")):
        got = functa.coordinates(Domain("image", (size, size), convention))
        np.testing.assert_allclose(got, group[name].reshape(-1, 2), atol=1e-7)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
@pytest.mark.parametrize("name", ["meta_sgd", "meta_sgd_l2", "sgd"])
def test_inner_loop_gives_the_stored_numbers(case, name):
    group = stored("functa_inner_loop")[case, name]
    latent_size = len(group["first_gradient"])
    model, net = of_stored(group, latent_size)
    penalty = float(group["l2_weight"])
    steps = np.broadcast_to(group.get("step_sizes", group.get("learning_rate")), latent_size)
    coords, image = group["coords"].reshape(-1, 2), group["image"]
    values = image.reshape(len(coords), -1)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-10)

    def outer(log_step, num_steps):
        params = {"net": net, "log_step": log_step}
        error, fitted = functa.meta_loss(
            model, params, values, np.ones(len(coords), bool), coords,
            num_steps=num_steps, penalty=penalty,
        )  # fmt: skip
        return error + penalty * jnp.sum(fitted.latent**2), (error, fitted)

    with jax.enable_x64(True):
        slope_of = jit(jax.value_and_grad(outer, has_aux=True), static_argnums=1)
        for num in (1, 3, 10):
            (loss, (error, fitted)), slope = slope_of(np.log(steps), num)
            close(fitted.latent, group["trajectory"][num])
            close(fitted.losses, group["loss_per_step_10"][:num])
            close(loss, group["loss_per_step_10"][num])
            close(-10 * np.log10(error), group["psnr_per_step_10"][num])
            if num == 3 and "step_sizes" in group:
                close(slope / steps, group["grad_outer_loss_wrt_step_sizes"])
            if num == 1:
                close(-fitted.latent / steps, group["first_gradient"])


def drawn(seed=0, model=MODEL):
    """Returns parameters that are far from how they start."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: functa.init(jax.random.key(0), model, 2))
    params = jax.tree.map(lambda s: jnp.asarray(0.4 * rng.normal(size=s.shape), s.dtype), shapes)
    return params | {"log_step": params["log_step"] - 3.0}


def items(seed=0, num=B, rate=0.7):
    rng = np.random.default_rng(seed)
    values = rng.uniform(size=(num, N, C)).astype(np.float32)
    return values, rng.uniform(size=(num, N)) < rate


@functools.partial(jit, static_argnames=("num_steps", "is_first_order"))
def slope(params, values, mask, num_steps=3, is_first_order=False):
    """Returns the error after the steps, and its gradient, of one item."""
    return jax.value_and_grad(
        lambda params: functa.meta_loss(
            MODEL, params, values, mask, COORDS, num_steps=num_steps, is_first_order=is_first_order
        )[0]
    )(params)


@jit
def fit(params, values, mask):
    return functa.fit(MODEL, params, values, mask, COORDS)


@pytest.mark.parametrize("is_first_order", [False, True])
def test_gradient_is_that_of_an_explicit_loop(is_first_order):
    params, (values, masks) = drawn(), items()
    values, mask = values[0], masks[0]
    seen = np.flatnonzero(mask)

    def error(params, latent):
        outputs = functa.evaluate(MODEL, params, latent, COORDS[seen])
        return jnp.mean((outputs - values[seen]) ** 2)

    def loop(params):
        latent = jnp.zeros(Z)
        for _ in range(3):
            inner = jax.grad(error, argnums=1)(params, latent)
            inner = jax.lax.stop_gradient(inner) if is_first_order else inner
            latent = latent - jnp.exp(params["log_step"]) * inner
        return error(params, latent)

    want, want_slope = jit(jax.value_and_grad(loop))(params)
    got, got_slope = slope(params, values, mask, is_first_order=is_first_order)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6), got_slope, want_slope
    )


def test_gradient_agrees_with_finite_differences():
    """Through the steps, in double precision: along a direction in each group of parameters."""
    values, masks = items()
    with jax.enable_x64(True):
        params = jax.tree.map(np.float64, drawn())
        item = np.float64(values[0]), masks[0]
        loss, slopes = slope(params, *item)
        for seed, path in enumerate(("layer_0", "layer_1", "output", "shifts", "log_step")):
            rng = np.random.default_rng(seed)
            move = jax.tree_util.tree_map_with_path(
                lambda p, a, path=path, rng=rng: (
                    rng.normal(size=a.shape) if path in jax.tree_util.keystr(p) else 0.0 * a
                ),
                params,
            )
            up, down = (
                slope(jax.tree.map(lambda a, m, s=s: a + s * m, params, move), *item)[0]
                for s in (1e-5, -1e-5)
            )
            dots = jax.tree.map(lambda a, b: jnp.sum(a * b), slopes, move)
            along = sum(jax.tree.leaves(dots))
            np.testing.assert_allclose((up - down) / 2e-5, along, rtol=1e-5, atol=1e-9)
        assert loss > 0


def test_small_steps_descend():
    params, (values, masks) = drawn(), items()
    params["log_step"] -= 3.0
    fitted = fit(params, values[0], masks[0])
    error = functa.squared_error(
        functa.evaluate(MODEL, params, fitted.latent, COORDS), values[0], masks[0]
    )
    assert np.all(np.diff([*fitted.losses, error]) < 0)


def test_hidden_points_do_not_matter():
    params, (values, masks) = drawn(), items()
    hidden = np.where(masks[0][:, None], values[0], np.nan)
    (error, slopes), fitted = slope(params, hidden, masks[0]), fit(params, hidden, masks[0])
    want, want_slopes = slope(params, values[0], masks[0])
    np.testing.assert_array_equal(error, want)
    jax.tree.map(np.testing.assert_array_equal, slopes, want_slopes)
    np.testing.assert_array_equal(fitted.latent, fit(params, values[0], masks[0]).latent)


def test_without_an_observed_point_the_latent_stays_and_gradients_are_zero():
    params, nothing = drawn(), np.full((N, C), np.nan, np.float32)
    error, slopes = slope(params, nothing, np.zeros(N, bool))
    assert error == 0
    jax.tree.map(lambda a: np.testing.assert_array_equal(a, 0.0), slopes)
    np.testing.assert_array_equal(fit(params, nothing, np.zeros(N, bool)).latent, 0.0)


def test_a_batch_is_its_items():
    params, (values, masks) = drawn(), items()
    batched = jit(jax.vmap(lambda v, m: functa.fit(MODEL, params, v, m, COORDS)))(values, masks)
    for i in range(B):
        one = fit(params, values[i], masks[i])
        np.testing.assert_allclose(batched.latent[i], one.latent, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(batched.losses[i], one.losses, rtol=1e-4)


def test_items_share_what_no_latent_has_entered():
    """The coordinates' product with the first layer, and the forward pass of the first step."""
    params, (values, masks) = drawn(), items()
    batched = jax.vmap(lambda v, m: functa.fit(MODEL, params, v, m, COORDS, num_steps=2).latent)
    products = [operands(p) for p in dot_generals(jax.make_jaxpr(batched)(values, masks).jaxpr)]
    first = [shapes for shapes in products if (2, 6) in shapes]
    assert len(first) == 2
    assert all((N, 2) in shapes for shapes in first)
    is_shared = [(N, 6) in shapes for shapes in products if (6, 6) in shapes]
    assert is_shared == [True, False, False, False]  # forward and backward, of the two steps


@pytest.mark.parametrize(
    ("latent_size", "count"),
    [(64, 3883587), (128, 4342403), (256, 5260035), (512, 7095299), (1024, 10765827)],
)
def test_published_sizes(latent_size, count):
    init = lambda: functa.init(jax.random.key(0), functa.Functa(3, latent_size), 2)
    params = jax.eval_shape(init)
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(params)]
    assert sum(sizes) == count
    shared = {name: leaf for name, leaf in params["net"].items() if name != "shifts"}
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shared)) == 3417603


def test_how_parameters_start(key):
    model = functa.Functa(3, 50, width=40, num_layers=3, omega=30.0)
    params = functa.init(key, model, 2)
    steps = np.exp(params["log_step"])
    assert 0.005 <= steps.min() < 0.02 < 0.08 < steps.max() <= 0.1
    bound = math.sqrt(6 / 40) / 30
    for name, limit in (("layer_0", 0.5), ("layer_1", bound), ("output", bound)):
        kernel = np.abs(params["net"][name]["kernel"])
        assert 0.9 * limit < kernel.max() <= limit
    kernel = np.asarray(params["net"]["shifts"]["kernel"])
    assert np.abs(kernel).max() <= 2 / math.sqrt(50)
    np.testing.assert_allclose(kernel.std(), 0.8796 / math.sqrt(50), rtol=0.03)  # cut at two


def test_rendering_in_chunks_and_at_other_resolutions():
    params, latent = drawn(), np.float32([0.3, -0.2, 0.5])
    whole = functa.evaluate(MODEL, params, latent, COORDS)
    for chunk in (3, 20, 100):
        got = functa.render(MODEL, params, latent, COORDS, chunk=chunk)
        np.testing.assert_allclose(got, whole, rtol=1e-5, atol=1e-6)
    finer = functa.coordinates(domains.resized(DOMAIN, (12, 15)))  # centres of three are centres
    rendered = functa.render(MODEL, params, latent, finer, chunk=64).reshape(12, 15, C)
    np.testing.assert_allclose(rendered[1::3, 1::3].reshape(N, C), whole, rtol=1e-4, atol=1e-5)


def test_coordinates_of_the_sphere_are_unit_vectors():
    coords = functa.coordinates(Domain("sphere", (4, 6)))
    np.testing.assert_allclose(np.linalg.norm(coords, axis=-1), 1.0, rtol=1e-6)
