"""HH-VAEM and its relatives on a table: Algorithm 1 as up to three phases, and the test scores.

Plain models have no phase of marginal VAEs, models with a Gaussian posterior none of HMC. Images
are tables too, of one column a pixel; only the first and the last layers differ.

A replica is one train/test split. All splits share a program: their training rows are padded to one
length and stacked along a leading axis, and batches are row numbers, so the table itself moves to
the device once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hmcvae import columns, fitting, images, objectives, predict
from hmcvae.marginal import kl_weights
from hmcvae.model import HVAE
from hmcvae.posterior import init_hmc
from launch.data import published, tables
from launch.experiment import Experiment, Phase, gradient_phase, shuffled_rows
from launch.experiments import tabular_report

NETWORKS = ("table", *images.KINDS)
PROBE_ROWS, PROBE_SAMPLES = 64, 32  # a probe of training: test rows, posterior samples of each


class TrainData(NamedTuple):
    """Training rows of one split, padded; only rows named by a batch are ever read."""

    x: jax.Array  # [N, D] standardised values and codes
    mask: jax.Array  # [N, D]
    y: jax.Array  # [N, P]
    y_mask: jax.Array  # [N, P]
    pos_weight_x: jax.Array  # [D] #zeros / #ones of Bernoulli columns, else 1 (`paper`)
    pos_weight_y: jax.Array  # [P]
    probe_x: jax.Array  # [Q, D] test rows on which training is watched, Q = 0 without a probe
    probe_shown: jax.Array  # [Q, D]
    probe_known: jax.Array  # [Q, D]


def make(config) -> Experiment:
    """Builds the experiment that `config` describes; see configs/hhvaem.py for the fields."""
    check(config)
    return build(config, load_table(config.data, config.paper))


def build(config, table: tables.Table, *, num_test: int = 0) -> Experiment:
    """Builds the experiment on a table in memory; only `num_test` test rows are scored, 0 = all."""
    folds = tables.make_splits(table, num_folds=config.data.num_folds, seed=config.data.split_seed)
    first, count = config.data.first_split, config.splits
    folds = folds[first : first + count]
    if num_test:
        cut = lambda fold: dict(test=fold.test[:num_test], test_mask=fold.test_mask[:num_test])
        folds = [fold._replace(**cut(fold)) for fold in folds]
    model = make_model(config, table)
    if model.networks != "table":
        images.check(model.networks, table.schema.num_columns)
    schedule = make_schedule(config)
    # the published marginal VAEs standardise by the unbiased variance, targets by the biased one
    num_probe = PROBE_ROWS if config.evaluate.probe_every else 0
    prepared = [prepare(table, fold, ddof=int(config.paper), num_probe=num_probe) for fold in folds]
    data = jax.tree.map(lambda *leaves: np.stack(leaves), *_pad([p.train for p in prepared]))
    sizes = [len(fold.train) for fold in folds]

    def init(key):
        return model.init(key, model.blank_row())["params"]

    def batches(phase, start, num):
        size = config.train.batch_size
        index = [
            shuffled_rows((config.seed, first + r, phase), n, start * size, num * size)
            for r, n in enumerate(sizes)
        ]
        return np.stack(index).reshape(count, num, size)

    return Experiment(
        init=init,
        phases=make_phases(config, model, schedule),
        data=data,
        batches=batches,
        evaluate=tabular_report.evaluator(config, model, schedule, table, folds, prepared),
        figures=tabular_report.figures,
        replica_seeds=tuple(range(first, first + count)),
        rules=(),
        meta={
            "model": config.model.name,
            "table": table.name,
            "schema": table.schema.to_json(),
            "target": table.target.to_json(),
            "splits": [fold.fingerprint for fold in folds],
            "published": published.scores(table.name, config.model.name),
        },
    )


def check(config):
    """Refuses combinations that cannot be trained, in one sentence each."""
    sizes = config.model.layer_sizes
    if not sizes or min(sizes) < 1:
        raise ValueError(
            f"config.model.layer_sizes={tuple(sizes)}: expected one or more positive sizes, layer "
            f"1 (next to the data) first, such as (10, 5)"
        )
    _check_posterior(config)
    last = config.data.first_split + config.splits
    if config.splits < 1 or last > config.data.num_folds:
        raise ValueError(
            f"config.splits={config.splits} from config.data.first_split="
            f"{config.data.first_split}: expected 1 or more splits within the "
            f"{config.data.num_folds} folds of config.data.num_folds"
        )
    if config.paper and config.model.learn_variance:
        raise ValueError(
            "config.model.learn_variance=True with config.paper=True: the published protocol fixes "
            "every variance; set learn_variance to False"
        )
    if config.model.networks not in NETWORKS:
        raise ValueError(
            f"config.model.networks={config.model.networks!r}: expected one of "
            f"{', '.join(map(repr, NETWORKS))}"
        )
    if config.model.networks != "table" and config.model.marginals:
        raise ValueError(
            f"config.model.networks={config.model.networks!r} with config.model.marginals=True: "
            f"pixels have no marginal VAEs; set marginals to False, or networks to 'table'"
        )
    if not 0 < config.train.max_missing <= 1:
        raise ValueError(
            f"config.train.max_missing={config.train.max_missing}: expected a rate in (0, 1]"
        )


def _check_posterior(config):
    """Refuses posteriors that do not fit the bound, the stages or the probe."""
    model, train = config.model, config.train
    if model.posterior not in ("gaussian", "hmc"):
        raise ValueError(
            f"config.model.posterior={model.posterior!r}: expected 'gaussian' or 'hmc'"
        )
    if model.bound not in objectives.BOUNDS:
        raise ValueError(
            f"config.model.bound={model.bound!r}: expected one of {', '.join(objectives.BOUNDS)}"
        )
    if model.bound != "elbo" and min(train.num_importance, config.evaluate.num_proposals) < 1:
        raise ValueError(
            f"config.train.num_importance={train.num_importance}, config.evaluate.num_proposals="
            f"{config.evaluate.num_proposals}: config.model.bound={model.bound!r} needs 1 or more "
            f"of each"
        )
    if model.bound == "wake" and (config.paper or not model.reparameterised):
        raise ValueError(
            "config.model.bound='wake': expected a reparameterised model without the published "
            "protocol; set bound to 'elbo' or 'iw'"
        )
    if model.posterior == "gaussian" and train.hmc_steps:
        raise ValueError(
            f"config.train.hmc_steps={train.hmc_steps} with config.model.posterior='gaussian': a "
            f"Gaussian posterior has no HMC stage; set hmc_steps to 0 or posterior to 'hmc'"
        )
    probe_every = config.evaluate.probe_every
    if model.posterior == "gaussian" and probe_every:
        raise ValueError(
            f"config.evaluate.probe_every={probe_every} with config.model.posterior='gaussian': "
            f"the probe watches the HMC stage; set it to 0"
        )
    if probe_every and config.loop.log_every % probe_every:
        raise ValueError(
            f"config.evaluate.probe_every={probe_every} with config.loop.log_every="
            f"{config.loop.log_every}: expected a divisor, so that every window has whole probes"
        )
    if model.posterior == "gaussian":
        return
    if not train.hmc_steps or not train.num_transitions:
        raise ValueError(
            f"config.train.hmc_steps={train.hmc_steps}, config.train.num_transitions="
            f"{train.num_transitions} with config.model.posterior='hmc': there would be no chain, "
            f"or one never tuned; set hmc_steps above 0, and num_transitions, or posterior to "
            f"'gaussian'"
        )
    if train.gradient not in ("detached", "exact"):
        raise ValueError(
            f"config.train.gradient={train.gradient!r}: expected 'detached' or 'exact'"
        )


def load_table(data, paper: bool) -> tables.Table:
    """Loads one of the ten tables by name, or the user's own file."""
    if data.path:
        target = tuple(name for name in data.target.split(",") if name)
        return tables.read_csv(data.path, target=target, schema_path=data.schema or None)
    return tables.load(data.name, data.dir or None, paper=paper)


def make_model(config, table) -> HVAE:
    """Builds the module from the config and the kinds of the table's columns."""
    return HVAE(
        schema=table.schema,
        target=table.target,
        layer_sizes=tuple(config.model.layer_sizes),
        hidden=config.model.hidden,
        marginal_hidden=config.model.marginal_hidden,
        variance=config.model.variance,
        learn_variance=config.model.learn_variance,
        marginals=config.model.marginals,
        end_to_end=config.model.end_to_end,
        reparameterised=config.model.reparameterised,
        networks=config.model.networks,
        paper=config.paper,
    )


def make_schedule(config) -> objectives.Schedule:
    """Builds the schedule of KL weights, importance samples and chains."""
    train = config.train
    return objectives.Schedule(
        balance_steps=train.balance_steps,
        anneal_steps=train.anneal_steps,
        clock_rate=train.clock_rate,
        num_leapfrog=train.num_leapfrog,
        num_chains_stein=train.num_chains_stein,
        num_rows_stein=train.num_rows_stein,
        stein_every=train.stein_every,
        accept_target=train.accept_target,
        precondition=train.precondition,
        gradient=train.gradient,
        bound=config.model.bound,
        num_importance=train.num_importance,
        num_proposals=config.evaluate.num_proposals,
    )


class Prepared(NamedTuple):
    """One split, standardised by the statistics of its training rows."""

    train: TrainData
    scaler: columns.Scaler
    scaler_y: columns.Scaler
    x: np.ndarray  # [N, D] all rows, standardised
    y: np.ndarray  # [N, P]


def prepare(table, fold, *, ddof=0, num_probe=0) -> Prepared:
    """Standardises a table by the observed entries of one split's training rows."""
    rows, probe = fold.train, fold.test[:num_probe]
    known = table.mask[probe]
    scaler, scaler_y = fit_scalers(table, rows, ddof=ddof)
    x = columns.transform(table.schema, scaler, table.x, table.mask).astype(np.float32)
    y = columns.transform(table.target, scaler_y, table.y, table.y_mask).astype(np.float32)
    train = TrainData(
        x[rows],
        table.mask[rows],
        y[rows],
        table.y_mask[rows],
        pos_weight(table.schema, x[rows], table.mask[rows]),
        pos_weight(table.target, y[rows], table.y_mask[rows]),
        x[probe],
        fold.test_mask[:num_probe] & known,
        known,
    )
    return Prepared(train, scaler, scaler_y, x, y)


def fit_scalers(table, rows, *, ddof=0) -> tuple[columns.Scaler, columns.Scaler]:
    """Fits the standardisation of features and targets to the observed entries of rows."""
    return (
        columns.fit(table.schema, table.x[rows], table.mask[rows], ddof=ddof),
        columns.fit(table.target, table.y[rows], table.y_mask[rows]),
    )


def pos_weight(schema, values, mask) -> np.ndarray:
    """Returns #zeros / #ones of Bernoulli columns [D], 1 for the others."""
    weight = np.ones(schema.num_columns, np.float32)
    for i in schema.indices("bernoulli"):
        ones = np.sum(values[mask[:, i], i] == 1)
        weight[i] = (np.sum(mask[:, i]) - ones) / max(ones, 1)
    return weight


def make_phases(config, model, schedule) -> tuple[Phase, ...]:
    """Builds the stages of Algorithm 1: marginal VAEs, variational, joint with HMC."""
    train, paper = config.train, config.paper
    beta = kl_weights(model.schema, train.marginal_kl_discrete)

    def marginal(key, step, params, data, batch):
        mask, _ = objectives.random_mask(
            jax.random.fold_in(key, 0),
            data.mask[batch],
            data.y_mask[batch],
            max_missing=train.max_missing,
        )
        weight = data.pos_weight_x if paper else None
        return objectives.marginal_loss(
            jax.random.fold_in(key, 1), model, params, data.x[batch], mask,
            beta=beta, pos_weight=weight,
        )  # fmt: skip

    def dependency(loss):
        def step(key, step, params, data, batch):
            key_rows, key_loss = jax.random.split(key)
            cells = (leaf[batch] for leaf in (data.x, data.mask, data.y, data.y_mask))
            rows = objectives.training_rows(
                key_rows, model, params, *cells, max_missing=train.max_missing
            )
            weight = data.pos_weight_y if train.weight_target else None
            return loss(key_loss, model, params, rows, step, schedule=schedule, pos_weight_y=weight)

        return step

    def probed(loss):
        every = config.evaluate.probe_every
        if not every:
            return loss

        def step(key, step, params, data, batch):
            value, metrics = loss(key, step, params, data, batch)
            frozen = jax.lax.stop_gradient(params)
            nll = jax.lax.cond(
                step % every == 0,
                lambda: _probe(jax.random.fold_in(key, 2), model, frozen, data, schedule),
                lambda: jnp.zeros(()),
            )
            # its mean over a window of whole probes is the mean of the probes
            return value, metrics | {"probe_nll_x": nll * every}

        return step

    def with_hmc(key, params):
        tuned = init_hmc(key, model, train.num_transitions, train.initial_steps)
        return {**params, "hmc": tuned}

    decayed = _adam(train.learning_rate, train.weight_decay)
    phases = []
    if model.marginals:
        alone = _adam(train.learning_rate, train.weight_decay_marginal)
        optimiser = fitting.optimiser("marginal", alone)
        phases.append(gradient_phase("marginal", train.marginal_steps, marginal, optimiser))
    bound = dependency(objectives.BOUNDS[schedule.bound])
    optimiser = fitting.optimiser("vi", decayed, end_to_end=model.end_to_end)
    phases.append(gradient_phase("vi", train.vi_steps, bound, optimiser))
    if train.hmc_steps:
        rate = train.learning_rate_joint
        optimiser = fitting.optimiser(
            "hmc",
            decayed,
            generative=optax.adam(rate) if rate else None,
            step_rate=train.learning_rate_hmc,
            scale_rate=train.learning_rate_scale,
            stein_every=train.stein_every,
        )
        loss = probed(dependency(objectives.hmc_loss))
        phases.append(gradient_phase("hmc", train.hmc_steps, loss, optimiser, prepare=with_hmc))
    return tuple(phases)


def _probe(key, model, params, data, schedule):
    """Joint NLL of the hidden columns of the probe rows, in nats a column."""
    num_targets = model.target.num_columns
    none = np.zeros((len(data.probe_x), num_targets), np.float32)
    rows = predict.TestRows(data.probe_x, data.probe_shown, data.probe_known, none, none > 0)
    plain = lambda num: columns.Scaler(np.zeros(num), np.ones(num))  # raw units are not used
    out = predict.score(
        key, model, params, plain(model.schema.num_columns), plain(num_targets), rows,
        num_samples=PROBE_SAMPLES, chunk=PROBE_SAMPLES, schedule=schedule,
    )  # fmt: skip
    count = jnp.sum(rows.known & ~rows.shown, axis=-1)
    return -jnp.mean(out["joint_x"] / jnp.maximum(count, 1), where=count > 0)


def _adam(learning_rate, weight_decay):
    """Adam with L2 added to the gradient before the moments, as the published models have it."""
    if not weight_decay:
        return optax.adam(learning_rate)
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(learning_rate))


def _pad(splits):
    def pad(name, leaf):
        if name.startswith("pos_weight"):
            return leaf
        longest = max(len(getattr(split, name)) for split in splits)
        return np.pad(leaf, ((0, longest - len(leaf)), (0, 0)))

    return [TrainData(*(pad(n, v) for n, v in zip(s._fields, s, strict=True))) for s in splits]
