"""Test scores that only VAMoH has: bounds in nats, components, two other predictions of a value.

Scores of reconstructions come from the posterior mean of z and p(c | x, z), which has not seen the
value it predicts; `psnr_most_probable` takes one component a point, `psnr_published` weighs them by
the value's own responsibilities, as the released code does.
"""

import jax
import jax.numpy as jnp
import numpy as np

from functions import metrics, vamoh
from launch.experiments import field_report


class Scorer(field_report.Scorer):
    """Adds to the scores of every model, per seed.

    `bits_per_dimension` (the bound) and `_iw` (importance-weighted, S draws), `kl_z`, `kl_c`,
    `active_units`, `entropy` of components, `psnr_most_probable`, `psnr_published`; `adjusted_rand`
    where segments are known; `nll_<task>` in nats a value.
    """

    def __init__(self, field_model, field, config, net: vamoh.VAMoH, geometry: vamoh.Geometry):
        """Takes the network and its geometry as well."""
        super().__init__(field_model, field, config)
        self.net, self.geometry = net, geometry

    def reconstruction_scores(self, key, params, values, known, z, out):
        """Scores the bounds of one item, and other means at its points."""
        key_elbo, key_iw, key_own = jax.random.split(key, 3)
        terms = vamoh.elbo(key_elbo, self.net, params, values, known, self.geometry, is_bound=True)
        evidence = vamoh.log_evidence(
            key_iw, self.net, params, values, known, self.geometry,
            num_samples=self.settings.num_samples,
        )  # fmt: skip
        own = self.decode(key_own, params, z, (values, known))
        size = jnp.sum(known) * values.shape[-1]
        psnr = lambda prediction: self.psnr(self.errors(prediction, values, known)["mse"])
        return {
            "bits_per_dimension": metrics.bits_per_dimension(
                terms.log_lik - terms.kl_z - terms.kl_c, size
            ),
            "bits_per_dimension_iw": metrics.bits_per_dimension(evidence, size),
            "kl_z": terms.kl_z,
            "kl_c": terms.kl_c,
            "entropy": jnp.mean(out["entropy"]),
            "psnr_most_probable": psnr(out["most_probable"]),
            "psnr_published": psnr(own["mean"]),
        }, {
            "most_probable": out["most_probable"],
            "segments": own["segment"],
            "entropy": out["entropy"],
        }

    def set_scores(self, found):
        """Counts the latents in use, and compares segments with the true ones."""
        scores = {"active_units": int(metrics.active_units(found["z"]))}
        if self.field.segments is not None and self.net.num_components > 1:
            segments = found["arrays"]["segments"]
            pairs = zip(segments, self.field.segments[: len(segments)], strict=True)
            scores["adjusted_rand"] = np.mean([metrics.adjusted_rand(*pair) for pair in pairs])
        return scores

    def completion_scores(self, key, params, values, shown, hidden):
        """Scores the predictive density of the hidden values."""
        log_liks = vamoh.predictive_log_likelihoods(
            key, self.net, params, values, shown, hidden, self.geometry,
            num_samples=self.settings.num_samples,
        )  # fmt: skip
        num_hidden = jnp.maximum(jnp.sum(hidden), 1) * values.shape[-1]
        return {"nll": metrics.predictive_nll(log_liks) / num_hidden}
