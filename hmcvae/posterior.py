"""Samples of the posterior p(eps | x_O, y_O) of one row: the encoder, importance resampling, HMC.

Chains run in the space of eps, where the prior is standard normal, from the encoder's inflated
Gaussian (Peis et al. 2022) or from its draws resampled by importance (models trained by
`objectives.wake_loss`), with step sizes learned by `objectives.hmc_loss`. `schedule` is an
`objectives.Schedule`. Not here: batches of rows and what samples are for (`hmcvae.predict`).
"""

import jax
import jax.numpy as jnp

from hmcvae import hmc
from hmcvae.hierarchy import per_dimension
from hmcvae.model import HVAE, Rows


def init_hmc(key, model: HVAE, num_transitions: int, limits=(0.02, 0.05)) -> dict:
    """Draws step sizes [T, d_tot] uniformly between limits; inflation starts at one.

    Args:
      key: PRNG key.
      model: gives the sizes of the layers.
      num_transitions: T.
      limits: lowest and highest step size.

    Returns:
      The parameter group "hmc": log_step_size [T, d_tot], log_inflation [J].
    """
    shape = (num_transitions, model.num_latents)
    return {
        "log_step_size": jnp.log(
            jax.random.uniform(key, shape, minval=limits[0], maxval=limits[1])
        ),
        "log_inflation": jnp.zeros(len(model.layer_sizes)),
    }


def log_density(eps, model: HVAE, params, row: Rows, pos_weight_y=None, noise_key=None):
    """Computes log p(z_O, y_O, eps) of one row, the target of HMC: a scalar, in nats.

    With a `noise_key` (`paper`), z inside the imputed row carries new noise at every point at which
    the density is evaluated, as in the published sampler; the noise is a function of the point.
    """
    noise = None
    if noise_key is not None and row.y is not None:
        point = jax.lax.bitcast_convert_type(jnp.sum(eps).astype(jnp.float32), jnp.uint32)
        noise = jax.random.normal(jax.random.fold_in(noise_key, point), row.mask.shape)
    joint = model.apply(
        {"params": params}, eps, row, noise=noise, pos_weight_y=pos_weight_y, method="log_joint"
    )
    return joint.total()


def resample(
    key, model: HVAE, params, row: Rows, heads, *, num_proposals: int, pos_weight_y=None
) -> jax.Array:
    """Draws eps by importance resampling: one of R draws of the encoder, in proportion to weight.

    The weight is w = p(z_O, y_O, eps) / q(eps | z_O, y_O); as R grows the draw becomes one from the
    posterior, and R = 1 is the encoder (Rubin 1987; Mattei & Frellsen 2019 impute so). Weights are
    compared within one z only: across the draws of z that samples of a mixed-type model differ by,
    they would favour values of z that the second level finds likely, whatever x says.

    Args:
      key: PRNG key.
      model: the module.
      params: trained parameters.
      row: one row, without a leading axis.
      heads: of its encoder, each [d_tot].
      num_proposals: R; memory does not grow with it.
      pos_weight_y: [P] or None.

    Returns:
      [d_tot].
    """

    def propose(best, key):
        key_eps, key_pick = jax.random.split(key)
        drawn = model.apply({"params": params}, key_eps, *heads, method="draw")
        log_p = log_density(drawn.latents, model, params, row, pos_weight_y)
        log_weight = log_p - drawn.log_prob()
        # the largest log weight with Gumbel noise is a draw in proportion to the weights
        new = (log_weight + jax.random.gumbel(key_pick), drawn.latents)
        return jax.tree.map(lambda n, b: jnp.where(new[0] > best[0], n, b), new, best), None

    nothing = (jnp.full((), -jnp.inf), jnp.zeros_like(heads[0]))
    best, _ = jax.lax.scan(propose, nothing, jax.random.split(key, num_proposals))
    return best[1]


def sample_chain(
    key, model: HVAE, params, row: Rows, mean, log_var, *, schedule, gradient, pos_weight_y=None
) -> hmc.Chain:
    """Runs one chain for one row through T transitions.

    It starts from a draw of the inflated encoder Gaussian, and in a model trained by `wake_loss`
    from one of `resample`: an encoder that covers the posterior needs no inflation, and a chain
    that starts in proportion to the density has less way to go.

    Gradients reach the group "hmc" only; the rest of `params` is constant along the chain.

    Args:
      key: PRNG key.
      model: the module.
      params: its parameters and the group "hmc": log_step_size [T, d_tot], log_inflation [J].
      row: one row, without a leading axis.
      mean: [d_tot] mean of q(eps | row), `Draw.mean` of the draw that follows the means.
      log_var: [d_tot] its log variance.
      schedule: leapfrog steps of a transition. With `precondition`, the step sizes of a row are
        exp(log_step_size) times the row's own standard deviations: a row that shows much has a
        narrow posterior and takes short steps, which one table for all rows cannot give both.
      gradient: "detached", "exact" or "none", see `hmc.run`.
      pos_weight_y: [P] or None.

    Returns:
      The chain.
    """
    tuned = params["hmc"]
    key_start, key_chain, key_noise = jax.random.split(key, 3)
    if schedule.bound == "wake":
        start = resample(
            key_start, model, jax.lax.stop_gradient(params), row, (mean, log_var),
            num_proposals=schedule.num_proposals, pos_weight_y=pos_weight_y,
        )  # fmt: skip
    else:
        log_inflation = per_dimension(tuned["log_inflation"], model.layer_sizes)
        start = hmc.inflate(key_start, mean, log_var, log_inflation)

    log_step = tuned["log_step_size"]
    if schedule.precondition:
        log_step = log_step + jax.lax.stop_gradient(0.5 * log_var)

    def target(eps, params, row, pos_weight_y, noise_key):
        return log_density(eps, model, params, row, pos_weight_y, noise_key)

    return hmc.run(
        key_chain,
        start,
        target,
        log_step,
        params,
        row,
        pos_weight_y,
        key_noise if model.paper else None,
        num_leapfrog=schedule.num_leapfrog,
        gradient=gradient,
    )


def sample_eps(key, model: HVAE, params, row: Rows, *, schedule):
    """Draws eps once from q(eps | z_O, y_O) of one row whose marginal latents are given.

    By HMC if the parameters hold a chain; by `resample` if the model was trained with
    importance weights (in `paper` from the encoder nevertheless); else from the encoder's Gaussian.

    Args:
      key: PRNG key.
      model: the module.
      params: trained parameters.
      row: one row, without a leading axis.
      schedule: `hmcvae.objectives.Schedule`: leapfrog steps, bound, number of proposals.

    Returns:
      eps [d_tot], mean acceptance probability [] and fraction of divergent transitions [] of its
      chain (1 and 0 where there is no chain, or one without transitions).
    """
    heads = model.apply({"params": params}, row, method="encode")
    if "hmc" in params:
        start = model.apply({"params": params}, None, *heads, method="draw")
        chain = sample_chain(
            key, model, params, row, start.mean, start.log_var, schedule=schedule, gradient="none"
        )
        if not len(params["hmc"]["log_step_size"]):
            return chain.position, jnp.ones(()), jnp.zeros(())
        divergent = chain.info.is_divergent.astype(jnp.float32)
        return chain.position, jnp.mean(chain.info.accept_prob), jnp.mean(divergent)
    if schedule.bound != "elbo" and not model.paper:
        eps = resample(key, model, params, row, heads, num_proposals=schedule.num_proposals)
    else:
        eps = model.apply({"params": params}, key, *heads, method="draw").latents
    return eps, jnp.ones(()), jnp.zeros(())
