"""VAMoH: bounds and their order, symmetries, masks, gradients, published sizes."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions import domains, encodings, observations, siren, vamoh
from functions.domains import Domain, Table
from hmcvae.gaussian import kl_to_standard_normal
from tests.functions.programs import dot_generals, jit, operands

DOMAIN = Domain("image", (5, 7))
N, C, K, Z = 35, 2, 3, 4
SIZES = {
    "coord_size": 2, "num_channels": C, "latent_size": Z, "num_components": K, "prior_layers": 1,
    "encoder_channels": (4,), "encoder_weight_widths": (3,), "hyper_widths": (6,),
    "gate_widths": (7,), "num_frequencies": 3,
}  # fmt: skip
VARIANTS = {
    "exact": {},
    "published": {"bound": "published"},
    "paper": {"paper": True, "bound": "published", "prior": "planar", "share_trunk": False},
}
EACH = pytest.mark.parametrize("name", ["exact", "paper"])


def build(name="exact", **changes):
    options = VARIANTS[name] | changes
    coords, features = domains.coordinates(DOMAIN), None
    represent = siren.Siren((5,), C, omega=3.0)
    if options.get("paper"):
        represent = siren.FourierMLP((5,), C, num_frequencies=3)
        features = np.asarray(encodings.fourier_features(encodings.frequencies(3, 2), coords))
    tables = domains.tables(domains.positions(DOMAIN), ((6, 5),))
    return vamoh.VAMoH(represent, **SIZES | options), vamoh.Geometry(coords, tables, features)


def drawn(model, geometry, seed=0):
    """Returns parameters drawn without a regard to how they should start."""
    rng = np.random.default_rng(seed)
    init = lambda key: vamoh.init(key, model, geometry)
    shapes = jax.eval_shape(init, jax.random.key(0))
    params = jax.tree.map(lambda s: jnp.asarray(0.5 * rng.normal(size=s.shape), s.dtype), shapes)
    if "gate" in params and not model.paper:  # which cannot be sharp
        params["gate"]["output"]["kernel"] *= 6.0
    if "log_scale" in params:
        params["log_scale"] = params["log_scale"] * 0.3 - 1.5
    return params


def item(seed=0, rate=0.6):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(N, C)).astype(np.float32), rng.uniform(size=N) < rate


@functools.cache
def setting(name="exact", **changes):
    """Returns a model and the other arguments of its functions: parameters, item, geometry."""
    model, geometry = build(name, **changes)
    return model, drawn(model, geometry), *item(), geometry


def slopes(key, model, *args, flags=(False, False), chunk=0):
    """Returns the terms, and gradients to parameters and values of the bound and of its kl_z."""
    return _slopes(key, model, *args, jnp.asarray(flags), chunk=chunk)


@functools.partial(jit, static_argnums=1, static_argnames="chunk")
def _slopes(key, model, params, values, mask, geometry, flags, chunk):
    def terms(params, values):
        options = {"is_standard": flags[0], "is_uniform": flags[1], "chunk": chunk}
        return vamoh.elbo(key, model, params, values, mask, geometry, **options)

    out, pull = jax.vjp(terms, params, values)
    both = jax.vmap(pull)(
        vamoh.Terms(jnp.array([1.0, 0]), jnp.array([-1.0, 1]), jnp.array([-1.0, 0]))
    )
    return out, *(jax.tree.map(lambda g, i=i: g[i], both) for i in range(2))


@functools.partial(jit, static_argnums=1)
def parts(key, model, params, values, mask, geometry):
    """Returns z with mean and log_var, the mixture at z, theta, log q(c) and log p(z)."""
    apply = lambda method, *args: model.apply({"params": params}, *args, method=method)
    mean, log_var = apply("encode", values, mask, geometry)
    z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, (Z,))
    log_q = None
    if model.bound == "published":
        log_q = apply("log_q", z, apply("embed", geometry.coords), values)
    decoded = apply("decode", z, geometry.coords)
    return (z, mean, log_var), decoded, apply("emit", z), log_q, apply("prior_log_prob", z)


def log_prob(model, params, values, logits):
    """Returns log p(y | c) of outputs of components, summed over channels."""
    log_scale = math.log(0.1) if model.paper else params["log_scale"]
    table = observations.log_prob("logistic", values, logits, log_scale, paper=model.paper)
    return np.float64(table.sum(-1))


def close(got, want, rtol=1e-4, atol=1e-4):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, want)


def same(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


# --- decoding


def test_decoding_is_the_loop_over_components_and_points(key):
    for name in ("exact", "paper"):
        model, *args = setting(name)
        _, decoded, theta, _, _ = parts(key, model, *args)
        one_point = jit(model.representation.apply)
        for k in range(K):
            params = {"params": jax.tree.map(lambda leaf, k=k: leaf[k], theta)}
            for n in (0, 17, N - 1):
                want = one_point(params, args[-1].coords[n])
                np.testing.assert_allclose(decoded.logits[k, n], want, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(jnp.exp(decoded.log_pi).sum(0), 1.0, rtol=1e-5)


@EACH
def test_shared_coordinates_enter_one_product_for_all_items_and_components(name):
    model, params, _, _, geometry = setting(name)
    batch = 11
    decode = lambda z: model.apply({"params": params}, z, geometry.coords, method="decode")
    jaxpr = jax.make_jaxpr(jax.vmap(decode))(jnp.zeros((batch, Z))).jaxpr
    size = 2 if name == "exact" else 6  # coordinates, or their Fourier features
    found = {"network": [], "gate": []}
    for equation in dot_generals(jaxpr):
        if (batch, K, size, 5) in operands(equation):
            found["network"].append(equation)
        elif (6, 7) in operands(equation):
            found["gate"].append(equation)
    assert len(found["network"]) == 1
    assert len(found["gate"]) == ("gate" in params) + ("posterior_gate" in params)
    for where, shared in (("network", {(N, size), (size, N)}), ("gate", {(N, 6)})):
        for equation in found[where]:
            assert set(operands(equation)) & shared  # not repeated for every item
            assert equation.params["dimension_numbers"][1] == ((), ())


@EACH
def test_permuted_components_give_permuted_outputs(name, key):
    model, params, *data = setting(name)
    order, moved = np.array([2, 0, 1]), dict(params)
    moved["hyper"] = jax.tree.map(
        lambda leaf: leaf[order] if leaf.shape[0] == K else leaf, params["hyper"]
    )
    for gate in {"gate", "posterior_gate"} & set(params):
        output = jax.tree.map(lambda leaf: leaf[..., order], params[gate]["output"])
        moved[gate] = params[gate] | {"output": output}
    if "log_scale" in params:
        moved["log_scale"] = params["log_scale"][order]
    decoded, again = (parts(key, model, p, *data)[1] for p in (params, moved))
    close(again, jax.tree.map(lambda leaf: leaf[order], decoded), atol=1e-5)
    assert jnp.abs(again.log_pi - decoded.log_pi).max() > 0.5
    close(*(slopes(key, model, p, *data)[0] for p in (params, moved)))


# --- bounds


@EACH
def test_terms_are_those_of_the_definition(name, key):
    model, params, values, mask, geometry = setting(name)
    args = (key, model, params, values, mask, geometry)
    (_, mean, log_var), decoded, _, log_q, log_prior = parts(*args)
    log_lik = log_prob(model, params, values, decoded.logits)[:, mask]
    log_q = None if log_q is None else np.float64(log_q[:, mask])

    def expected(log_pi):
        if name == "exact":
            return np.log(np.exp(log_pi + log_lik).sum(0)).sum(), 0.0
        q = np.exp(log_q)
        return (q * log_lik).sum(), (q * (log_q - log_pi)).sum()

    terms = slopes(*args)[0]
    close((terms.log_lik, terms.kl_c), expected(np.float64(decoded.log_pi[:, mask])))
    entropy = 0.5 * jnp.sum(1 + math.log(2 * math.pi) + log_var)
    close(terms.kl_z, -log_prior - (0.0 if name == "paper" else entropy))
    # the published schedules: a standard prior, uniform components
    terms = slopes(*args, flags=(True, True))[0]
    close((terms.log_lik, terms.kl_c), expected(-math.log(K)))
    close(terms.kl_z, kl_to_standard_normal(mean, log_var).sum())


def test_bounds_come_in_order_below_the_evidence():
    """One latent, so that the evidence is an integral on a line."""
    published, geometry = build("published", latent_size=1)
    exact = published.clone(bound="exact")
    params, (values, mask) = drawn(published, geometry), item(rate=0.3)
    grid = jnp.linspace(-9.0, 9.0, 2001)[:, None]
    keys = jax.random.split(jax.random.key(1), 400)

    @jit
    def run(params, keys):
        def joint(z):
            log_lik = vamoh.log_likelihood(exact, params, z, values, mask, geometry.coords)
            return log_lik + exact.apply({"params": params}, z, method="prior_log_prob")

        def bounds(key):
            args = (params, values, mask, geometry)
            terms = [vamoh.elbo(key, model, *args) for model in (published, exact)]
            weighted = [vamoh.log_evidence(key, exact, *args, num_samples=s) for s in (1, 10)]
            return [t.log_lik - t.kl_z - t.kl_c for t in terms] + weighted

        evidence = jax.nn.logsumexp(jax.vmap(joint)(grid)) + jnp.log(grid[1, 0] - grid[0, 0])
        return evidence, jax.vmap(bounds)(keys)

    evidence, bounds = run(params, keys)
    loose, tight, one, ten = (np.float64(b) for b in bounds)
    error = lambda x: 4 * x.std() / np.sqrt(len(keys)) + 1e-4
    assert (loose < tight).all()  # draw by draw
    assert abs(tight.mean() - one.mean()) < error(tight) + error(one)
    assert tight.mean() + error(tight) < ten.mean() - error(ten)
    assert ten.mean() < evidence + error(ten)
    assert evidence - ten.mean() < 0.5 * (evidence - tight.mean())


@functools.partial(jit, static_argnums=1)
def elbo(key, model, *args, **options):
    return vamoh.elbo(key, model, *args, **options)


@EACH
def test_one_component_is_the_plain_model(name, key):
    model, params, values, mask, geometry = setting(name, num_components=1)
    assert not {"gate", "posterior_gate"} & set(params)

    @jit
    def plain(params):
        apply = lambda method, *args: model.apply({"params": params}, *args, method=method)
        mean, log_var = apply("encode", values, mask, geometry)
        z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, (Z,))
        theta = jax.tree.map(lambda leaf: leaf[0], apply("emit", z))
        return siren.evaluate(model.representation, theta, geometry.coords)

    terms = elbo(key, model, params, values, mask, geometry)
    want = log_prob(model, params, values, plain(params)[None])[0, mask].sum()
    close(terms.log_lik, want)
    assert terms.kl_c == 0.0


@EACH
def test_subsets_of_points_estimate_the_whole(name, key):
    """The parts of a partition average to the whole, or sum to it as released."""
    model, *args = setting(name)
    whole = slopes(key, model, *args)[0]
    partition = np.random.default_rng(2).permutation(N).reshape(5, 7)
    terms = jax.vmap(lambda points: elbo(key, model, *args, points=points))(partition)
    combine = jnp.mean if name == "exact" else jnp.sum
    close((combine(terms.log_lik), combine(terms.kl_c)), (whole.log_lik, whole.kl_c))
    close(terms.kl_z, jnp.full(5, whole.kl_z))
    assert terms.log_lik.std() > 1.0


@EACH
def test_chunks_of_points_add_up_with_their_gradient(name, key):
    model, *args = setting(name)
    terms, (grads, _), _ = slopes(key, model, *args, chunk=9)  # 35 points: one is padding
    want, (want_grads, _), _ = slopes(key, model, *args)
    close(terms, want)
    close(grads, want_grads, rtol=1e-3, atol=1e-3)


def test_predictive_scores_are_of_the_target_given_the_observed(key):
    model, params, values, mask, geometry = setting()
    target = ~mask & (np.arange(N) % 2 == 0)

    @jit
    def run(values, mask, target):
        return vamoh.predictive_log_likelihoods(
            key, model, params, values, mask, target, geometry, num_samples=4
        )

    scores = run(values, mask, target)
    assert scores.shape == (4,)
    assert jnp.std(scores) > 0.0
    # given z, points are independent: the scores of halves of the target add up
    halves = [target & (np.arange(N) < 18), target & (np.arange(N) >= 18)]
    close(sum(run(values, mask, half) for half in halves), scores)
    same(run(np.where((mask | target)[:, None], values, np.nan), mask, target), scores)
    key_z = jax.random.split(key, 4)[0]
    _, decoded, _, _, _ = parts(key_z, model, params, values, mask, geometry)
    log_joint = decoded.log_pi + log_prob(model, params, values, decoded.logits)
    close(scores[0], np.log(np.exp(np.float64(log_joint)).sum(0))[target].sum())


# --- masks and batches


@EACH
@pytest.mark.parametrize("num_seen", [0, 1, 20])
def test_nothing_under_the_mask_matters_bit_for_bit(name, num_seen, key):
    model, params, values, _, geometry = setting(name)
    mask = np.random.default_rng(3).permutation(N) < num_seen
    out = slopes(key, model, params, values, mask, geometry)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))
    assert (out[0].log_lik == 0.0) == (num_seen == 0)
    same(out[1][1][~mask], np.zeros((N - num_seen, C)))
    for other in (0.25, np.nan, np.inf):
        fill = lambda a, other=other: np.where(mask[:, None], a, np.float32(other))
        where = geometry._replace(coords=fill(geometry.coords))
        same(slopes(key, model, params, fill(values), mask, where), out)


@EACH
def test_vmap_is_the_loop_over_items(name, key):
    model, params, _, _, geometry = setting(name)
    keys = jax.random.split(key, 3)
    values, masks = (np.stack(x) for x in zip(*map(item, range(3)), strict=True))
    one = lambda key, values, mask: elbo(key, model, params, values, mask, geometry)
    together = jax.vmap(one)(keys, values, masks)
    for i in range(3):
        want = slopes(keys[i], model, params, values[i], masks[i], geometry)[0]
        close(jax.tree.map(lambda t, i=i: t[i], together), want)


def test_new_batches_do_not_compile_again(key):
    model, geometry = build()

    @jit
    @chex.assert_max_traces(n=1)
    def loss(params, key, values, masks, step):
        one = lambda key, values, mask: vamoh.elbo(
            key, model, params, values, mask, geometry, is_standard=step < 2, is_uniform=step < 1
        )
        terms = jax.vmap(one)(jax.random.split(key, 3), values, masks)
        return jnp.mean(terms.kl_z + terms.kl_c - terms.log_lik)

    losses = []
    for step in range(3):
        seeds = range(3 * step, 3 * step + 3)
        values, masks = (np.stack(x) for x in zip(*map(item, seeds), strict=True))
        params = drawn(model, geometry, step)
        losses.append(loss(params, jax.random.fold_in(key, step), values, masks, step))
    assert len({float(value) for value in losses}) == 3


# --- gradients


@EACH
def test_every_parameter_is_trained(name, key):
    model, params, *data = setting(name)
    other = "log_scale" if name == "exact" else "posterior_gate"
    assert set(params) == {"encoder", "hyper", "gate", "flow", other}
    grads = slopes(key, model, params, *data)[1][0]
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert grad.any(), jax.tree_util.keystr(path)


@EACH
@pytest.mark.parametrize("is_standard", [False, True])
def test_what_the_divergence_trains(name, is_standard, key):
    model, *args = setting(name)
    _, _, (grads, _) = slopes(key, model, *args, flags=(is_standard, False))
    trained = {name for name, tree in grads.items() if any(g.any() for g in jax.tree.leaves(tree))}
    if is_standard:
        assert trained == {"encoder"}
    else:  # as released, the second stage leaves the encoder without a prior
        assert trained == ({"flow"} if name == "paper" else {"flow", "encoder"})


def test_bound_by_name():
    model, geometry = build(bound="exakt")
    with pytest.raises(ValueError, match="bound is 'exakt', but it must be one of exact, publ"):
        vamoh.init(jax.random.key(0), model, geometry)


# --- published sizes

# points, d, C, Z, K, widths, width of the hypernetworks, of the gates, planar layers, depth of the
# weight networks, (centres, neighbours, channels) a level where None pools, and numbers of
# parameters: encoder, hypernetworks, prior and posterior gate, all with the flow
PUBLISHED = {
    "polymnist": (
        784, 2, 3, 16, 4, (4, 4, 4), 16, (32, 32), 3, 2,
        [(196, 9, 32), (49, 9, 32), (25, 9, 32)],
        (73_184, 146_220, 9_924, 10_020, 239_479),
    ),
    "shapes3d": (
        4096, 2, 3, 32, 5, (32, 32), 128, (32, 32), 20, 2,
        [(1024, 16, 32), (256, 16, 64), (64, 16, 256)],
        (1_358_592, 12_238_255, 10_469, 10_565, 13_619_245),
    ),
    "celebahq": (
        4096, 2, 3, 64, 10, (64, 64, 64), 256, (64, 32), 80, 4,
        [(4096, 9, 64), (1024, 9, None), (1024, 9, 128), (256, 9, None), (256, 9, 256),
         (64, 9, None), (64, 9, 512), (16, 9, None), (1, 9, 512)],
        (7_041_664, 129_542_430, 22_954, 23_146, 136_640_642),
    ),
    "era5": (
        4140, 3, 1, 32, 3, (64, 64, 64), 256, (32, 32), 10, 4,
        [(1024, 9, 32), (256, 9, 64), (64, 9, 256), (32, 9, 512), (16, 9, 32)],
        (2_713_088, 38_638_083, 10_403, 10_435, 41_372_723),
    ),
    "voxels": (
        4096, 3, 1, 32, 3, (64, 64, 64), 256, (32, 32), 40, 4,
        [(4096, 8, 32), (512, 27, 64), (64, 27, 128), (16, 27, 256), (16, 8, 16)],
        (795_760, 38_638_083, 10_403, 10_435, 39_457_345),
    ),
}  # fmt: skip


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    num, dim, channels, size, components, widths, hyper, gate, layers, depth, levels, expected = (
        PUBLISHED[name]
    )
    model = vamoh.VAMoH(
        siren.FourierMLP(widths, channels), dim, channels, size, components,
        tuple(c for _, _, c in levels), (hyper, 2 * hyper), gate, (16,) * depth,
        share_trunk=False, prior="planar", prior_layers=layers, bound="published", paper=True,
    )  # fmt: skip
    shape = jax.ShapeDtypeStruct
    geometry = vamoh.Geometry(
        shape((num, dim), jnp.float32),
        tuple(Table(shape((m,), jnp.int32), shape((m, k), jnp.int32), None) for m, k, _ in levels),
        shape((num, 256), jnp.float32),
    )
    init = lambda key, geometry: vamoh.init(key, model, geometry)
    params = jax.eval_shape(init, jax.random.key(0), geometry)
    groups = ("encoder", "hyper", "gate", "posterior_gate")
    assert (*(count(params[group]) for group in groups), count(params)) == expected
