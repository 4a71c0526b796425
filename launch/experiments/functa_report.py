"""Test scores that only Functa has: numbers of inner steps, and the latents of all items.

Reconstructions are what the inner loop leaves after the steps of training, `psnr_<T>_steps` after
T; completions are the most probable latents under the flow given what is shown
(`functions.completion`), `psnr_<T>_steps_<task>` takes T inner steps on it instead. The figures'
samples of a completion are modes found from draws of the prior. There is no likelihood, and there
are no scores in nats. Scores of generated items are of the flow, and with `_diffusion` of the
diffusion model.
"""

import jax
import numpy as np

from functions import functa
from launch.experiments import field_report


class Scorer(field_report.Scorer):
    """Adds what the module says to the scores of every model."""

    def __init__(self, field_model, field, config, net: functa.Functa):
        """Takes the network as well."""
        super().__init__(field_model, field, config)
        self.net, self.train = net, config.train
        self._fit = self.over_items(
            lambda params, *item: functa.meta_loss(
                net, params, *item, self.coords,
                num_steps=self.train.inner_steps, penalty=self.train.penalty,
            )
        )  # fmt: skip

    def reconstruction_scores(self, key, params, values, known, z, out):
        """Scores one item after other numbers of inner steps."""
        del key, z, out
        return self._after_steps(params, values, known, known), {}

    def completion_scores(self, key, params, values, shown, hidden):
        """Scores the inner loop on what is shown."""
        del key
        return self._after_steps(params, values, shown, hidden)

    def _after_steps(self, params, values, shown, where):
        scores = {}
        for num in self.settings.inner_steps:
            z = functa.fit(
                self.net, params, values, shown, self.coords,
                num_steps=num, penalty=self.train.penalty,
            ).latent  # fmt: skip
            error = self.errors(self.decode(None, params, z)["mean"], values, where)["mse"]
            scores[f"psnr_{num}_steps"] = self.psnr(error)
        return scores

    def latents(self, params) -> tuple[dict, dict]:
        """Returns the PSNR of training items [R], and the latents and errors of all items.

        The arrays are train_latents [R, I, Z], train_mse [R, I], and the same of the test items.
        """
        mse = np.asarray(params["mse"])
        arrays = {"train_latents": np.asarray(params["latents"]), "train_mse": mse}
        found = []
        for r in range(len(mse)):
            replica = jax.tree.map(lambda a, r=r: a[r], params)
            found.append(self._fit(replica, self.test, self.known))
        arrays["test_latents"] = np.stack([fitted.latent for _, fitted in found])
        arrays["test_mse"] = np.stack([errors for errors, _ in found])
        return {"psnr_train": np.asarray(self.psnr(mse)).mean(axis=1)}, arrays


def evaluator(scorer: Scorer, num_seeds: int):
    """Returns `evaluate(key, params, data, phase_name, is_last)`: nothing, latents, all scores."""
    last = field_report.evaluator(scorer, num_seeds)

    def evaluate(key, params, data, phase_name, is_last):
        if phase_name == "train":
            return {}, {}
        if phase_name == "fit":
            return scorer.latents(params)
        return last(key, params, data, phase_name, is_last)

    return evaluate
