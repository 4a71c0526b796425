"""Test scores of a model of functions, and the arrays and figures that show them.

Scores of reconstructions come from the posterior mean of z and p(c | x, z), which has not seen the
value it predicts; `psnr_most_probable` takes one component a point, `psnr_published` weighs them by
the value's own responsibilities, as the released code does. Scores of completions are of hidden
points only.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from functions import domains, metrics, tasks, vamoh
from functions.render import render
from launch import field_figures as draw
from launch.data.fields import to_unit
from launch.experiment import stream
from launch.figures import training_curves
from launch.metrics import say

NUM_SHOWN = 8  # items in the figures
NUM_LARGE = 3  # items rendered at high resolution
MAX_LARGE = 2**22  # points of one of them; launch.render has no such bound
SHOWN_TASKS = ("inpaint", "outpaint", "left", "top", "drop50", "drop90")
PCA_SIZE = 64  # components of the feature space that generated sets are compared in
PCA_ITEMS = 5000  # training items that it is fitted to
AUDITED = 64  # generated items whose nearest training item is looked for
STEPS = 9  # of an interpolation


def evaluator(config, model, geometry, field):
    """Returns `evaluate(key, params, data, phase_name, is_last)` on the held-out items.

    Metrics, per seed: `bits_per_dimension` (the bound) and `_iw` (importance-weighted, S draws),
    `kl_z`, `kl_c`, `active_units`, `entropy` of components; `psnr` (mean over items) and
    `psnr_of_mean` (of the mean squared error) of reconstructions, `psnr_of_training_mean` of the
    mean training item in their place, `ssim`, or accuracy and IoU, or RMSE in raw units; most of
    them with `_<task>` for completions, and `nll_<task>` in nats a value; `fd_*`, precision,
    recall, density and coverage of generated against test items in the principal components of the
    training items, `fd_floor` with training items in the place of generated ones; `audit_*`.
    """
    scorer = _Scorer(model, geometry, field, config)

    def evaluate(key, params, data, phase_name, is_last):
        del data, phase_name, is_last
        scores, arrays = [], {}
        for r in range(config.seeds):
            replica = jax.tree.map(lambda a, r=r: a[r], params)
            found, shown = scorer.score(jax.random.fold_in(key, r), replica, is_shown=r == 0)
            scores.append(found)
            arrays |= shown
        return {name: np.array([s[name] for s in scores]) for name in scores[0]}, arrays

    return evaluate


class _Scorer:
    """The test items and the compiled programs of an evaluation.

    Every program takes parameters and items as arguments and goes through the items in blocks.
    """

    def __init__(self, model, geometry, field, config):
        self.model, self.geometry, self.field = model, geometry, field
        self.domain, self.settings, self.paper = field.domain, config.evaluate, config.paper
        count = self.settings.num_items or len(field.test)
        values = np.asarray(to_unit(field.test[:count], field.num_levels))
        masks = field.test_mask
        self.known = np.ones(values.shape[:2], bool) if masks is None else masks[:count]
        self.test = np.where(self.known[..., None], values, 0.0).astype(np.float32)
        train = np.asarray(to_unit(field.train[:PCA_ITEMS], field.num_levels))
        seen = np.ones(train.shape[:2], bool)
        if field.train_mask is not None:
            seen = field.train_mask[:PCA_ITEMS]
        total = np.sum(train, axis=0, where=seen[..., None])
        self.training_mean = total / np.maximum(seen.sum(axis=0), 1)[:, None]
        self.weights = domains.cell_weights(field.domain).astype(np.float32)
        self.tasks = [n for n in tasks.TASKS if _is_possible(n, field.domain, config.paper)]
        self._reconstruct = self._over_items(self._reconstruct_one)
        self._complete = self._over_items(self._complete_one)
        self._posterior = self._over_items(self._posterior_one)
        self._generate = self._over_items(self._generate_one)
        self._render = jax.jit(self._render_all)

    def score(self, key, params, *, is_shown):
        """Returns the metrics of one seed by name, and the arrays of the figures."""
        named = lambda name: stream(key, name, 0)
        scores, shown = self._score_reconstructions(named("reconstruct"), params)
        completions = {}
        for name in self.tasks:
            if jax.process_index() == 0:
                say(f"scoring: {name}")
            found, completions[name] = self._score_completions(named(name), params, name, is_shown)
            scores |= found
        found, samples = self._score_samples(named("generate"), params)
        scores |= found
        if not is_shown:
            return scores, {}
        arrays = shown | samples | self._renders(named("render"), params)
        chosen = [name for name in SHOWN_TASKS if name in completions]
        for part in ("mask", "mean", "samples", "psnr", "std"):
            arrays[f"completion_{part}"] = np.stack([completions[n][part] for n in chosen])
        return scores, arrays | {
            "tasks": np.array(chosen),
            "kind": np.array(self.domain.kind),
            "shape": np.array(self.domain.shape),
            "convention": np.array(self.domain.convention),
            "num_components": np.array(self.model.num_components),
            **({"unit": np.array(self.field.unit)} if self.field.unit else {}),
        }

    def _over_items(self, one):
        def run(params, *items):
            size = min(self.settings.batch_size, len(items[0]))
            return jax.lax.map(lambda item: one(params, *item), items, batch_size=size)

        jitted = jax.jit(run)
        return lambda params, *items: jax.device_get(jitted(params, *items))

    def _encode(self, params, values, mask):
        return self.model.apply({"params": params}, values, mask, self.geometry, method="encode")

    def _at(self, key, params, z, **seen):
        return render(key, self.model, params, z, self.geometry.coords, **seen)

    def _errors(self, prediction, values, where):
        mse = metrics.mean_squared_error(prediction, values, weights=self.weights, where=where)
        out = {"mse": mse}
        if self.domain.kind == "voxels":
            out["accuracy"] = metrics.accuracy(prediction, values, where=where)
            out["iou"] = metrics.intersection_over_union(prediction, values, where=where)
        return out

    def _summary(self, errors, suffix):
        mse = errors["mse"]
        out = {f"psnr{suffix}": np.mean(metrics.psnr(mse))}
        if self.field.unit:
            out[f"rmse_raw{suffix}"] = float(metrics.rmse(mse.mean(), scale=self.field.unit[1]))
        return out | {f"{k}{suffix}": v.mean() for k, v in errors.items() if k != "mse"}

    def _reconstruct_one(self, params, key, values, known):
        key_elbo, key_iw, key_render, key_own = jax.random.split(key, 4)
        mean, _ = self._encode(params, values, known)
        terms = vamoh.elbo(
            key_elbo, self.model, params, values, known, self.geometry, is_bound=True
        )
        evidence = vamoh.log_evidence(
            key_iw, self.model, params, values, known, self.geometry,
            num_samples=self.settings.num_samples,
        )  # fmt: skip
        out = self._at(key_render, params, mean)
        own = self._at(key_own, params, mean, values=values, mask=known)
        errors = self._errors(out.mean, values, known)
        if self.domain.kind == "image" and self.field.test_mask is None:
            images = (a.reshape(*self.domain.shape, -1) for a in (out.mean, values))
            errors["ssim"] = metrics.ssim(*images)
        return {
            "errors": errors, "errors_published": self._errors(own.mean, values, known),
            "errors_most_probable": self._errors(out.most_probable, values, known),
            "terms": terms, "evidence": evidence, "z": mean, "rendering": out,
            "segments": own.segment,
        }  # fmt: skip

    def _score_reconstructions(self, key, params):
        keys = jax.random.split(key, len(self.test))
        out = self._reconstruct(params, keys, self.test, self.known)
        terms, rendering = out["terms"], out["rendering"]
        size = self.known.sum(axis=1) * self.test.shape[-1]
        bits = lambda nats: metrics.bits_per_dimension(nats, size).mean()
        scores = {
            "bits_per_dimension": bits(terms.log_lik - terms.kl_z - terms.kl_c),
            "bits_per_dimension_iw": bits(out["evidence"]),
            "kl_z": terms.kl_z.mean(),
            "kl_c": terms.kl_c.mean(),
            "active_units": int(metrics.active_units(out["z"])),
            "entropy": rendering.entropy.mean(),
            **self._summary(out["errors"], ""),
            "psnr_of_mean": float(metrics.psnr(out["errors"]["mse"].mean())),
            "psnr_of_training_mean": np.mean(metrics.psnr(self._baseline())),
            **{
                f"psnr_{name}": np.mean(metrics.psnr(out[f"errors_{name}"]["mse"]))
                for name in ("most_probable", "published")
            },
        }
        if self.field.segments is not None and self.model.num_components > 1:
            truth = self.field.segments[: len(self.test)]
            pairs = zip(out["segments"], truth, strict=True)
            scores["adjusted_rand"] = np.mean([metrics.adjusted_rand(*pair) for pair in pairs])
        return scores, {
            "truth": np.where(self.known[..., None], self.test, np.nan)[:NUM_SHOWN],
            "reconstruction": rendering.mean[:NUM_SHOWN],
            "most_probable": rendering.most_probable[:NUM_SHOWN],
            "segments": out["segments"][:NUM_SHOWN],
            "entropy": rendering.entropy[:NUM_SHOWN],
        }

    def _baseline(self):
        """Returns what the mean of the training items would score as a reconstruction, [I]."""
        one = lambda values, known: self._errors(self.training_mean, values, known)["mse"]
        return jax.vmap(one)(self.test, self.known)

    def _complete_one(self, params, key, values, known, shown):
        key_nll, key_render = jax.random.split(key)
        hidden = known & ~shown
        mean, _ = self._encode(params, values, shown)
        log_liks = vamoh.predictive_log_likelihoods(
            key_nll, self.model, params, values, shown, hidden, self.geometry,
            num_samples=self.settings.num_samples,
        )  # fmt: skip
        out = self._at(key_render, params, mean, values=values, mask=shown)
        num_hidden = jnp.maximum(jnp.sum(hidden), 1) * values.shape[-1]
        return {
            "errors": self._errors(out.mean, values, hidden),
            "nll": metrics.predictive_nll(log_liks) / num_hidden,
            "mean": out.mean,
        }

    def _posterior_one(self, params, key, values, shown):
        """Draws functions from the posterior of one item: [S, N, C] means given z."""
        mean, log_var = self._encode(params, values, shown)

        def one(key):
            key_z, key_render = jax.random.split(key)
            z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key_z, mean.shape)
            return self._at(key_render, params, z, values=values, mask=shown).mean

        return jax.lax.map(one, jax.random.split(key, self.settings.num_samples))

    def _score_completions(self, key, params, name, is_shown):
        key_mask, key_score, key_draw = jax.random.split(key, 3)
        make = lambda key: jnp.asarray(tasks.mask(name, key, self.domain, paper=self.paper))
        shown = self.known & np.asarray(jax.vmap(make)(jax.random.split(key_mask, len(self.test))))
        keys = jax.random.split(key_score, len(self.test))
        out = self._complete(params, keys, self.test, self.known, shown)
        has = (self.known & ~shown).any(axis=1)
        errors = jax.tree.map(lambda v: v[has], out["errors"])
        scores = self._summary(errors, f"_{name}") | {f"nll_{name}": out["nll"][has].mean()}
        if not is_shown or name not in SHOWN_TASKS:
            return scores, {}
        first = slice(0, NUM_SHOWN)
        keys = jax.random.split(key_draw, len(self.test[first]))
        drawn = self._posterior(params, keys, self.test[first], shown[first])
        return scores, {
            "mask": shown[first],
            "mean": out["mean"][first],
            "samples": drawn[:, :2],
            "std": drawn.std(axis=1),
            "psnr": np.asarray(metrics.psnr(out["errors"]["mse"][first])),
        }

    def _generate_one(self, params, key):
        key_u, key_render = jax.random.split(key)
        u = jax.random.normal(key_u, (self.model.latent_size,))
        z = self.model.apply({"params": params}, u, method="prior_forward")
        out = self._at(key_render, params, z)
        return {"mean": out.mean, "sample": out.sample}

    def _score_samples(self, key, params):
        """Compares generated items with test items, and with training items they may copy.

        Nothing to compare with where training items have holes.
        """
        field, levels = self.field, self.field.num_levels
        out = self._generate(params, jax.random.split(key, self.settings.num_generated))
        pictures = {"generated": out["mean"][:AUDITED]}
        if field.train_mask is not None:
            return {}, pictures
        train = np.asarray(to_unit(field.train[:PCA_ITEMS], levels))
        test = np.asarray(to_unit(field.test[: len(out["mean"])], levels))
        num = min(PCA_SIZE, math.prod(train.shape[1:]), len(train))
        sets = metrics.pca_features(train, test, out["mean"], out["sample"], num=num)
        size = min(map(len, sets))
        floor, real, means, samples = (features[:size] for features in sets)
        scores = {
            "fd_mean": metrics.frechet_distance(means, real),
            "fd_sample": metrics.frechet_distance(samples, real),
            "fd_floor": metrics.frechet_distance(floor, real),
        }
        if size > 5:  # neighbours that the two need
            scores |= metrics.precision_recall(means, real)._asdict()
            scores |= metrics.density_coverage(means, real)._asdict()
        unit = levels - 1 if levels else 1  # bytes with bytes: all training items are looked at
        whole = "sample" if self.model.likelihood == "bernoulli" else "mean"
        audit = metrics.nearest_neighbour_audit(
            unit * out[whole][:AUDITED], field.train, field.test[:AUDITED]
        )
        scores["audit_ratio"] = audit.ratio
        return scores, pictures | {
            "nearest": np.asarray(to_unit(field.train[audit.index], levels)),
            "nearest_ratio": audit.distance / np.median(audit.reference),
        }

    def _render_all(self, params, key, z, coords):
        one = lambda pair: render(pair[0], self.model, params, pair[1], coords).mean
        return jax.lax.map(one, (jax.random.split(key, len(z)), z))

    def _renders(self, key, params):
        """Renders test items at other resolutions, and the way from one item to another."""
        values, known = self.test[: 2 * NUM_LARGE], self.known[: 2 * NUM_LARGE]
        variables = {"params": params}
        z, _ = jax.jit(jax.vmap(self._encode, in_axes=(None, 0, 0)))(params, values, known)
        arrays = {}
        for factor in self.settings.factors:
            shape = [factor * size for size in self.domain.shape]
            if self.domain.kind == "video":  # finer frames, not more of them
                shape[0] = self.domain.shape[0]
            if math.prod(shape) > MAX_LARGE:
                continue
            finer = domains.resized(self.domain, shape)
            place = domains.paper_coordinates if self.paper else domains.coordinates
            coords = place(finer)
            large = self._render(params, key, z[:NUM_LARGE], coords)
            arrays[f"render_{finer.shape[0]}"] = np.asarray(large)
            arrays[f"shape_{finer.shape[0]}"] = np.array(finer.shape)
        half = len(values) // 2
        u = self.model.apply(variables, z, method="prior_inverse")
        path = jax.vmap(lambda a, b: tasks.interpolate(a, b, STEPS))(u[:half], u[half : 2 * half])
        path = self.model.apply(variables, path.reshape(-1, path.shape[-1]), method="prior_forward")
        steps = np.asarray(self._render(params, key, path, self.geometry.coords))
        return arrays | {"steps": steps.reshape(half, STEPS, *steps.shape[1:])}


def figures(arrays, metrics_rows, directory):
    """Draws every figure that the arrays of the last evaluation allow.

    Of channels that are no picture, neither one nor three, the first is drawn.
    """
    num_channels = arrays["truth"].shape[-1]
    if num_channels not in (1, 3) or (num_channels > 1 and str(arrays["kind"]) == "voxels"):
        drawn = ("truth", "reconstruction", "most_probable", "generated", "nearest", "steps")
        drawn += ("completion_mean", "completion_samples", "completion_std")
        is_drawn = lambda name: name in drawn or name.startswith("render_")
        arrays = {n: v[..., :1] if is_drawn(n) else v for n, v in arrays.items()}
    shared = {name: arrays[name] for name in ("kind", "shape", "convention", "num_components")}
    training_curves(metrics_rows, directory / "training.png")
    draw.reconstructions(
        shared | {"data": arrays["truth"], "mean": arrays["reconstruction"]}
        | {name: arrays[name] for name in ("most_probable", "segments", "entropy")},
        directory / "reconstructions.png",
    )  # fmt: skip
    parts = ("mask", "mean", "samples", "psnr", "std")
    completions = {name: arrays[f"completion_{name}"] for name in parts}
    named = {"tasks": arrays["tasks"], "truth": arrays["truth"]}
    draw.completions(shared | named | completions, directory / "completions.png")
    renders = {name: v for name, v in arrays.items() if name.startswith(("render_", "shape_"))}
    if renders:
        draw.super_resolution(
            shared | renders | {"input": arrays["truth"][:NUM_LARGE]},
            directory / "super_resolution.png",
        )
    draw.samples(shared | {"samples": arrays["generated"]}, directory / "samples.png")
    if "nearest" in arrays:
        pairs = {"samples": "generated", "nearest": "nearest", "ratio": "nearest_ratio"}
        audit = {name: arrays[stored] for name, stored in pairs.items()}
        draw.audit(shared | audit, directory / "audit.png")
    draw.interpolation(shared | {"steps": arrays["steps"]}, directory / "interpolation.png")
    if str(arrays["kind"]) == "sphere":
        task = list(arrays["tasks"]).index("drop90")
        one = {name: completions[name][task, 0] for name in ("mask", "mean", "std")}
        unit = {"unit": arrays.get("unit", np.array([0.0, 1.0]))}
        unit["unit_name"] = "kelvin" if "unit" in arrays else "standard units"
        draw.globe(shared | one | unit | {"truth": arrays["truth"][0]}, directory / "globe.png")


def _is_possible(name, domain, paper):
    try:
        tasks.mask(name, jax.random.key(0), domain, paper=paper)
    except ValueError:
        return False
    return True
