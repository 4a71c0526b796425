"""Objectives of the three stages of training, with gradients routed by `stop_gradient`.

Stage 1 fits the one-column VAEs (`marginal_loss`; plain models have none), stage 2 the dependency
VAE by one of `BOUNDS`: its evidence bound (`elbo_loss`), the importance-weighted one (`iw_loss`) or
reweighted wake-sleep (`wake_loss`). Stage 3 fits everything jointly (`hmc_loss`): the encoder as in
stage 2, decoder, hierarchy, predictor and step sizes by E[log p(z_O, y_O, eps_T)] at the end of the
chain, the inflation of the chain's start by a Stein discrepancy (Algorithm 1 of Peis et al. 2022).
One scalar carries the three losses of stage 3, so one `value_and_grad` serves all groups.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hmcvae import likelihoods, stein, tuning
from hmcvae.hierarchy import kl_weights
from hmcvae.model import HVAE, Rows
from hmcvae.posterior import sample_chain

# Parameter groups by the first name of a leaf's path; whatever is not here is "generative".
GROUPS = {"marginal": "marginal", "encoder": "encoder", "features": "encoder", "hmc": "hmc"}
WAKE_DRAWS = 4  # draws of a row that the gradients of `wake_loss` go through


class Schedule(NamedTuple):
    """How the KL terms are weighted, how many importance samples and how long chains are."""

    balance_steps: int = 1000
    anneal_steps: int = 1000
    clock_rate: int = 1  # clock ticks per step; the published two-layer models tick twice
    num_leapfrog: int = 5
    num_chains_stein: int = 30
    num_rows_stein: int = 0  # rows of a batch that the discrepancy is estimated on; 0 is all
    stein_every: int = 10
    accept_target: float = 0.0  # acceptance that step sizes are pulled to; 0 is no pull
    precondition: bool = False  # steps in units of the encoder's standard deviation of every row
    gradient: str = "detached"  # of the chain to its step sizes: see hmc.run
    bound: str = "elbo"  # a name of BOUNDS
    num_importance: int = 20  # K samples a row of "iw" and "wake"
    num_proposals: int = (
        50  # of a draw of a model trained by one of the two: see posterior.resample
    )


def random_mask(key, mask, y_mask, *, max_missing: float = 0.99):
    """Hides each entry of a row with that row's own probability rho ~ U(0, max_missing).

    Args:
      key: PRNG key.
      mask: [B, D] observed entries of x.
      y_mask: [B, P] observed entries of y.
      max_missing: upper end of rho.

    Returns:
      Masks of the same shapes, subsets of the ones given.
    """
    key_rate, key_entry = jax.random.split(key)
    rho = max_missing * jax.random.uniform(key_rate, (mask.shape[0], 1))
    both = jnp.concatenate([mask, y_mask], axis=-1)
    both = both & (jax.random.uniform(key_entry, both.shape) > rho)
    return both[:, : mask.shape[-1]], both[:, mask.shape[-1] :]


def training_rows(
    key, model: HVAE, params, x, mask, y, y_mask, *, max_missing: float = 0.99
) -> Rows:
    """Makes the rows of a step of stages 2 and 3: `random_mask`, then z of what it leaves.

    Args:
      key: PRNG key.
      model: the module; without targets the rows say so.
      params: its parameters, to which no gradient flows.
      x: [B, D] standardised values and codes.
      mask: [B, D] True = observed.
      y: [B, P].
      y_mask: [B, P].
      max_missing: of `random_mask`.

    Returns:
      Rows.
    """
    key_mask, key_z = jax.random.split(key)
    mask, y_mask = random_mask(key_mask, mask, y_mask, max_missing=max_missing)
    z = model.apply({"params": params}, key_z, x, mask, method="extract")
    rows = Rows(x, mask, jax.lax.stop_gradient(z), y, y_mask)
    return rows if model.target.num_columns else rows._replace(y=None, y_mask=None)


def marginal_loss(key, model: HVAE, params, x, mask, *, beta, pos_weight=None):
    """Computes the sum over columns of the negative one-column bounds, and metrics by name."""
    terms = model.apply(
        {"params": params}, key, x, mask, beta=beta, pos_weight=pos_weight, method="marginal_bound"
    )
    metrics = {"log_lik": jnp.mean(terms.log_likelihood), "kl": jnp.mean(terms.kl)}
    return -jnp.sum(terms.bound), metrics


def elbo_loss(key, model: HVAE, params, rows: Rows, step, *, schedule: Schedule, pos_weight_y=None):
    """Computes the negative evidence bound of the dependency VAE, with one sample per row.

    -E_q[log p(z_O | eps) + log p(y_O | x_hat, eps)] + sum_l gamma_l KL(q(eps_l) || N(0, I)),
    averaged over rows; gamma from `hierarchy.kl_weights`.

    Args:
      key: PRNG key.
      model: the module.
      params: its parameters.
      rows: [B, ...].
      step: steps since the start of stage 2, the first is 0.
      schedule: weighting of the KL terms.
      pos_weight_y: [P] or None.

    Returns:
      Loss in nats per row, and metrics by name.
    """
    key_eps, key_noise = jax.random.split(key)
    heads = model.apply({"params": params}, rows, method="encode")
    drawn = model.apply({"params": params}, key_eps, *heads, method="draw")
    noise = jax.random.normal(key_noise, rows.mask.shape) if model.paper else None
    joint = model.apply(
        {"params": params}, drawn.latents, rows,
        noise=noise, pos_weight_y=pos_weight_y, method="log_joint",
    )  # fmt: skip
    kl = drawn.kl  # [B, J]
    average = jnp.mean
    if model.paper:
        kl = jnp.where(rows.is_observed()[:, None], kl, 0.0)
        average = _nonzero_mean
    if len(model.layer_sizes) > 1:
        weights = kl_weights(
            kl,
            1.0 + schedule.clock_rate * step,
            model.layer_sizes,
            balance_steps=schedule.balance_steps,
            anneal_steps=schedule.anneal_steps,
            paper=model.paper,
        )
    else:
        weights = jnp.ones(1)
    loss = -average(joint.x + joint.y - kl @ weights)
    metrics = {"log_lik_x": jnp.mean(joint.x), "log_lik_y": jnp.mean(joint.y)}
    return loss, metrics | {f"kl_{i + 1}": v for i, v in enumerate(jnp.mean(kl, axis=0))}


def iw_loss(key, model: HVAE, params, rows: Rows, step, *, schedule: Schedule, pos_weight_y=None):
    """Computes the negative importance-weighted bound with K samples per row (Burda et al. 2016).

    -log 1/K sum_k w_k with w_k = p(z_O, y_O, eps_k) / q(eps_k | z_O, y_O), averaged over rows: at
    K = 1 the evidence bound, at K = infinity the evidence. `paper` leaves out the constant log K.

    Args:
      key: PRNG key.
      model: the module.
      params: its parameters.
      rows: [B, ...].
      step: not used: nothing is annealed.
      schedule: num_importance = K.
      pos_weight_y: [P] or None.

    Returns:
      Loss in nats per row, and metrics by name.
    """
    heads = model.apply({"params": params}, rows, method="encode")

    def one(key):
        key_eps, key_noise = jax.random.split(key)
        drawn = model.apply({"params": params}, key_eps, *heads, method="draw")
        noise = jax.random.normal(key_noise, rows.mask.shape) if model.paper else None
        joint = model.apply(
            {"params": params}, drawn.latents, rows,
            noise=noise, pos_weight_y=pos_weight_y, method="log_joint",
        )  # fmt: skip
        return joint, drawn.log_prob()

    joint, log_q = jax.vmap(one)(jax.random.split(key, schedule.num_importance))  # [K, B]
    log_sum = jax.nn.logsumexp(joint.total() - log_q, axis=0)
    if model.paper:
        bound = _nonzero_mean(jnp.where(rows.is_observed(), log_sum, 0.0))
    else:
        bound = jnp.mean(log_sum) - np.log(schedule.num_importance)
    return -bound, {"log_lik_x": jnp.mean(joint.x), "log_lik_y": jnp.mean(joint.y)}


def wake_loss(key, model: HVAE, params, rows: Rows, step, *, schedule: Schedule, pos_weight_y=None):
    """Computes the negative importance-weighted bound, with the gradients of wake-sleep.

    Reweighted wake-sleep (Bornschein & Bengio 2015; Le et al. 2019): K draws of the encoder are
    constants. With normalised weights v_k ~ p(z_O, y_O, eps_k) / q(eps_k | z_O, y_O), decoder,
    hierarchy and predictor climb sum_k v_k log p(z_O, y_O, eps_k), and the encoder
    sum_k v_k log q(eps_k | z_O, y_O), which is the inclusive KL(p || q). The encoder so covers the
    posterior, where the evidence bound gives up latents that it cannot follow and calls noise what
    they would have explained: a good start for `posterior.resample` and a chain. Both sums are
    estimated without bias by WAKE_DRAWS of the K draws, resampled systematically, so that most of
    the draws need no backward pass.

    Args:
      key: PRNG key.
      model: the module, reparameterised and not `paper`.
      params: its parameters.
      rows: [B, ...].
      step: not used: nothing is annealed.
      schedule: num_importance = K.
      pos_weight_y: [P] or None.

    Returns:
      Loss in nats per row, and metrics by name; "ess" is the effective number of the K samples.
    """
    key_eps, key_pick = jax.random.split(key)
    mean, log_var = model.apply({"params": params}, rows, method="encode")
    shape = (schedule.num_importance, *mean.shape)
    eps = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key_eps, shape, mean.dtype)
    eps = jax.lax.stop_gradient(eps)  # [K, B, d_tot]

    @jax.vmap
    def log_joint(eps):
        return model.apply(
            {"params": params}, eps, rows, pos_weight_y=pos_weight_y, method="log_joint"
        )

    def log_q(eps):
        return jnp.sum(likelihoods.gaussian_log_prob(eps, mean, log_var), axis=-1)

    log_weight = jax.lax.stop_gradient(log_joint(eps).total() - log_q(eps))  # [K, B]
    bound = jnp.mean(jax.nn.logsumexp(log_weight, axis=0)) - np.log(schedule.num_importance)
    weight = jax.nn.softmax(log_weight, axis=0)
    picked = jnp.take_along_axis(eps, _systematic(key_pick, weight, WAKE_DRAWS)[..., None], axis=0)
    joint = log_joint(picked)  # [WAKE_DRAWS, B]
    wake = jnp.mean(joint.total() + log_q(picked))
    metrics = {"log_lik_x": jnp.mean(joint.x), "log_lik_y": jnp.mean(joint.y)}
    metrics |= {"ess": jnp.mean(1.0 / jnp.sum(weight**2, axis=0))}
    return -bound - (wake - jax.lax.stop_gradient(wake)), metrics


def _systematic(key, weight, num_draws):
    """Resamples systematically by weights [K, B] that sum to one: indices [num_draws, B]."""
    offset = jax.random.uniform(key, weight.shape[1:])
    points = (jnp.arange(num_draws)[:, None] + offset) / num_draws
    below = jnp.cumsum(weight, axis=0)[:, None] < points  # [K, num_draws, B]
    return jnp.minimum(jnp.sum(below, axis=0), len(weight) - 1)


BOUNDS = {"elbo": elbo_loss, "iw": iw_loss, "wake": wake_loss}


def hmc_loss(key, model: HVAE, params, rows: Rows, step, *, schedule: Schedule, pos_weight_y=None):
    """Computes the three losses of stage 3 as one scalar that gives every group its own gradient.

    Encoder: the bound of stage 2. Decoder, hierarchy, predictor and step sizes:
    -E[log p(z_O, y_O, eps_T)] with eps_T from `sample_chain`. Inflation, every `stein_every`-th
    step: the max-sliced kernelised Stein discrepancy of `num_chains_stein` fresh chains per row
    (chains of a model trained by `wake_loss` start without inflation).

    The objective has no term for mixing and leaves steps about as short as they start, so with an
    `accept_target` the steps of each transition are also pulled towards that acceptance.

    Args:
      key: PRNG key.
      model: the module.
      params: its parameters and the group "hmc".
      rows: [B, ...].
      step: steps since the start of stage 3, the same for all replicas.
      schedule: chain lengths, Stein chains, KL weights (the KL clock has run out by this stage).
      pos_weight_y: [P] or None.

    Returns:
      Loss in nats per row, and metrics by name.
    """
    key_bound, key_chain, key_stein, key_noise = jax.random.split(key, 4)
    frozen, tuned = jax.lax.stop_gradient(params), params["hmc"]

    def trained(group):
        return {
            k: v if GROUPS.get(k, "generative") == group else frozen[k] for k, v in params.items()
        }

    settled = schedule._replace(balance_steps=0, anneal_steps=0)
    bound, metrics = BOUNDS[schedule.bound](
        key_bound, model, trained("encoder"), rows, step,
        schedule=settled, pos_weight_y=pos_weight_y,
    )  # fmt: skip
    heads = model.apply({"params": frozen}, rows, method="encode")
    start = model.apply({"params": frozen}, None, *heads, method="draw")

    def chains(key, changed, num_chains, gradient, num_rows=None):
        """Runs chains for the first rows, leaves [B, num_chains, ...]; trains only `changed`."""
        params = {**frozen, "hmc": {**frozen["hmc"], **changed}}

        def one(key, row, mean, log_var):
            return sample_chain(
                key, model, params, row, mean, log_var,
                schedule=schedule, gradient=gradient, pos_weight_y=pos_weight_y,
            )  # fmt: skip

        some = jax.tree.map(lambda leaf: leaf[:num_rows], (rows, start.mean, start.log_var))
        keys = jax.random.split(key, (some[0].mask.shape[0], num_chains))
        return jax.vmap(jax.vmap(one, in_axes=(0, None, None, None)))(keys, *some)

    chain = chains(key_chain, {"log_step_size": tuned["log_step_size"]}, 1, schedule.gradient)
    joint = model.apply(
        {"params": trained("generative")},
        chain.position[:, 0],
        rows,
        noise=jax.random.normal(key_noise, rows.mask.shape) if model.paper else None,
        pos_weight_y=pos_weight_y,
        method="log_joint",
    ).total()
    objective = (_nonzero_mean if model.paper else jnp.mean)(joint)

    def discrepancy(log_inflation):
        changed = {"log_inflation": log_inflation}
        num_rows = schedule.num_rows_stein or None
        many = chains(key_stein, changed, schedule.num_chains_stein, "detached", num_rows)
        per_row = jax.vmap(stein.sksd)(many.position, many.score)
        if model.paper:
            return _nonzero_mean(jnp.where(rows.is_observed()[:num_rows], per_row, 0.0))
        return jnp.mean(per_row)

    metrics = {f"bound_{name}": value for name, value in metrics.items()} | {
        "log_joint": objective,
        "acceptance": jnp.mean(chain.info.accept_prob),
        "divergences": jnp.mean(chain.info.is_divergent.astype(jnp.float32)),
        "step_size": jnp.mean(jnp.exp(tuned["log_step_size"])),
    }
    sksd = jnp.zeros(())
    if schedule.bound != "wake":
        sksd = jax.lax.cond(
            step % schedule.stein_every == 0,
            discrepancy,
            lambda log_inflation: jnp.zeros(()),
            tuned["log_inflation"],
        )
        metrics |= {
            "sksd": sksd * schedule.stein_every,  # its mean over steps is the mean discrepancy
            "inflation": jnp.mean(jnp.exp(tuned["log_inflation"])),
        }
    if schedule.accept_target:
        excess = jnp.mean(chain.info.accept_prob, axis=(0, 1)) - schedule.accept_target  # [T]
        objective += tuning.pull(tuned["log_step_size"], excess)
    return bound - objective + sksd, metrics


def labels(params: chex.ArrayTree) -> dict:
    """Names the parameter group of every leaf: the label of `optax.partition`.

    Groups: "marginal" (encoders of the one-column VAEs), "marginal_decoder" (their decoders and
    variances), "encoder" (with the features of images), "generative" (decoder, hierarchy,
    predictor, variances), "step" (log step sizes), "scale" (log inflation).
    """

    def label(path, _):
        group = GROUPS.get(path[0].key, "generative")
        if group == "hmc":
            return "step" if path[1].key == "log_step_size" else "scale"
        if group == "marginal" and not path[1].key.startswith("encoder"):
            return "marginal_decoder"
        return group

    return jax.tree_util.tree_map_with_path(label, params)


def _nonzero_mean(values):
    """Mean of the entries that are not exactly zero: how the published losses drop empty rows."""
    return jnp.sum(values) / jnp.maximum(jnp.sum(values != 0), 1)
