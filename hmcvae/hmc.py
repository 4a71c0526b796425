"""Hamiltonian Monte Carlo on any pytree, with learned step sizes for every transition.

Equations: leapfrog and accept rule of Neal (2011), "MCMC using Hamiltonian dynamics"; the table of
step sizes [T, dimension], the inflated Gaussian start and the gradient with a constant score of
Campbell et al. (2021), "A gradient based strategy for Hamiltonian Monte Carlo hyperparameter
optimization", as HH-VAEM uses them (Peis et al. 2022, section 3.5).

Everything is written for one chain; use `jax.vmap` for many. Nothing here is jitted.

Momentum variance. With r ~ N(0, v) and kinetic energy sum r^2 / (2 v), a trajectory of step eta is,
in p = r / sqrt(v), the trajectory of unit momentum with step eta / sqrt(v). So a learned v is a
second name for the step size, and only the step eta / sqrt(v) enters below.

Not here: how the parameters are learned (`hmcvae.tuning`), discrepancies (`hmcvae.stein`).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LogDensity = Callable[..., jax.Array]
Gradient = Literal["detached", "exact", "none"]
GRADIENTS = ("detached", "exact", "none")


class State(NamedTuple):
    """A position with its cached log density and score."""

    position: chex.ArrayTree
    log_density: jax.Array  # []  nats, unnormalised
    score: chex.ArrayTree  # gradient of the log density, shaped as position


class Info(NamedTuple):
    """What one transition did."""

    accept_prob: jax.Array  # []  min(1, exp(-energy_error)), 0 if divergent
    is_accepted: jax.Array  # []  bool
    is_divergent: jax.Array  # []  bool: something non-finite, or energy error above the threshold
    energy_error: jax.Array  # []  nats, end minus start; +inf where it is not a number


class Noise(NamedTuple):
    """All random numbers of a chain of T transitions."""

    momentum: chex.ArrayTree  # [T, *leaf.shape]  standard normal
    log_uniform: jax.Array  # [T]  log U, U uniform on (0, 1)


class Chain(NamedTuple):
    """The end of a chain, its diagnostics, and on request all its positions."""

    position: chex.ArrayTree  # carries the gradient to steps and start
    log_density: jax.Array  # []  at position, with the same gradient (chain rule through the score)
    score: chex.ArrayTree  # at position, constant
    info: Info  # leaves [T]
    path: chex.ArrayTree | None  # leaves [T + 1, ...], start included, constant


def init(log_density: LogDensity, position: chex.ArrayTree, *args) -> State:
    """Evaluate a log density and its score where a chain starts.

    Args:
      log_density: maps (position, *args) to a scalar in nats, up to a constant.
      position: any pytree of floating arrays.
      *args: data of the log density; arguments, not closures, so that new data never recompiles.

    Returns:
      The state that `transition` takes.
    """
    value, score = jax.value_and_grad(log_density)(position, *args)
    return State(position, value, score)


def leapfrog(
    state: State,
    momentum: chex.ArrayTree,
    log_density: LogDensity,
    step_size: chex.ArrayTree,
    *args,
    num_leapfrog: int = 5,
) -> tuple[State, chex.ArrayTree]:
    """Integrate one trajectory of unit-variance momentum with L new score evaluations.

    p <- p + eta/2 s;  L times z <- z + eta p with p <- p + eta s in between;  p <- p + eta/2 s.

    Args:
      state: where the trajectory starts, score included.
      momentum: p, shaped as the position.
      log_density: maps (position, *args) to a scalar.
      step_size: eta, a pytree like the position with leaves that broadcast against it.
      *args: data of the log density.
      num_leapfrog: L.

    Returns:
      (end state, end momentum). The momentum is NaN or infinite if any position, log density or
      score on the way was: it meets all of them, and can never become finite again.
    """
    if num_leapfrog < 1:
        raise ValueError(f"num_leapfrog is {num_leapfrog}, but a trajectory needs at least 1 step")

    def kick(p, score, fraction):
        return jax.tree.map(
            lambda p, e, s: p + fraction.astype(p.dtype) * (e * s), p, step_size, score
        )

    # A loop, not unrolled: XLA on the CPU fuses unrolled steps by evaluating each score again for
    # every use (2 to 4 times slower, measured); the value comes free with the score.
    def body(carry, fraction):
        state, p = carry
        z = jax.tree.map(lambda z, e, p: z + e * p, state.position, step_size, p)
        state = init(log_density, z, *args)
        p = kick(p, state.score, fraction)
        mark = lambda p, z: p + 0.0 * (z + state.log_density.astype(p.dtype))  # 0, or NaN
        return (state, jax.tree.map(mark, p, z)), None

    fractions = np.ones(num_leapfrog, np.float32)
    fractions[-1] = 0.5
    start = (state, kick(momentum, state.score, np.float32(0.5)))
    end, _ = lax.scan(body, start, jnp.asarray(fractions))
    return end


def transition(
    key: chex.PRNGKey,
    state: State,
    log_density: LogDensity,
    log_step_size: chex.ArrayTree,
    *args,
    num_leapfrog: int = 5,
    log_momentum_var: chex.ArrayTree | None = None,
    divergence_threshold: float = 1000.0,
) -> tuple[State, Info]:
    """Propose one trajectory and accept or reject it; a constant for differentiation.

    Args:
      key: typed PRNG key, consumed once.
      state: from `init` or an earlier transition; costs L score evaluations.
      log_density: maps (position, *args) to a scalar.
      log_step_size: one scalar, or a pytree like the position with leaves of the leaf's shape or
        scalars.
      *args: data of the log density.
      num_leapfrog: L.
      log_momentum_var: log v in the forms of `log_step_size`; None is unit variance.
      divergence_threshold: an energy increase above this, in nats, is flagged and rejected.

    Returns:
      (state, info).
    """
    log_steps = jax.tree.map(lambda x: jnp.asarray(x)[None], (log_step_size, log_momentum_var))
    table = _log_step_table(*log_steps, state.position)
    noise = draw_noise(key, state.position, 1)
    noise, log_step = jax.tree.map(lambda x: x[0], (noise, table))
    step = jax.tree.map(jnp.exp, log_step)
    state, step, args = lax.stop_gradient((state, step, args))
    return lax.stop_gradient(
        _advance(state, noise, log_density, step, args, num_leapfrog, divergence_threshold)
    )


def draw_noise(key: chex.PRNGKey, position: chex.ArrayTree, num_transitions: int) -> Noise:
    """Draw every momentum and accept variable of a chain, before it starts.

    Transition t draws from fold_in(key, t), so a longer chain begins with the same numbers. The
    loop keeps each draw small: on the CPU XLA then runs it without waking its thread pool, which
    would cost a single chain more than its 150 leapfrog steps do (measured).

    Args:
      key: typed PRNG key, consumed once.
      position: pytree whose shapes and dtypes the momenta take.
      num_transitions: T.

    Returns:
      The random numbers that `replay` takes.
    """
    leaves, structure = jax.tree.flatten(position)
    dtype = jnp.result_type(*leaves)
    sizes = [jnp.size(x) for x in leaves]
    low = np.nextafter(np.array(-1, dtype), np.array(0, dtype))  # as jax.random.normal does

    def body(_, t):
        step_key = jax.random.fold_in(key, t)
        uniform = jax.random.uniform(step_key, (sum(sizes) + 1,), dtype, low, 1.0)
        normal = np.array(np.sqrt(2), dtype) * lax.erf_inv(uniform[:-1])
        return None, (normal, jnp.log1p(uniform[-1]) - np.array(np.log(2), dtype))

    _, (normal, log_uniform) = lax.scan(body, None, jnp.arange(num_transitions))
    parts = jnp.split(normal, np.cumsum(sizes)[:-1], axis=-1) if len(leaves) > 1 else [normal]
    momentum = [
        part.reshape(num_transitions, *jnp.shape(x)).astype(jnp.result_type(x))
        for part, x in zip(parts, leaves, strict=True)
    ]
    return Noise(jax.tree.unflatten(structure, momentum), log_uniform)


def run(
    key: chex.PRNGKey,
    position: chex.ArrayTree,
    log_density: LogDensity,
    log_step_size: chex.ArrayTree,
    *args,
    num_leapfrog: int = 5,
    log_momentum_var: chex.ArrayTree | None = None,
    gradient: Gradient = "detached",
    keep_path: bool = False,
    divergence_threshold: float = 1000.0,
) -> Chain:
    """Run T transitions, each with its own step sizes.

    Gradients reach `log_step_size`, `log_momentum_var` and `position`, never `*args`; accept
    decisions are constants. The values are the same, bit for bit, in the three modes:

    - "detached": scores inside the leapfrog are constants (Campbell et al. 2021). A transition that
      moved z by m with step eta and momentum p has dz / d log eta = 2 m - L eta p, so nothing is
      kept for backpropagation but one [T, dimension] array.
    - "exact": scores are differentiated too; accepted trajectories are integrated a second time
      under autodiff, which keeps T x L evaluations of the log density in memory.
    - "none": everything is constant.

    Args:
      key: typed PRNG key, consumed once.
      position: start of the chain, any pytree of floating arrays.
      log_density: maps (position, *args) to a scalar in nats, up to a constant.
      log_step_size: pytree like the position with leaves [T, *leaf.shape] or [T], or one [T] array.
      *args: data of the log density.
      num_leapfrog: L; a chain costs 1 + T L score evaluations.
      log_momentum_var: log v in the forms of `log_step_size`; None is unit variance.
      gradient: "detached", "exact" or "none".
      keep_path: also return the T + 1 positions.
      divergence_threshold: in nats, see `transition`.

    Returns:
      The end of the chain. If the start itself has no finite log density the chain may be stuck
      there; every transition is then flagged as divergent.
    """
    table = _log_step_table(log_step_size, log_momentum_var, position)
    noise = draw_noise(key, position, jax.tree.leaves(table)[0].shape[0])
    return replay(
        noise,
        position,
        log_density,
        log_step_size,
        *args,
        num_leapfrog=num_leapfrog,
        log_momentum_var=log_momentum_var,
        gradient=gradient,
        keep_path=keep_path,
        divergence_threshold=divergence_threshold,
    )


def replay(
    noise: Noise,
    position: chex.ArrayTree,
    log_density: LogDensity,
    log_step_size: chex.ArrayTree,
    *args,
    num_leapfrog: int = 5,
    log_momentum_var: chex.ArrayTree | None = None,
    gradient: Gradient = "detached",
    keep_path: bool = False,
    divergence_threshold: float = 1000.0,
) -> Chain:
    """Run the chain that given random numbers determine; arguments as in `run`."""
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient is {gradient!r}, but it must be one of {GRADIENTS}")
    table = _log_step_table(log_step_size, log_momentum_var, position)

    def body(state, inputs):
        noise, log_step = inputs
        step = jax.tree.map(jnp.exp, log_step)
        new, info = _advance(
            state, noise, log_density, step, args, num_leapfrog, divergence_threshold
        )
        slope = None
        if gradient == "detached":
            slope = jax.tree.map(
                lambda end, start, e, p: jnp.where(
                    info.is_accepted, 2 * (end - start) - num_leapfrog * e * p, 0.0
                ),
                new.position,
                state.position,
                step,
                noise.momentum,
            )
        return new, (info, slope, new.position if keep_path else None)

    start, log_steps, args, noise = lax.stop_gradient((position, table, args, noise))
    last, (info, slope, path) = lax.scan(body, init(log_density, start, *args), (noise, log_steps))
    last, info, slope, path = lax.stop_gradient((last, info, slope, path))
    if keep_path:
        path = jax.tree.map(lambda z, rest: jnp.concatenate([z[None], rest]), start, path)
    if gradient == "none":
        return Chain(*last, info, path)

    if gradient == "detached":
        moved = jax.tree.map(
            lambda z, s, log_step: z + jnp.sum(s * log_step, axis=0), position, slope, table
        )
    else:
        moved = _reintegrate(position, noise, table, info, log_density, args, num_leapfrog)
    end = jax.tree.map(_with_tangent_of, last.position, moved)
    along_score = jax.tree.map(lambda s, z: jnp.sum(s * z), last.score, end)
    value = _with_tangent_of(last.log_density, sum(jax.tree.leaves(along_score)))
    return Chain(end, value, last.score, info, path)


def inflate(
    key: chex.PRNGKey,
    mean: chex.ArrayTree,
    log_var: chex.ArrayTree,
    log_inflation: chex.ArrayTree,
) -> chex.ArrayTree:
    """Draw the start of a chain from a widened Gaussian, mean + exp(log_var / 2) s xi.

    Gradients flow to all three parameters.

    Args:
      key: typed PRNG key, consumed once.
      mean: pytree, for a hierarchy a dict of its layers.
      log_var: as `mean`, leaves broadcastable to those of `mean`.
      log_inflation: log s: one scalar, or a pytree like `mean` with leaves that broadcast (a scalar
        per leaf, or one value per dimension).

    Returns:
      A position shaped as `mean`.
    """
    xi = jax.tree.map(lambda x: x[0], draw_noise(key, mean, 1).momentum)
    if jax.tree.structure(log_inflation) != jax.tree.structure(mean):
        if jnp.ndim(log_inflation) != 0:
            raise ValueError(
                f"log_inflation has structure {jax.tree.structure(log_inflation)}, but the mean "
                f"has {jax.tree.structure(mean)}; give one scalar or a tree like the mean"
            )
        log_inflation = jax.tree.map(lambda _: log_inflation, mean)
    return jax.tree.map(
        lambda m, v, s, x: m + jnp.exp(0.5 * v + s) * x, mean, log_var, log_inflation, xi
    )


@jax.custom_jvp
def _with_tangent_of(value, surrogate):
    """Return `value`, differentiated as if it were `surrogate`."""
    del surrogate
    return value


@_with_tangent_of.defjvp
def _with_tangent_of_jvp(primals, tangents):
    return primals[0], tangents[1]


def _advance(state, noise, log_density, step, args, num_leapfrog, threshold):
    """Propose and decide: (state, noise of one transition, step sizes) -> (state, info)."""
    end, momentum = leapfrog(
        state, noise.momentum, log_density, step, *args, num_leapfrog=num_leapfrog
    )
    end_kinetic = _kinetic(momentum)
    error = (end_kinetic - end.log_density) - (_kinetic(noise.momentum) - state.log_density)
    is_divergent = ~jnp.isfinite(end_kinetic) | jnp.isnan(error) | (error > threshold)
    error = jnp.where(jnp.isnan(error), jnp.inf, error)
    log_ratio = jnp.where(is_divergent, -jnp.inf, jnp.minimum(-error, 0.0))
    is_accepted = noise.log_uniform < log_ratio
    state = jax.tree.map(lambda new, old: jnp.where(is_accepted, new, old), end, state)
    return state, Info(jnp.exp(log_ratio), is_accepted, is_divergent, error)


def _reintegrate(position, noise, table, info, log_density, args, num_leapfrog):
    """Integrate the accepted trajectories again, for autodiff; rejected ones take steps of zero.

    A step of zero stays where everything is finite, so that no NaN meets a cotangent.
    """

    def body(state, inputs):
        momentum, log_step, is_accepted = inputs
        step = jax.tree.map(lambda s: jnp.where(is_accepted, jnp.exp(s), 0.0), log_step)
        end, _ = leapfrog(state, momentum, log_density, step, *args, num_leapfrog=num_leapfrog)
        return end, None

    end, _ = lax.scan(
        body, init(log_density, position, *args), (noise.momentum, table, info.is_accepted)
    )
    return end.position


def _kinetic(momentum):
    return 0.5 * sum(jnp.sum(p * p) for p in jax.tree.leaves(momentum))


def _log_step_table(log_step_size, log_momentum_var, position):
    """Return log eta - log(v) / 2 as a tree like the position, leaves [T, 1...] or [T, *shape]."""
    table = _as_table("log_step_size", log_step_size, position)
    if log_momentum_var is None:
        return table
    log_var = _as_table("log_momentum_var", log_momentum_var, position)
    lengths = {x.shape[0] for x in jax.tree.leaves((table, log_var))}
    if len(lengths) != 1:
        raise ValueError(
            f"log_step_size and log_momentum_var have {sorted(lengths)} transitions, but they must "
            f"agree; give both the same leading axis"
        )
    return jax.tree.map(lambda s, v: s - 0.5 * v, table, log_var)


def _as_table(name, values, position):
    leaves, structure = jax.tree.flatten(position)
    given, given_structure = jax.tree.flatten(values)
    if given_structure != structure:
        if given_structure != jax.tree.structure(0) or jnp.ndim(values) != 1:
            raise ValueError(
                f"{name} has structure {given_structure}, but the position has {structure}; give a "
                f"tree like the position or one array [T]"
            )
        given = given * len(leaves)
    table = []
    for value, leaf in zip(given, leaves, strict=True):
        value, shape = jnp.asarray(value, jnp.result_type(leaf)), jnp.shape(leaf)
        if value.ndim == 1:
            value = value.reshape(value.shape + (1,) * len(shape))
        elif value.ndim == 0 or value.shape[1:] != shape:
            raise ValueError(
                f"{name} has a leaf of shape {value.shape}, but the position's leaf is {shape}; "
                f"give [T] or [T, *{shape}]"
            )
        table.append(value)
    lengths = {x.shape[0] for x in table}
    if len(lengths) != 1:
        raise ValueError(
            f"{name} has leaves with {sorted(lengths)} transitions, but all must have the same "
            f"number T on their leading axis"
        )
    return jax.tree.unflatten(structure, table)
