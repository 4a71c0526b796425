"""GASP: stored numbers, the penalty, the order of points, averages, alarms."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from functions import domains, gasp, siren
from functions.domains import Domain
from tests.functions.programs import jit

GOLDEN = Path(__file__).parents[1] / "golden" / "gasp_r1.npz"
DOMAIN = Domain("image", (5, 6))
N, C = 30, 2
TABLES = domains.tables(domains.positions(DOMAIN), ((9, 9), (9, 4), (1, 9)))
COORDS = domains.coordinates(DOMAIN)
DISCRIMINATORS = {
    "default": (gasp.Discriminator((4, 5, 6), (6,)), gasp.Geometry(COORDS, TABLES)),
    "paper": (
        gasp.PaperDiscriminator((4, None, 1), (6, 5)),
        gasp.Geometry(COORDS, tuple(t._replace(offset=None) for t in TABLES)),
    ),
}
EACH = pytest.mark.parametrize("name", DISCRIMINATORS)
MASK = np.arange(N) % 3 != 1


def values_of(seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (N, C)).astype(np.float32)


def drawn(module, *inputs):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return jax.tree.map(lambda s: jnp.asarray(0.4 * rng.normal(size=s.shape), s.dtype), shapes)


@functools.partial(jit, static_argnums=0)
def judge(module, params, *inputs):
    return module.apply({"params": params}, *inputs)


# --- the discriminator


@EACH
def test_the_order_of_points_does_not_matter(name):
    module, geometry = DISCRIMINATORS[name]
    params = drawn(module, values_of(), MASK, geometry)
    order = np.random.default_rng(1).permutation(N)  # new point i is old point order[i]
    place = np.argsort(order)
    first, *rest = geometry.tables
    first = first._replace(centre=place[first.centre], index=place[first.index])
    moved = gasp.Geometry(geometry.coords[order], (first, *rest))
    want = judge(module, params, values_of(), MASK, geometry)
    got = judge(module, params, values_of()[order], MASK[order], moved)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    mixed = judge(module, params, values_of()[order], MASK, geometry)  # values elsewhere
    assert abs(mixed - want) > 1e-4


@EACH
def test_nothing_under_the_mask_reaches_logit_or_penalty(name):
    module, geometry = DISCRIMINATORS[name]
    params = drawn(module, values_of(), MASK, geometry)

    @jit
    def both(values):
        logit = lambda values: module.apply({"params": params}, values, MASK, geometry)
        return logit(values), jax.grad(logit)(values)

    want, slope = both(values_of())
    assert not slope[~MASK].any()
    assert slope[MASK].any(axis=-1).all()  # every observed point counts
    for other in (0.5, np.nan, np.inf):
        again = both(np.where(MASK[:, None], values_of(), np.float32(other)))
        jax.tree.map(np.testing.assert_array_equal, again, (want, slope))


# --- losses


def test_losses_at_balance_and_far_from_it():
    zeros = jnp.zeros(3)
    assert gasp.discriminator_loss(zeros, zeros) == pytest.approx(gasp.BALANCE)
    assert gasp.generator_loss(zeros) == pytest.approx(math.log(2))
    far = jnp.full(3, 200.0)  # where probabilities of single precision are 0 and 1
    assert gasp.discriminator_loss(-far, far) == pytest.approx(400.0)
    assert gasp.generator_loss(-far) == pytest.approx(200.0)
    assert jax.grad(lambda f: gasp.generator_loss(f))(-far) == pytest.approx(-np.ones(3) / 3)


@pytest.mark.parametrize("paper", [False, True])
def test_r1_of_a_network_by_finite_differences(paper):
    module, geometry = DISCRIMINATORS["default"]
    with jax.enable_x64(True):
        values = jnp.asarray(values_of(), jnp.float64)
        shapes = drawn(module, values_of(), MASK, geometry)
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), shapes)
        logit = lambda v: module.apply({"params": params}, v, MASK, geometry)
        got, compiled = jit(lambda v: gasp.r1(logit, v, paper=paper))(values), jit(logit)
        output = (lambda v: 1 / (1 + np.exp(-compiled(v)))) if paper else compiled
        slopes = []
        for n, c in np.ndindex(N, C):
            step = np.zeros((N, C))
            step[n, c] = 1e-5
            slopes.append((output(values + step) - output(values - step)) / 2e-5)
    np.testing.assert_allclose(got, np.square(slopes).sum(), rtol=1e-6)


def test_penalty_of_the_probability_vanishes_where_it_saturates():
    slope = jnp.ones((4, 1))
    logit = lambda values: jnp.sum(slope * values)
    sure = jnp.full((4, 1), 10.0)
    assert gasp.r1(logit, sure) == pytest.approx(4.0)
    assert gasp.r1(logit, sure, paper=True) < 1e-16


def test_lazy_gradients_sum_to_those_of_every_step():
    """At fixed weights: k steps of the lazy gradient are k steps of the full one."""
    every, weights = 4, {"w": jnp.arange(3.0)}
    gradient = lambda: jax.value_and_grad(lambda p: jnp.sum(jnp.sin(p["w"])))(weights)
    lazy = jit(lambda step: gasp.lazily(step, every, gradient))
    steps = [lazy(step) for step in range(3, 3 + every)]
    assert [float(value) > 0 for value, _ in steps] == [False, True, False, False]
    total = jax.tree.map(lambda *parts: sum(parts), *steps)
    full = jax.tree.map(lambda a: every * a, gradient())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), total, full)


# --- averages and alarms


def test_average_is_the_weighted_sum_of_what_it_followed():
    rng = np.random.default_rng(0)
    start, news = rng.normal(size=3), rng.normal(size=(40, 3))
    rates = np.array([min(0.8, (1 + t) / (10 + t)) for t in range(len(news))])
    assert rates[0] < 0.8 == rates[-1]
    averaged = {"w": jnp.asarray(start)}
    follow = jit(lambda step, averaged, new: gasp.follow(step, averaged, new, 0.8))
    for t, new in enumerate(news):
        averaged = follow(t, averaged, {"w": new})
    left = np.append(np.cumprod(rates[::-1])[::-1], 1.0)  # what later steps keep
    want = left[0] * start + ((1 - rates) * left[1:]) @ news
    np.testing.assert_allclose(averaged["w"], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_spread_is_the_standard_deviation_of_what_is_observed(rate):
    rng = np.random.default_rng(0)
    values, mask = rng.normal(size=(5, 12, C)), rng.random((5, 12)) >= rate
    seen = np.ma.array(values, mask=np.broadcast_to(~mask[..., None], values.shape))
    want = np.sqrt(np.square(seen - seen.mean(axis=0)).mean())
    got = jit(gasp.spread)(np.where(mask[..., None], values, np.nan), mask)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_items_that_are_one_have_no_spread():
    one = np.broadcast_to(values_of(), (5, N, C))
    assert gasp.spread(one, np.ones((5, N), bool)) == pytest.approx(0.0, abs=1e-6)


SOUND = gasp.Watch(loss=gasp.BALANCE, contrast=0.3, variety=0.8, norm=1.0)
LIMITS = gasp.Watch(loss=0.1, contrast=0.01, variety=0.05, norm=50.0)
HORIZON = 10
look = jit(functools.partial(gasp.look, limits=LIMITS, horizon=HORIZON))


def alarms_of(games):
    """Returns the alarms of every step, a Watch of lists."""
    means, found = gasp.watch(), []
    for seen in games:
        means, alarms = look(means, jax.tree.map(jnp.float32, seen))
        found.append(jax.device_get(alarms))
    return jax.tree.map(lambda *steps: np.array(steps), *found)


def test_a_sound_game_and_single_bad_steps_raise_no_alarm():
    games = [SOUND] * 50
    games[10] = SOUND._replace(loss=0.0)  # the discriminator is sure
    games[20] = SOUND._replace(contrast=0.0)
    games[30] = SOUND._replace(variety=0.0)
    games[40] = SOUND._replace(norm=300.0)
    alarms = alarms_of(games)
    for name, at in (("loss", 10), ("contrast", 20), ("variety", 30), ("norm", 40)):
        near = getattr(alarms, name)
        assert near.max() < 1
        assert near[at] > near[at - 1]


def test_a_discriminator_at_chance_raises_no_alarm():
    """It cannot tell, but its logits vary: so it ends where the generator is perfect."""
    games = [SOUND._replace(loss=gasp.BALANCE, contrast=0.05)] * 200
    assert all((near < 1).all() for near in alarms_of(games))


@pytest.mark.parametrize("name", ["loss", "contrast", "variety"])
def test_what_stays_at_zero_raises_its_alarm_when_the_mean_reaches_the_limit(name):
    """After a sound beginning: sure of everything, the same logit for all, one generated item."""
    begun, lost = 200, 100
    alarms = alarms_of([SOUND] * begun + [SOUND._replace(**{name: 0.0})] * lost)
    wait = math.log(getattr(LIMITS, name) / getattr(SOUND, name)) / math.log(1 - 1 / HORIZON)
    raised = begun + math.ceil(wait) - 1
    near = getattr(alarms, name)
    assert (near[:raised] < 1).all()
    assert np.isinf(near[raised:]).all()
    others = alarms._replace(**{name: np.zeros(1)})
    assert all((near < 1).all() for near in others)


@pytest.mark.parametrize("norm", [1e3, np.inf, np.nan])
def test_gradients_out_of_bounds_raise_the_alarm_at_once(norm):
    alarms = alarms_of([SOUND, SOUND._replace(norm=norm), SOUND])
    assert alarms.norm[0] < 1
    assert np.isinf(alarms.norm[1:]).all()


@pytest.mark.parametrize("name", ["loss", "contrast", "variety"])
def test_nan_raises_the_alarm_at_once(name):
    near = getattr(alarms_of([SOUND, SOUND._replace(**{name: np.nan})]), name)
    assert near[0] < 1
    assert np.isinf(near[1])


# --- the generator

FOURIER = gasp.Generator(siren.FourierMLP((6,), C, num_frequencies=4), 2, 3, (5,))


@pytest.mark.parametrize("chunk", [7, 1000])
def test_render_is_the_function_in_the_unit_of_the_data(chunk):
    z = jnp.ones(3)
    params = drawn(FOURIER, z, COORDS)
    render = functools.partial(gasp.render, FOURIER, chunk=chunk)
    got = jit(render)(params, z, COORDS)
    want = (1 + FOURIER.apply({"params": params}, z, COORDS)) / 2
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert (got > 0).all()
    assert (got < 1).all()
    assert np.ptp(got) > 0.1


@pytest.mark.parametrize(
    ("representation", "coord_size", "per_function", "total"),
    [
        (siren.FourierMLP((128,) * 3, 3), 2, 66_307, 34_163_715),  # images
        (siren.FourierMLP((128,) * 3, 1), 3, 66_049, 34_031_361),  # ERA5
        (siren.CoordinateMLP((128,) * 3, 1), 3, 33_665, 17_418_369),  # voxels
    ],
)
def test_published_parameter_counts(representation, coord_size, per_function, total):
    module = gasp.Generator(representation, coord_size, 64, (256, 512), raw=True)
    inputs = jnp.zeros(64), jnp.zeros((1, coord_size))
    count = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
    one = jax.eval_shape(representation.init, jax.random.key(0), inputs[1][0])
    assert count(one) == per_function
    assert count(jax.eval_shape(module.init, jax.random.key(0), *inputs)) == total


# --- stored numbers


def load(group):
    stored, prefix = np.load(GOLDEN), f"{group}."
    return {k[len(prefix) :]: stored[k] for k in stored.files if k.startswith(prefix)}


close = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-9)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_losses_and_penalties_of_a_quadratic(case):
    g = load(f"{case}.quadratic")
    with jax.enable_x64(True):
        quadratic = lambda f: 0.5 * f.ravel() @ (g["A"] @ f.ravel()) + g["b"] @ f.ravel()
        logits = {
            name: jax.vmap(quadratic)(jnp.asarray(g[key]))
            for name, key in (("real", "features"), ("fake", "fake_features"))
        }
        close(logits["real"], g["logit_real"][:, 0])
        close(jax.nn.sigmoid(logits["fake"]), g["prob_fake"][:, 0])
        per_item = lambda paper: jax.vmap(lambda f: gasp.r1(quadratic, f, paper=paper))(
            jnp.asarray(g["features"])
        )
        close(per_item(False), g["r1_per_item_on_logits"])
        close(per_item(True), g["r1_per_item_ref"])
        penalty = 0.5 * g["r1_weight"] * per_item(True).mean()
        close(penalty, g["r1_term_ref"])
        loss = gasp.discriminator_loss(logits["real"], logits["fake"])
        close(loss + penalty, g["disc_loss_ref"])
        close(gasp.generator_loss(logits["fake"]), g["gen_loss_ref"])


def stored_params(g, num_weights):
    """Returns a PaperPointConv's parameters; stored matrices are [out, in]."""
    names = {f"weight_{i}": f"weightnet_{{}}{i}" for i in range(num_weights)}
    names["linear"] = "linear_{}"
    return {
        name: {"kernel": jnp.asarray(g[key.format("w")].T), "bias": jnp.asarray(g[key.format("b")])}
        for name, key in names.items()
    }


class Stored(nn.Module):
    """The stored network: the released blocks with a weight network of its own a level."""

    @nn.compact
    def __call__(self, values, geometry):
        mask = jnp.ones(len(values), bool)
        first, second = geometry.tables
        layer = lambda channels, widths: gasp.PaperPointConv(channels, widths, LEAKY)
        h = LEAKY(layer(4, (3, 3))(values, mask, geometry.coords, first))
        mask, points = mask[first.centre], geometry.coords[first.centre]
        return layer(1, (3,))(h, mask, points, second)[0, 0]


LEAKY = functools.partial(nn.leaky_relu, negative_slope=0.2)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_penalties_of_a_point_network(case):
    g = load(f"{case}.pointconv")
    coords, stages = g["coords"], tuple(zip(g["num_out"].tolist(), g["k"].tolist(), strict=True))
    geometry = gasp.Geometry(coords, domains.tables(coords, stages, features=coords))
    with jax.enable_x64(True):
        params = {
            f"PaperPointConv_{i}": stored_params(load(f"{case}.pointconv.layer{i}"), 2 - i)
            for i in range(2)
        }
        logit = lambda values: Stored().apply({"params": params}, values, geometry)

        def all_three(values):
            probability = jax.nn.sigmoid(logit(values))
            return probability, gasp.r1(logit, values), gasp.r1(logit, values, paper=True)

        out = jit(jax.vmap(all_three))(jnp.asarray(g["features"]))
    probability, on_logits, on_probabilities = out
    close(probability, g["prob"][:, 0])
    close(on_logits, g["r1_per_item_on_logits"])
    close(on_probabilities, g["r1_per_item_ref"])
    close(5.0 * np.asarray(on_probabilities).mean(), g["r1_term_ref"])
