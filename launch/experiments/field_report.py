"""Test scores of a model of functions, and the arrays and figures that show them.

The same programs for every `FieldModel`. Scores of reconstructions are of the function of the one
latent that the model finds for an item, which has seen all of it; scores of completions are of
hidden points only.
"""

import math
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from functions import domains, metrics, tasks
from launch import field_figures as draw
from launch.data.fields import Field, to_unit
from launch.experiment import stream
from launch.experiments.field_model import FieldModel
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
MSE_FLOOR = 1e-6  # below what 8 bits tell apart: 60 dB, where an exact item would be infinite
PARTS = ("mask", "mean", "samples", "psnr", "std")  # of completions, in the arrays


def evaluator(scorer: "Scorer", num_seeds: int) -> Callable:
    """Returns `evaluate(key, params, data, phase_name, is_last)` on the held-out items.

    Metrics, per seed: `psnr` (mean over items) and `psnr_of_mean` (of the mean squared error) of
    reconstructions, `psnr_of_training_mean` of the mean training item in their place, `ssim`, or
    accuracy and IoU, or RMSE in raw units; most of them with `_<task>` for completions; `fd_mean`,
    `fd_sample`, precision, recall, density and coverage of generated against test items in the
    principal components of the training items, `fd_floor` with training items in the place of
    generated ones; `audit_*`; and what the scorer of the model adds.
    """

    def evaluate(key, params, data, phase_name, is_last):
        del data, phase_name, is_last
        scores, arrays = [], {}
        for r in range(num_seeds):
            replica = jax.tree.map(lambda a, r=r: a[r], params)
            found, shown = scorer.score(jax.random.fold_in(key, r), replica, is_shown=r == 0)
            scores.append(found)
            arrays |= shown
        return {name: np.array([s[name] for s in scores]) for name in scores[0]}, arrays

    return evaluate


class Scorer:
    """The test items and the compiled programs of an evaluation.

    Every program takes parameters and items as arguments and goes through the items in blocks. A
    model with more to score overrides `reconstruction_scores`, `set_scores` and
    `completion_scores`.
    """

    def __init__(self, model: FieldModel, field: Field, config):
        """Prepares the items; compiles nothing yet."""
        self.model, self.field, self.domain = model, field, field.domain
        self.settings, self.paper = config.evaluate, config.paper
        self.root = jax.random.key(config.data.seed)
        self.coords = jnp.asarray(model.coordinates(field.domain))
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
        self._reconstruct = self.over_items(self._reconstruct_one)
        self._complete = self.over_items(self._complete_one)
        self._posterior = self.over_items(self._posterior_one)
        self._generators = {
            ending: self.over_items(lambda params, key, find=find: self._made(params, key, find))
            for ending, find in model.generate.items()
        }
        self._render = jax.jit(self._render_all)

    def reconstruction_scores(self, key, params, values, known, z, out) -> tuple[dict, dict]:
        """Scores one item further.

        Args:
          key: typed PRNG key, consumed once.
          params: of one seed.
          values: [N, C].
          known: [N] True = observed.
          z: [Z] the latent that was found.
          out: what it was decoded to.

        Returns:
          Scalars by name, which are averaged over items; arrays of the item for the figures, by
          name.
        """
        del key, params, values, known, z, out
        return {}, {}

    def set_scores(self, found: dict) -> dict:
        """Scores all reconstructions together: `z` [I, Z] and `arrays` of `found`."""
        del found
        return {}

    def completion_scores(self, key, params, values, shown, hidden) -> dict:
        """Scores the completion of one item further: scalars by name, without the task's."""
        del key, params, values, shown, hidden
        return {}

    def score(self, key, params, *, is_shown) -> tuple[dict, dict]:
        """Returns the metrics of one seed by name, and the arrays of the figures."""
        named = lambda name: stream(key, name, 0)
        scores, arrays = {}, {}
        if self.model.reconstruct:
            scores, arrays = self._score_reconstructions(named("reconstruct"), params)
            completions = {}
            for name in self.tasks:
                if jax.process_index() == 0:
                    say(f"scoring: {name}")
                found, shown = self._score_completions(named(name), params, name, is_shown)
                scores |= found
                completions |= {name: shown} if shown else {}
            if is_shown:
                arrays["tasks"] = np.array(list(completions))
                for part in PARTS:
                    stacked = np.stack([shown[part] for shown in completions.values()])
                    arrays[f"completion_{part}"] = stacked
        found, samples = self._score_samples(named("generate"), params)
        scores |= found
        if not is_shown:
            return scores, {}
        return scores, arrays | samples | self._renders(named("render"), params, arrays) | {
            "kind": np.array(self.domain.kind),
            "shape": np.array(self.domain.shape),
            "convention": np.array(self.domain.convention),
            "num_components": np.array(self.model.num_components),
            **({"unit": np.array(self.field.unit)} if self.field.unit else {}),
        }

    def over_items(self, one: Callable) -> Callable:
        """Compiles (params, *item) -> tree for items with a leading axis; results on the host."""

        def run(params, *items):
            size = min(self.settings.batch_size, len(items[0]))
            return jax.lax.map(lambda item: one(params, *item), items, batch_size=size)

        jitted = jax.jit(run)
        return lambda params, *items: jax.device_get(jitted(params, *items))

    def decode(self, key, params, z, seen=None) -> dict:
        """Evaluates the function of a latent at the points of the data."""
        return self.model.decode(key, params, z, self.coords, seen=seen)

    def errors(self, prediction, values, where) -> dict:
        """Compares [N, C] with values at the points `where` [N]: `mse`, of voxels more."""
        mse = metrics.mean_squared_error(prediction, values, weights=self.weights, where=where)
        out = {"mse": mse}
        if self.domain.kind == "voxels":
            out["accuracy"] = metrics.accuracy(prediction, values, where=where)
            out["iou"] = metrics.intersection_over_union(prediction, values, where=where)
        return out

    def psnr(self, mse):
        """Returns PSNR in dB, no more than 60, of mean squared errors."""
        return metrics.psnr(jnp.maximum(mse, MSE_FLOOR))

    def _summary(self, errors, more, ending):
        mse = errors["mse"]
        out = {"psnr": np.mean(self.psnr(mse))}
        if self.field.unit:
            out["rmse_raw"] = float(metrics.rmse(mse.mean(), scale=self.field.unit[1]))
        averaged = {name: v.mean() for name, v in (errors | more).items() if name != "mse"}
        return {f"{name}{ending}": value for name, value in (out | averaged).items()}

    def _reconstruct_one(self, params, key, values, known):
        key_find, key_decode, key_more = jax.random.split(key, 3)
        z = self.model.reconstruct(key_find, params, values, known)
        out = self.decode(key_decode, params, z)
        errors = self.errors(out["mean"], values, known)
        if self.domain.kind == "image" and self.field.test_mask is None:
            images = (a.reshape(*self.domain.shape, -1) for a in (out["mean"], values))
            errors["ssim"] = metrics.ssim(*images)
        scores, arrays = self.reconstruction_scores(key_more, params, values, known, z, out)
        arrays = {"reconstruction": out["mean"], **arrays}
        return {"errors": errors, "z": z, "scores": scores, "arrays": arrays}

    def _score_reconstructions(self, key, params):
        keys = jax.random.split(key, len(self.test))
        found = self._reconstruct(params, keys, self.test, self.known)
        scores = {
            **self._summary(found["errors"], found["scores"], ""),
            "psnr_of_mean": float(self.psnr(found["errors"]["mse"].mean())),
            "psnr_of_training_mean": np.mean(self.psnr(self._baseline())),
            **self.set_scores(found),
        }
        truth = np.where(self.known[..., None], self.test, np.nan)
        arrays = {"truth": truth, "z": found["z"], **found["arrays"]}
        return scores, {name: array[:NUM_SHOWN] for name, array in arrays.items()}

    def _baseline(self):
        """Returns what the mean of the training items would score as a reconstruction, [I]."""
        one = lambda values, known: self.errors(self.training_mean, values, known)["mse"]
        return jax.vmap(one)(self.test, self.known)

    def _complete_one(self, params, key, values, known, shown):
        key_find, key_decode, key_more = jax.random.split(key, 3)
        hidden = known & ~shown
        z = self.model.complete(key_find, params, values, shown)
        mean = self.decode(key_decode, params, z, (values, shown))["mean"]
        return {
            "errors": self.errors(mean, values, hidden),
            "scores": self.completion_scores(key_more, params, values, shown, hidden),
            "mean": mean,
        }

    def _posterior_one(self, params, key, values, shown):
        """Draws functions that one item may be: [S, N, C] means given z."""
        key_draw, key_decode = jax.random.split(key)
        num = self.settings.num_samples
        drawn = self.model.draw(key_draw, params, values, shown, num)
        one = lambda pair: self.decode(pair[0], params, pair[1], (values, shown))["mean"]
        return jax.lax.map(one, (jax.random.split(key_decode, num), drawn))

    def _score_completions(self, key, params, name, is_shown):
        key_score, key_draw = jax.random.split(key)
        # holes belong to the data: all models, seeds and phases are asked for the same points
        key_mask = stream(self.root, name, 0)
        make = lambda key: jnp.asarray(tasks.mask(name, key, self.domain, paper=self.paper))
        shown = self.known & np.asarray(jax.vmap(make)(jax.random.split(key_mask, len(self.test))))
        keys = jax.random.split(key_score, len(self.test))
        found = self._complete(params, keys, self.test, self.known, shown)
        has = (self.known & ~shown).any(axis=1)
        errors, more = jax.tree.map(lambda v: v[has], (found["errors"], found["scores"]))
        scores = self._summary(errors, more, f"_{name}")
        if not is_shown or name not in SHOWN_TASKS:
            return scores, {}
        first = slice(0, NUM_SHOWN)
        keys = jax.random.split(key_draw, len(self.test[first]))
        drawn = self._posterior(params, keys, self.test[first], shown[first])
        return scores, {
            "mask": shown[first],
            "mean": found["mean"][first],
            "samples": drawn[:, :2],
            "std": drawn.std(axis=1),
            "psnr": np.asarray(self.psnr(found["errors"]["mse"][first])),
        }

    def _made(self, params, key, find):
        key_find, key_decode = jax.random.split(key)
        out = self.decode(key_decode, params, find(key_find, params))
        return {name: out[name] for name in ("mean", "sample") if name in out}

    def _score_samples(self, key, params):
        """Compares generated items with test items, and with training items they may copy.

        Nothing to compare with where training items have holes.
        """
        keys = jax.random.split(key, self.settings.num_generated)
        scores, pictures = {}, {}
        for ending, generate in self._generators.items():
            out = generate(params, keys)
            found, shown = {}, {"generated": out["mean"][:AUDITED]}
            if self.field.train_mask is None:
                found = self._distances(out)
                audit, nearest = self._audit(out)
                found |= audit
                shown |= nearest
            if ending:  # of the same items again
                found.pop("fd_floor", None)
            scores |= {f"{name}{ending}": value for name, value in found.items()}
            pictures |= {f"{name}{ending}": value for name, value in shown.items()}
        return scores, pictures

    def _distances(self, out):
        levels = self.field.num_levels
        train = np.asarray(to_unit(self.field.train[:PCA_ITEMS], levels))
        test = np.asarray(to_unit(self.field.test[: len(out["mean"])], levels))
        num = min(PCA_SIZE, math.prod(train.shape[1:]), len(train))
        floor, real, *sets = metrics.pca_features(train, test, *out.values(), num=num)
        size = min(map(len, (floor, real, *sets)))
        floor, real, *sets = (features[:size] for features in (floor, real, *sets))
        scores = {
            f"fd_{name}": metrics.frechet_distance(features, real)
            for name, features in zip(out, sets, strict=True)
        }
        scores["fd_floor"] = metrics.frechet_distance(floor, real)
        if size > 5:  # neighbours that the two need
            scores |= metrics.precision_recall(sets[0], real)._asdict()
            scores |= metrics.density_coverage(sets[0], real)._asdict()
        return scores

    def _audit(self, out):
        field = self.field
        unit = field.num_levels - 1 if field.num_levels else 1  # bytes with bytes: all are seen
        whole = "sample" if field.kind == "bernoulli" and "sample" in out else "mean"
        audit = metrics.nearest_neighbour_audit(
            unit * out[whole][:AUDITED], field.train, field.test[:AUDITED]
        )
        return {"audit_ratio": audit.ratio}, {
            "nearest": np.asarray(to_unit(field.train[audit.index], field.num_levels)),
            "ratio": audit.distance / np.median(audit.reference),
        }

    def _render_all(self, params, key, z, coords):
        one = lambda pair: self.model.decode(pair[0], params, pair[1], coords)["mean"]
        return jax.lax.map(one, (jax.random.split(key, len(z)), z))

    def _renders(self, key, params, arrays):
        """Renders items at other resolutions, and the way from one item to another.

        Test items, or generated ones where the model finds no latent of an item.
        """
        key_find, key_render = jax.random.split(key)
        num = 2 * NUM_LARGE
        if "z" in arrays:
            z, source = arrays["z"][:num], arrays["truth"][:NUM_LARGE]
        else:
            keys = jax.random.split(key_find, num)
            z = jax.vmap(self.model.generate[""], in_axes=(0, None))(keys, params)
            source = self._render(params, key_render, z[:NUM_LARGE], self.coords)
        renders = {"input": source}
        for factor in self.settings.factors:
            shape = [factor * size for size in self.domain.shape]
            if self.domain.kind == "video":  # finer frames, not more of them
                shape[0] = self.domain.shape[0]
            if math.prod(shape) > MAX_LARGE:
                continue
            finer = domains.resized(self.domain, shape)
            coords = self.model.coordinates(finer)
            large = self._render(params, key_render, z[:NUM_LARGE], coords)
            renders[f"render_{finer.shape[0]}"] = large
            renders[f"shape_{finer.shape[0]}"] = np.array(finer.shape)
        half = len(z) // 2
        u = jax.vmap(self.model.to_base, in_axes=(None, 0))(params, z)
        path = jax.vmap(lambda a, b: tasks.interpolate(a, b, STEPS))(u[:half], u[half : 2 * half])
        path = path.reshape(half * STEPS, -1)
        path = jax.vmap(self.model.from_base, in_axes=(None, 0))(params, path)
        steps = np.asarray(self._render(params, key_render, path, self.coords))
        renders["steps"] = steps.reshape(half, STEPS, *steps.shape[1:])
        return {name: np.asarray(array) for name, array in renders.items()}


def figures(arrays: dict, metrics_rows: list[dict], directory: Path) -> None:
    """Draws every figure that the arrays of the last evaluation allow.

    Of channels that are no picture, neither one nor three, the first is drawn.
    """
    num_channels = arrays["generated"].shape[-1]
    if num_channels not in (1, 3) or (num_channels > 1 and str(arrays["kind"]) == "voxels"):
        drawn = ("truth", "reconstruction", "most_probable", "generated", "nearest", "steps")
        drawn += ("input", "render_", "completion_mean", "completion_samples", "completion_std")
        arrays = {n: v[..., :1] if n.startswith(drawn) else v for n, v in arrays.items()}
    shared = {name: arrays[name] for name in ("kind", "shape", "convention", "num_components")}
    starting = lambda start: {n: v for n, v in arrays.items() if n.startswith(start)}
    training_curves(metrics_rows, directory / "training.png")
    if "truth" in arrays:
        optional = ("most_probable", "segments", "entropy")
        draw.reconstructions(
            shared | {"data": arrays["truth"], "mean": arrays["reconstruction"]}
            | {name: arrays[name] for name in optional if name in arrays},
            directory / "reconstructions.png",
        )  # fmt: skip
        completions = {name: arrays[f"completion_{name}"] for name in PARTS}
        completions |= {name: arrays[name] for name in ("tasks", "truth")}
        draw.completions(shared | completions, directory / "completions.png")
    renders = starting(("render_", "shape_"))
    if renders:
        renders["input"] = arrays["input"]
        draw.super_resolution(shared | renders, directory / "super_resolution.png")
    for name, samples in starting("generated").items():
        ending = name.removeprefix("generated")
        draw.samples(shared | {"samples": samples}, directory / f"samples{ending}.png")
        if f"nearest{ending}" in arrays:
            pairs = {part: arrays[f"{part}{ending}"] for part in ("nearest", "ratio")}
            draw.audit(shared | {"samples": samples} | pairs, directory / f"audit{ending}.png")
    draw.interpolation(shared | {"steps": arrays["steps"]}, directory / "interpolation.png")
    if str(arrays["kind"]) == "sphere" and "truth" in arrays:
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
