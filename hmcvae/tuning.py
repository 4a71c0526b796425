"""Tuning of short HMC chains by gradient, for any log density.

Campbell et al. (2021), "A gradient based strategy for Hamiltonian Monte Carlo hyperparameter
optimization": a table of step sizes [T, dimension] (and momentum variances) ascends E log p(z_T);
the inflation of the Gaussian that chains start from descends a Stein discrepancy of z_T, which sees
the coverage that the first objective, having no entropy term, does not. Both steps are Adam's.

Two things differ from the published recipe, for measured reasons (docs/hmc.md): the objective alone
leaves steps where they start, far too short, so each transition's steps are also pulled towards an
acceptance; and the discrepancy is estimated from 100 chains, not 30, at a smaller rate, because the
inflation otherwise wanders by orders of magnitude.

The rival objective "chees" is the criterion of Hoffman, Radul, Sountsov (2021), here for every
transition and differentiated through the leapfrog steps, acceptance included.

`tune` is the whole of it; `build` gives its parts for a loop of one's own.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax import lax

from hmcvae import hmc, stein

LEARNABLE = ("step_size", "momentum_var", "inflation")
OBJECTIVES = ("log_density", "chees")
MAX_ERROR = 50.0  # nats; exp(-50) adds nothing to a mean in single precision
MIN_JUMP = 1e-6  # keeps log(0) out of the criterion where every trajectory fails


class Parameters(NamedTuple):
    """What is learned."""

    log_step_size: chex.ArrayTree  # [T, *leaf.shape]
    log_momentum_var: chex.ArrayTree  # [T, *leaf.shape]
    log_inflation: chex.ArrayTree  # leaf.shape


class TuningState(NamedTuple):
    """Parameters and the states of the two optimisers."""

    parameters: Parameters
    kernel_opt: optax.OptState
    inflation_opt: optax.OptState


class Metrics(NamedTuple):
    """What one tuning step saw; leaves get a leading axis [steps] from `tune`."""

    objective: jax.Array  # []  mean log p(z_T), nats, whichever objective is ascended
    discrepancy: jax.Array  # []  max-sliced KSD of z_T, V statistic; NaN if not computed
    accept_prob: jax.Array  # [T]
    divergences: jax.Array  # []  share of transitions
    log_step_size: jax.Array  # [T]  mean over dimensions
    log_inflation: jax.Array  # [d]


class Tuner(NamedTuple):
    """The two functions that `build` returns."""

    init: Callable  # (mean, num_transitions, initial_step_size) -> TuningState
    step: Callable  # (key, state, mean, log_var, *args) -> (state, Metrics)


def build(
    log_density: hmc.LogDensity,
    *,
    num_leapfrog: int = 5,
    num_chains: int = 100,
    num_chains_stein: int = 100,
    learn: Sequence[str] = ("step_size", "inflation"),
    objective: Literal["log_density", "chees"] = "log_density",
    gradient: Literal["detached", "exact"] = "detached",
    learning_rate: float = 1e-2,
    inflation_rate: float = 2e-2,
    accept_target: float | None = 0.8,
) -> Tuner:
    """Make the initial state and the step of a tuning loop; arguments as in `tune`."""
    if unknown := set(learn) - set(LEARNABLE):
        raise ValueError(f"learn names {sorted(unknown)}, but only {LEARNABLE} can be learned")
    if objective not in OBJECTIVES:
        raise ValueError(f"objective is {objective!r}, but it must be one of {OBJECTIVES}")
    if gradient not in ("detached", "exact"):
        raise ValueError(f"gradient is {gradient!r}, but tuning needs 'detached' or 'exact'")
    if accept_target is not None and not 0.0 < accept_target < 1.0:
        raise ValueError(f"accept_target is {accept_target}, but it must lie between 0 and 1")
    kernel_optimiser = optax.adam(learning_rate)
    inflation_optimiser = optax.adam(inflation_rate)

    def init(mean, num_transitions, initial_step_size):
        fill = lambda value: jax.tree.map(
            lambda m: jnp.full((num_transitions, *jnp.shape(m)), value, jnp.result_type(m)), mean
        )
        log_inflation = jax.tree.map(jnp.zeros_like, mean)
        kernel = (fill(jnp.log(initial_step_size)), fill(0.0))
        return TuningState(
            Parameters(*kernel, log_inflation),
            kernel_optimiser.init(kernel),
            inflation_optimiser.init(log_inflation),
        )

    def chains(key, kernel, log_inflation, mean, log_var, args, num, keep_path=False):
        def one(key):
            start_key, chain_key = jax.random.split(key)
            start = hmc.inflate(start_key, mean, log_var, log_inflation)
            return hmc.run(
                chain_key,
                start,
                log_density,
                kernel[0],
                *args,
                num_leapfrog=num_leapfrog,
                log_momentum_var=kernel[1],
                gradient=gradient if not keep_path else "none",
                keep_path=keep_path,
            )

        return jax.vmap(one)(jax.random.split(key, num))

    def kernel_loss(kernel, key, log_inflation, mean, log_var, args):
        is_chees = objective == "chees"
        out = chains(key, kernel, log_inflation, mean, log_var, args, num_chains, is_chees)
        if is_chees:
            starts = jax.tree.map(lambda x: x[:, :-1], out.path)
            value = _chees(jax.random.fold_in(key, 1), starts, log_density, kernel, args,
                           num_leapfrog)  # fmt: skip
        else:
            value = jnp.mean(out.log_density)
        if accept_target is not None:
            value = value + pull(kernel[0], out.info.accept_prob.mean(0) - accept_target)
        return -value, out

    def inflation_loss(log_inflation, key, kernel, mean, log_var, args):
        out = chains(key, kernel, log_inflation, mean, log_var, args, num_chains_stein)
        return stein.sksd(_flat(out.position), _flat(out.score))

    def step(key, state, mean, log_var, *args):
        parameters = state.parameters
        kernel, log_inflation = parameters[:2], parameters.log_inflation
        kernel_key, inflation_key = jax.random.split(key)
        slope, out = jax.grad(kernel_loss, has_aux=True)(
            kernel, kernel_key, log_inflation, mean, log_var, args
        )
        for i, name in enumerate(LEARNABLE[:2]):
            if name not in learn:
                slope = (*slope[:i], jax.tree.map(jnp.zeros_like, slope[i]), *slope[i + 1 :])
        updates, kernel_opt = kernel_optimiser.update(slope, state.kernel_opt)
        new_kernel = optax.apply_updates(kernel, updates)

        discrepancy, inflation_opt = jnp.array(jnp.nan), state.inflation_opt
        new_inflation = log_inflation
        if "inflation" in learn:
            discrepancy, slope = jax.value_and_grad(inflation_loss)(
                log_inflation, inflation_key, kernel, mean, log_var, args
            )
            updates, inflation_opt = inflation_optimiser.update(slope, inflation_opt)
            new_inflation = optax.apply_updates(log_inflation, updates)
        metrics = Metrics(
            jnp.mean(out.log_density),
            discrepancy,
            jnp.mean(out.info.accept_prob, axis=0),
            jnp.mean(out.info.is_divergent),
            jnp.mean(_flat(new_kernel[0]), axis=-1),
            _flat(jax.tree.map(lambda x: x[None], new_inflation))[0],
        )
        new = Parameters(*new_kernel, new_inflation)
        return TuningState(new, kernel_opt, inflation_opt), metrics

    return Tuner(init, step)


def tune(
    key: chex.PRNGKey,
    log_density: hmc.LogDensity,
    mean: chex.ArrayTree,
    log_var: chex.ArrayTree,
    *args,
    num_steps: int = 600,
    num_transitions: int = 10,
    initial_step_size: float = 0.1,
    **options,
) -> tuple[Parameters, Metrics]:
    """Tune the chain that starts at N(mean, inflated variance) and ends after T transitions.

    Args:
      key: typed PRNG key, consumed once.
      log_density: maps (position, *args) to a scalar in nats, up to a constant.
      mean: of the Gaussian that chains start from; any pytree.
      log_var: of that Gaussian, a tree like `mean`.
      *args: data of the log density.
      num_steps: tuning steps, one `lax.scan`.
      num_transitions: T.
      initial_step_size: eta of all transitions and dimensions.
      **options: num_leapfrog (L, 5); num_chains (100, for the kernel) and num_chains_stein (100);
        learn, names out of "step_size", "momentum_var" (a second step size, see `hmcvae.hmc`) and
        "inflation"; objective, "log_density" or "chees"; gradient, "detached" or "exact" (see
        `hmc.run`); learning_rate (0.01) and inflation_rate (0.02) of Adam; accept_target (0.8), the
        acceptance that every transition's steps are pulled to, or None as published.

    Returns:
      (parameters, metrics of every step [num_steps, ...]).
    """
    tuner = build(log_density, **options)
    state = tuner.init(mean, num_transitions, initial_step_size)

    def body(state, key):
        return tuner.step(key, state, mean, log_var, *args)

    state, metrics = lax.scan(body, state, jax.random.split(key, num_steps))
    return state.parameters, metrics


def pull(log_step, excess):
    """Return a term whose gradient raises the steps where acceptance is above its target [T].

    The pull of each transition is shared by its dimensions; its value is zero.
    """
    level = jnp.mean(_flat(log_step), axis=-1)
    excess = lax.stop_gradient(excess)
    return jnp.sum(excess * (level - lax.stop_gradient(level)))


def _chees(key, starts, log_density, kernel, args, num_leapfrog):
    """Return mean_t log E[alpha (|z' - m'|^2 - |z - m|^2)^2 / 4] for starts [C, T, ...].

    Every trajectory starts where a chain passed, a constant; step sizes, energies and acceptance
    alpha are differentiated. Trajectories with an energy error above MAX_ERROR count as zero.
    """
    log_step = jax.tree.map(lambda s, v: s - 0.5 * v, *kernel)
    leaves = jax.tree.leaves(starts)
    num, length = leaves[0].shape[:2]
    keys = jax.random.split(key, (num, length))

    def propose(key, z, log_step):
        momentum = jax.tree.map(lambda x: x[0], hmc.draw_noise(key, z, 1).momentum)
        state = hmc.init(log_density, z, *args)

        def integrate(step):
            end, p = hmc.leapfrog(
                state, momentum, log_density, step, *args, num_leapfrog=num_leapfrog
            )
            kinetic = lambda p: 0.5 * sum(jnp.sum(x * x) for x in jax.tree.leaves(p))
            error = kinetic(p) - end.log_density - kinetic(momentum) + state.log_density
            return end.position, error

        step = jax.tree.map(jnp.exp, log_step)
        is_useful = lax.stop_gradient(integrate(step)[1]) < MAX_ERROR  # False for NaN
        step = jax.tree.map(lambda e: jnp.where(is_useful, e, 0.0), step)  # nothing overflows
        end, error = integrate(step)
        return end, jnp.where(is_useful, jnp.exp(jnp.minimum(-error, 0.0)), 0.0)

    ends, alpha = jax.vmap(jax.vmap(propose), (0, 0, None))(keys, starts, log_step)
    before, after = jax.vmap(_flat)(starts), jax.vmap(_flat)(ends)  # [C, T, d]
    radius = lambda x: jnp.sum((x - lax.stop_gradient(jnp.mean(x, axis=0))) ** 2, axis=-1)
    jump = 0.25 * jnp.mean(alpha * (radius(after) - radius(before)) ** 2, axis=0)
    return jnp.mean(jnp.log(jump + MIN_JUMP))


def _flat(tree):
    """Concatenate leaves [n, ...] into one [n, d]."""
    return jnp.concatenate([x.reshape(x.shape[0], -1) for x in jax.tree.leaves(tree)], axis=-1)
