"""Test scores of a tabular run, in both definitions, and the arrays and figures that show them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_auc_score

from hmcvae import columns, predict, sample_scores
from hmcvae.compiling import RUN_BRIEFLY, RUN_ONCE
from hmcvae.gaussian import standard_normal_log_prob
from hmcvae.model import Rows
from hmcvae.posterior import log_density, sample_eps
from launch import figures as draw

GRID = 41  # points a side of the posterior contours


def evaluator(config, model, schedule, table, folds, prepared):
    """Returns `evaluate(key, params, data, phase_name, is_last)` for all splits' test rows."""
    settings = config.evaluate
    test = _stack_test(table, folds, prepared, settings.rows_per_block)
    scalers = jax.tree.map(lambda *v: np.stack(v), *[(p.scaler, p.scaler_y) for p in prepared])
    weights = (
        np.stack([p.train.pos_weight_x for p in prepared]),
        np.stack([p.train.pos_weight_y for p in prepared]),
    )
    # plain models are published without weights on their columns; only draws of reals are scored
    kinds = {*table.schema.kinds, *table.target.kinds}
    num_draws = settings.num_draws if kinds & {"gaussian", "loggaussian"} else 0

    def score_split(key, params, scaler, scaler_y, rows, weight_x, weight_y):
        def block(args):
            key, rows = args
            return predict.score(
                key, model, params, scaler, scaler_y, rows,
                num_samples=settings.num_samples, chunk=settings.samples_per_chunk,
                schedule=schedule, num_draws=num_draws, pos_weight_y=weight_y,
                weighted_target=config.train.weight_target,
                pos_weight_x=weight_x if model.marginals else None,
            )  # fmt: skip

        out = jax.lax.map(block, (jax.random.split(key, rows.x.shape[0]), rows))
        return {k: v.reshape(-1, *v.shape[2:]) for k, v in out.items()}

    score_all = jax.jit(jax.vmap(score_split), compiler_options=RUN_BRIEFLY)

    def evaluate(key, params, data, phase_name, is_last):
        if phase_name == "marginal":
            return {}, {}
        keys = jax.random.split(key, len(folds))
        scores = jax.device_get(score_all(keys, params, *scalers, test, *weights))
        per_split, arrays = [], {}
        for r, (fold, split) in enumerate(zip(folds, prepared, strict=True)):
            rows = {k: v[r][: len(fold.test)] for k, v in scores.items()}
            per_split.append(summarise(rows, table, fold, split, config.train.batch_size))
            if r == 0:
                arrays = _arrays(rows, table, fold, split)
        if is_last:
            first = jax.tree.map(lambda v: v[0], params)
            if model.num_latents > 1 and model.networks == "table":  # else minutes of decoding
                arrays |= _posterior(key, model, first, schedule, test)
            if "hmc" in first:
                arrays["log_step_size"] = np.asarray(first["hmc"]["log_step_size"])
                arrays["is_preconditioned"] = np.array(schedule.precondition)
                arrays["layer_sizes"] = np.array(model.layer_sizes)
        return {k: np.array([s[k] for s in per_split]) for k in per_split[0]}, arrays

    return evaluate


def summarise(rows, table, fold, split, batch_size):
    """Reduces row scores to the reported metrics; lower is better but for accuracy and AUROC.

    Args:
      rows: output of `predict.score` for the test rows, as NumPy arrays.
      table: the table.
      fold: its split.
      split: the standardisation of that split.
      batch_size: the `paper` metrics are unweighted means over batches of that many rows.

    Returns:
      Metrics by name. `nll_x` is nats per missing column (joint over a row's missing columns), its
      `_marginal` the mean over columns one at a time, `_raw` in the units of the table; `error_x`
      mixes standardised RMSE and error rates by column, as published; `paper_*` are the published
      definitions. `crps_*` (standardised units) and `coverage50_*`, `coverage90_*` (of equal-tailed
      intervals) score the draws of hidden real cells, by column, then averaged.
    """
    known, true_y = table.mask[fold.test], table.y[fold.test]
    y_known = table.y_mask[fold.test]
    missing = known & ~fold.test_mask
    count = missing.sum(axis=1)
    has = count > 0
    jacobian = split_jacobian(table.schema, split.scaler, table.x[fold.test], missing)
    joint = rows["joint_x"] / np.maximum(count, 1)
    raw = (rows["joint_x"] + jacobian) / np.maximum(count, 1)
    marginal = np.sum(rows["marginal_x"], axis=1, where=missing) / np.maximum(count, 1)
    metrics = {
        "nll_x": -joint[has].mean(),
        "nll_x_marginal": -marginal[has].mean(),
        "nll_x_raw": -raw[has].mean(),
        "paper_nll_x": -_batch_mean(rows["paper_x"], has, batch_size),
        "error_x": np.nanmean(column_errors(rows, table, fold, split)),
        "acceptance": rows["acceptance"].mean(),
        "divergences": rows["divergence"].mean(),
    }
    if "x_draws" in rows:
        x = split.x[fold.test]
        metrics |= _draw_metrics("x", table.schema, split.scaler, rows["x_draws"], x, missing)
    if not table.target.num_columns:
        return metrics
    jacobian = split_jacobian(table.target, split.scaler_y, true_y, y_known)
    scored = y_known.any(axis=1)
    metrics |= {
        "nll_y": -rows["joint_y"][scored].mean(),
        "nll_y_raw": -(rows["joint_y"] + jacobian)[scored].mean(),
        "paper_nll_y": -_batch_mean(rows["paper_y"], scored, batch_size),
    }
    if "y_draws" in rows:
        y = split.y[fold.test]
        metrics |= _draw_metrics("y", table.target, split.scaler_y, rows["y_draws"], y, y_known)
    return metrics | _target_metrics(rows, table, true_y, y_known)


def column_errors(rows, table, fold, split, *, baseline=False):
    """Imputation error of every column over its hidden test entries, [D]; NaN where none is hidden.

    Real columns: RMSE of the posterior mean in standardised units; discrete columns: error rate of
    the most probable class. With `baseline`, the training mean or mode takes the model's place.
    """
    x = split.x[fold.test]
    missing = table.mask[fold.test] & ~fold.test_mask
    out = np.full(table.schema.num_columns, np.nan)
    for i, column in enumerate(table.schema.columns):
        at = missing[:, i]
        if not at.any():
            continue
        if column.is_discrete:
            if baseline:
                seen = split.train.x[split.train.mask[:, i], i]
                guess = np.bincount(seen.astype(int)).argmax()
            elif column.kind == "bernoulli":
                guess = rows["probs"][at, i, 0] > 0.5
            else:
                guess = rows["probs"][at, i, : column.num_classes].argmax(axis=-1)
            out[i] = np.mean(guess != x[at, i])
        else:
            guess = 0.0 if baseline else rows["theta"][at, i, 0]
            out[i] = np.sqrt(np.mean((guess - x[at, i]) ** 2))
    return out


def split_jacobian(schema, scaler, raw, where):
    """Sums log |d standardised / d raw| over the selected entries of every row: [B]."""
    log_scale = np.log(np.asarray(scaler.scale, np.float64))
    is_log = np.array([kind == "loggaussian" for kind in schema.kinds])
    real = np.array([not column.is_discrete for column in schema.columns])
    safe = np.where(where & is_log, raw, 0.0)
    return np.sum(np.where(real, -log_scale - np.log1p(safe), 0.0), axis=1, where=where)


def figures(arrays, metrics_rows, directory):
    """Draws every figure that the arrays of the last evaluation allow."""
    draw.training_curves(metrics_rows, directory / "training.png")
    draw.imputation_scatter(arrays, directory / "imputation.png")
    draw.error_by_column(arrays, directory / "error_by_column.png")
    posterior_figures(arrays, metrics_rows, directory)


def posterior_figures(arrays, metrics_rows, directory):
    """Draws the posterior of a row, and what the HMC stage learned, where there are such."""
    if "log_density" in arrays:
        draw.posterior_contours(arrays, directory / "posterior.png")
    if "log_step_size" in arrays:
        draw.step_sizes(arrays, directory / "step_sizes.png")
        curve = [row for row in metrics_rows if row["phase"] == "hmc"]
        acceptance = {
            "step": np.array([row["step"] for row in curve]),
            "acceptance": np.array([row["acceptance"] for row in curve]),
        }
        draw.acceptance(acceptance, directory / "acceptance.png")


def _draw_metrics(name, schema, scaler, draws, truth, where):
    """Scores raw draws [B, M, C] of the real columns against the standardised truth [B, C]."""
    scores = []
    draws = columns.transform(schema, scaler, draws, np.ones(draws.shape, bool))
    for i in schema.indices("gaussian", "loggaussian"):
        at = where[:, i]
        if at.any() and draws.shape[1] > 1:
            sample, value = draws[at, :, i].T, truth[at, i]
            scores.append(
                (
                    sample_scores.crps(sample, value).mean(),
                    sample_scores.is_covered(sample, value, 0.5).mean(),
                    sample_scores.is_covered(sample, value, 0.9).mean(),
                )
            )
    if not scores:
        return {}
    names = (f"crps_{name}", f"coverage50_{name}", f"coverage90_{name}")
    return dict(zip(names, np.mean(scores, axis=0), strict=True))


def _target_metrics(rows, table, true_y, y_known):
    kinds = set(table.target.kinds)
    scored = y_known.all(axis=1)
    if kinds <= {"gaussian", "loggaussian"}:
        error = rows["y_mean"][scored] - true_y[scored]
        return {"rmse": np.sqrt(np.mean(error**2))}
    if table.target.num_columns > 1:
        raise ValueError(
            f"table {table.name!r}: several targets of kinds {sorted(kinds)}; expected one "
            f"discrete target or any number of real ones"
        )
    label = true_y[scored, 0].astype(int)
    if kinds == {"bernoulli"}:
        prob = rows["y_probs"][scored, 0, 0]
        auroc = roc_auc_score(label, prob) if 0 < label.mean() < 1 else np.nan
        return {"accuracy": np.mean((prob > 0.5) == label), "auroc": auroc}
    return {"accuracy": np.mean(rows["y_probs"][scored, 0].argmax(axis=-1) == label)}


def _batch_mean(values, where, batch_size):
    """Unweighted mean over batches of the means over their rows, as published."""
    starts = range(0, len(values), batch_size)
    batches = [(values[i : i + batch_size], where[i : i + batch_size]) for i in starts]
    return np.mean([v[w].mean() for v, w in batches if w.any()])


def _stack_test(table, folds, prepared, block):
    """Pads the test rows of all splits to whole blocks: leaves [R, blocks, rows, ...]."""
    longest = max(len(fold.test) for fold in folds)
    block = -(-longest // -(-longest // block))  # as many blocks, of equal size
    size = -(-longest // block) * block

    def pad(leaf):
        leaf = np.pad(leaf, ((0, size - len(leaf)), (0, 0)))
        return leaf.reshape(size // block, block, leaf.shape[-1])

    rows = [
        predict.TestRows(
            pad(split.x[fold.test]),
            pad(fold.test_mask & table.mask[fold.test]),
            pad(table.mask[fold.test]),
            pad(split.y[fold.test]),
            pad(table.y_mask[fold.test]),
        )
        for fold, split in zip(folds, prepared, strict=True)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def _arrays(rows, table, fold, split):
    targets = {"y_mean": rows["y_mean"], "y_probs": rows["y_probs"]} if "y_mean" in rows else {}
    return targets | {
        "x_true": table.x[fold.test],
        "x_mean": rows["x_mean"],
        "x_std": np.sqrt(np.maximum(rows["x_square"] - rows["x_mean"] ** 2, 0.0)),
        "x_probs": rows["probs"],
        "mask": fold.test_mask & table.mask[fold.test],
        "known": table.mask[fold.test],
        "y_true": table.y[fold.test],
        "names": np.array(table.schema.names),
        "kinds": np.array(table.schema.kinds),
        "num_classes": np.array([c.num_classes for c in table.schema.columns]),
        "error_model": column_errors(rows, table, fold, split),
        "error_baseline": column_errors(rows, table, fold, split, baseline=True),
    }


def _posterior(key, model, params, schedule, test):
    """Posterior of the first test row in two latent dimensions, for the contour figure.

    The other dimensions are integrated out by importance sampling from the Gaussian fitted to the
    samples, conditioned on each grid point, so the contours are those of the marginal posterior.
    """
    x, shown = test.x[0, 0, 0], test.shown[0, 0, 0]
    key_z, key_chain, key_rest = jax.random.split(key, 3)

    @functools.partial(jax.jit, compiler_options=RUN_ONCE)
    def draw_samples(params, x, shown):
        # one z for contours, encoder and samples: the posteriors of two draws are two pictures
        z = model.apply({"params": params}, key_z, x, shown, method="extract")
        row = Rows(x, shown, z, None, None)
        heads = model.apply({"params": params}, row, method="encode")
        encoder = model.apply({"params": params}, None, *heads, method="draw")
        one = lambda key: sample_eps(key, model, params, row, schedule=schedule)[0]
        return row, encoder, jax.vmap(one)(jax.random.split(key_chain, 1000))

    row, encoder, samples = draw_samples(params, x, shown)
    samples = np.asarray(samples, np.float64)
    pair = np.sort(np.argsort(samples.std(axis=0))[:2])  # the two that the row tells most about
    rest = np.setdiff1d(np.arange(model.num_latents), pair)
    centre, spread = samples[:, pair].mean(axis=0), samples[:, pair].std(axis=0)
    axes = [np.linspace(c - 4 * s, c + 4 * s, GRID) for c, s in zip(centre, spread, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    cov = np.cov(samples.T) + 1e-6 * np.eye(model.num_latents)
    gain = cov[np.ix_(rest, pair)] @ np.linalg.inv(cov[np.ix_(pair, pair)])
    residual = 1.2 * (cov[np.ix_(rest, rest)] - gain @ cov[np.ix_(pair, rest)])
    factor = np.linalg.cholesky(residual)
    noise = np.asarray(jax.random.normal(key_rest, (200, len(rest))), np.float64)
    offsets = noise @ factor.T
    log_proposal = standard_normal_log_prob(noise) - np.log(np.diag(factor)).sum()
    order = np.argsort(np.concatenate([pair, rest]))

    @functools.partial(jax.jit, compiler_options=RUN_ONCE)
    def log_marginal(params, row, points, rest_means, offsets):
        def at(args):
            def joint(offset):
                eps = jnp.concatenate([args[0], args[1] + offset])[order]
                return log_density(eps, model, params, row)

            return predict.log_mean_exp(jax.vmap(joint)(offsets) - log_proposal)

        return jax.lax.map(at, (points, rest_means))

    rest_mean = samples[:, rest].mean(axis=0) + (points - centre) @ gain.T
    places = (jnp.asarray(a, jnp.float32) for a in (points, rest_mean, offsets))
    density = log_marginal(params, row, *places)
    return {
        "grid_x": axes[0],
        "grid_y": axes[1],
        "log_density": np.asarray(density).reshape(GRID, GRID),
        "encoder_mean": np.asarray(encoder.mean)[pair],
        "encoder_std": np.exp(0.5 * np.asarray(encoder.log_var))[pair],
        "samples": samples[:, pair],
        "dimensions": pair + 1,
        "is_hmc": np.array("hmc" in params),
    }
