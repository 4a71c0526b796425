"""HH-VAEM and its relatives on a table: Algorithm 1 as three phases, and the test scores.

A replica is one train/test split. All splits share a program: their training rows are padded to one
length and stacked along a leading axis, and batches are row numbers, so the table itself moves to
the device once.
"""

from typing import NamedTuple

import jax
import numpy as np
import optax

from hmcvae import columns, objectives
from hmcvae.marginal import kl_weights
from hmcvae.model import HVAE, Rows
from launch.data import published, tables
from launch.experiment import Experiment, Phase, gradient_phase, shuffled_rows
from launch.experiments import tabular_report


class TrainData(NamedTuple):
    """Training rows of one split, padded; only rows named by a batch are ever read."""

    x: jax.Array  # [N, D] standardised values and codes
    mask: jax.Array  # [N, D]
    y: jax.Array  # [N, P]
    y_mask: jax.Array  # [N, P]
    pos_weight_x: jax.Array  # [D] #zeros / #ones of Bernoulli columns, else 1 (`paper`)
    pos_weight_y: jax.Array  # [P]


def make(config) -> Experiment:
    """Builds the experiment that `config` describes; see configs/hhvaem_wine.py for the fields."""
    check(config)
    return build(config, load_table(config.data, config.paper))


def build(config, table: tables.Table) -> Experiment:
    """Builds the experiment on a table that is already in memory."""
    folds = tables.make_splits(table, num_folds=config.data.num_folds, seed=config.data.split_seed)
    first, count = config.data.first_split, config.splits
    folds = folds[first : first + count]
    model = make_model(config, table)
    schedule = make_schedule(config)
    # the published marginal VAEs standardise by the unbiased variance, targets by the biased one
    prepared = [prepare(table, fold, ddof=int(config.paper)) for fold in folds]
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
    if config.model.posterior not in ("gaussian", "hmc"):
        raise ValueError(
            f"config.model.posterior={config.model.posterior!r}: expected 'gaussian' or 'hmc'"
        )
    if config.model.posterior == "gaussian" and config.train.hmc_steps:
        raise ValueError(
            f"config.train.hmc_steps={config.train.hmc_steps} with config.model.posterior="
            f"'gaussian': a Gaussian posterior has no HMC stage; set hmc_steps to 0 or posterior "
            f"to 'hmc'"
        )
    if config.model.posterior == "hmc" and not config.train.hmc_steps:
        raise ValueError(
            "config.train.hmc_steps=0 with config.model.posterior='hmc': the chain would never be "
            "tuned; set hmc_steps above 0 or posterior to 'gaussian'"
        )
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
    if config.train.gradient not in ("detached", "exact"):
        raise ValueError(
            f"config.train.gradient={config.train.gradient!r}: expected 'detached' or 'exact'"
        )
    if not 0 < config.train.max_missing <= 1:
        raise ValueError(
            f"config.train.max_missing={config.train.max_missing}: expected a rate in (0, 1]"
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
        paper=config.paper,
    )


def make_schedule(config) -> objectives.Schedule:
    """Builds the schedule of KL weights and chains."""
    train = config.train
    return objectives.Schedule(
        balance_steps=train.balance_steps,
        anneal_steps=train.anneal_steps,
        clock_rate=train.clock_rate,
        num_leapfrog=train.num_leapfrog,
        num_chains_stein=train.num_chains_stein,
        stein_every=train.stein_every,
        gradient=train.gradient,
    )


class Prepared(NamedTuple):
    """One split, standardised by the statistics of its training rows."""

    train: TrainData
    scaler: columns.Scaler
    scaler_y: columns.Scaler
    x: np.ndarray  # [N, D] all rows, standardised
    y: np.ndarray  # [N, P]


def prepare(table, fold, *, ddof=0) -> Prepared:
    """Standardises a table by the observed entries of one split's training rows."""
    rows = fold.train
    scaler = columns.fit(table.schema, table.x[rows], table.mask[rows], ddof=ddof)
    scaler_y = columns.fit(table.target, table.y[rows], table.y_mask[rows])
    x = columns.transform(table.schema, scaler, table.x, table.mask).astype(np.float32)
    y = columns.transform(table.target, scaler_y, table.y, table.y_mask).astype(np.float32)
    train = TrainData(
        x[rows],
        table.mask[rows],
        y[rows],
        table.y_mask[rows],
        _pos_weight(table.schema, x[rows], table.mask[rows]),
        _pos_weight(table.target, y[rows], table.y_mask[rows]),
    )
    as_float32 = lambda s: columns.Scaler(*(np.asarray(v, np.float32) for v in s))
    return Prepared(train, as_float32(scaler), as_float32(scaler_y), x, y)


def make_phases(config, model, schedule) -> tuple[Phase, ...]:
    """Builds the stages of Algorithm 1: marginal VAEs, variational, joint with HMC."""
    train, paper = config.train, config.paper
    beta = kl_weights(model.schema, train.marginal_kl_discrete)

    def draw_rows(key, params, data, batch):
        key_mask, key_z = jax.random.split(key)
        x, y = data.x[batch], data.y[batch]
        mask, y_mask = objectives.random_mask(
            key_mask, data.mask[batch], data.y_mask[batch], max_missing=train.max_missing
        )
        z = model.apply({"params": params}, key_z, x, mask, method="extract")
        rows = Rows(x, mask, jax.lax.stop_gradient(z), y, y_mask)
        return rows if model.target.num_columns else rows._replace(y=None, y_mask=None)

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
            rows = draw_rows(key_rows, params, data, batch)
            weight = data.pos_weight_y if paper else None
            return loss(key_loss, model, params, rows, step, schedule=schedule, pos_weight_y=weight)

        return step

    def with_hmc(key, params):
        return {**params, "hmc": objectives.init_hmc(key, model, train.num_transitions)}

    decayed = _adam(train.learning_rate, train.weight_decay)
    freeze = optax.set_to_zero()
    dependent = {"marginal": freeze, "encoder": decayed, "generative": decayed}
    phases = [
        _phase(
            "marginal",
            train.marginal_steps,
            marginal,
            {
                "marginal": _adam(train.learning_rate, train.weight_decay_marginal),
                "encoder": freeze,
                "generative": freeze,
            },
        ),
        _phase("vi", train.vi_steps, dependency(objectives.elbo_loss), dependent),
    ]
    if train.hmc_steps:
        tuned = {
            "step": optax.adam(train.learning_rate_hmc),
            "scale": optax.conditionally_mask(
                optax.adam(train.learning_rate_scale), lambda step: step % train.stein_every == 0
            ),
        }
        loss = dependency(objectives.hmc_loss)
        phases.append(_phase("hmc", train.hmc_steps, loss, dependent | tuned, prepare=with_hmc))
    return tuple(phases)


def _phase(name, num_steps, loss, transforms, **options):
    optimiser = optax.partition(transforms, objectives.labels)
    return gradient_phase(name, num_steps, loss, optimiser, **options)


def _adam(learning_rate, weight_decay):
    """Adam with L2 added to the gradient before the moments, as the published models have it."""
    if not weight_decay:
        return optax.adam(learning_rate)
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(learning_rate))


def _pos_weight(schema, values, mask):
    weight = np.ones(schema.num_columns, np.float32)
    for i in schema.indices("bernoulli"):
        ones = np.sum(values[mask[:, i], i] == 1)
        weight[i] = (np.sum(mask[:, i]) - ones) / max(ones, 1)
    return weight


def _pad(splits):
    longest = max(len(split.x) for split in splits)

    def pad(name, leaf):
        if name.startswith("pos_weight"):
            return leaf
        return np.pad(leaf, ((0, longest - len(leaf)), (0, 0)))

    return [TrainData(*(pad(n, v) for n, v in zip(s._fields, s, strict=True))) for s in splits]
