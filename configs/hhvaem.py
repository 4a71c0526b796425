"""HH-VAEM and its nine relatives on a table.

  python -m launch.train --config=configs/hhvaem.py --workdir=runs/wine
  python -m launch.train --config=configs/hhvaem.py:boston,paper --workdir=runs/boston \
      --config.data.dir=<folder with the tables> --config.splits=3
  python -m launch.train --config=configs/hhvaem.py:table,h-vaem --workdir=runs/mine \
      --config.data.path=mine.csv --config.data.target=price

Variants, joined by commas: one of the ten tables (wine and diabetes come with scikit-learn, the
others are read from `data.dir`) or `table` for your own file; one of the ten models, `hh-vaem` if
none is named: h- has two latent layers, hmc- HMC in place of the encoder's Gaussian, hh- both,
miwae the importance-weighted bound, and those in -m one-column VAEs below; `noreparam` for layers
that HMC moves under their autoregressive prior; `paper` for the published protocol with its quirks;
`short` for a fifth of a large table's steps (half of a small one's), scored with a fifth of the
samples; `smoke` for seconds. All ten train for the same number of steps. On 2 CPU cores wine takes
57 s and gives 1.18 nats (features) and 0.09 (target) on one split; published 1.90 and 0.20
(docs/hhvaem.md).
"""

import ml_collections

# Batch size, steps of an epoch, epochs of stage 1, latents, HMC transitions of HH-VAE and of the
# three others that have any, as published.
SMALL = {
    "wine": dict(batch=24, epoch=7, marginal=143, latents=(10, 5), T=(15, 10)),
    "diabetes": dict(batch=100, epoch=4, marginal=250, latents=(4, 2), T=(10, 5)),
    "boston": dict(batch=100, epoch=5, marginal=200, latents=(10, 5), T=(15, 10)),
    "energy": dict(batch=100, epoch=7, marginal=143, latents=(10, 5), T=(15, 10)),
    "concrete": dict(batch=100, epoch=10, marginal=100, latents=(4, 2), T=(10, 5)),
    "yacht": dict(batch=20, epoch=14, marginal=72, latents=(4, 2), T=(10, 5)),
    "table": dict(batch=100, epoch=10, marginal=100, latents=(10, 5), T=(15, 10)),
}
LARGE = {
    "naval": dict(batch=100, epoch=108, marginal=10, latents=(10, 5), T=(15, 10)),
    "avocado": dict(batch=100, epoch=165, marginal=10, latents=(10, 5), T=(15, 10)),
    "bank": dict(batch=100, epoch=371, marginal=10, latents=(10, 5), T=(15, 10)),
    "insurance": dict(batch=100, epoch=89, marginal=12, latents=(10, 5), T=(10, 10)),
}
# Steps of stages 2 and 3, and of balancing and annealing the KL terms.
SMALL_STEPS = dict(vi=18000, hmc=2000, kl=1000)
LARGE_STEPS = dict(vi=45000, hmc=5000, kl=5000)
SHORT_STEPS = dict(vi=9000, hmc=1000, kl=1000)
FEW_ROWS = ("wine",)  # which wake-sleep fits too well (docs/hhvaem.md)
NOISY = ("diabetes",)  # whose target is learned by heart without weight decay
MODELS = ("vae", "miwae", "h-vae", "hmc-vae", "hh-vae")
MODELS += tuple(f"{model}m" for model in MODELS)
SWITCHES = ("noreparam", "paper", "short", "smoke")


def choose(variant, tables, models, switches):
    """Returns the table and the model that a variant names, None for neither, and its words."""
    words = [word for word in variant.split(",") if word]
    named = [[word for word in words if word in known] for known in (tables, models)]
    if max(map(len, named)) > 1 or set(words) - {*tables, *models, *switches}:
        raise ValueError(
            f"config variant {variant!r}: expected at most one of {', '.join(tables)}, at most one "
            f"of {', '.join(models)}, and any of {', '.join(switches)}, joined by commas"
        )
    return *(found[0] if found else None for found in named), words


def get_config(variant="wine"):
    """Returns the config of a variant such as `boston,vaem,paper`."""
    name, model, words = choose(variant, (*SMALL, *LARGE), MODELS, SWITCHES)
    name, model = name or "wine", model or "hh-vaem"
    noreparam, paper, short, smoke = (switch in words for switch in SWITCHES)
    sizes = SMALL[name] | SMALL_STEPS if name in SMALL else LARGE[name] | LARGE_STEPS
    sizes |= SHORT_STEPS if short else {}
    is_deep = model.startswith(("h-", "hh-"))
    is_hmc = model.startswith(("hmc-", "hh-"))
    if noreparam and not is_deep:
        raise ValueError(
            f"config variant {variant!r}: {model} has one latent layer, which nothing "
            f"reparameterises; expected noreparam with one of h-vae, hh-vae, h-vaem, hh-vaem"
        )

    config = ml_collections.ConfigDict()
    config.experiment = "tabular"
    config.seed = 0
    config.splits = 1  # replicas trained together, one train/test split each
    config.paper = paper  # published protocol: docs/hhvaem.md lists what it changes

    config.data = ml_collections.ConfigDict()
    config.data.name = name
    config.data.dir = ""  # folder of the tables that do not come with scikit-learn
    config.data.path = ""  # your own CSV or Parquet file
    config.data.target = ""  # its target column, or several joined by commas
    config.data.schema = ""  # JSON file of column kinds; inferred where silent
    config.data.num_folds = 10
    config.data.first_split = 0
    config.data.split_seed = 0

    config.model = ml_collections.ConfigDict()
    config.model.name = model.upper() + (" without reparameterisation" if noreparam else "")
    config.model.layer_sizes = sizes["latents"] if is_deep else sizes["latents"][:1]
    config.model.posterior = "hmc" if is_hmc else "gaussian"
    config.model.bound = "elbo"
    if model.startswith("miwae"):
        config.model.bound = "iw"
    elif is_hmc and name not in FEW_ROWS and not (paper or noreparam):
        config.model.bound = "wake"
    config.model.marginals = model.endswith("m")
    config.model.end_to_end = not paper  # explain x through the one-column decoders, or draws of z
    config.model.reparameterised = not noreparam
    config.model.networks = "table"  # or a kind of image of hmcvae/images.py
    config.model.hidden = 256
    config.model.marginal_hidden = 32
    config.model.variance = 0.1
    config.model.learn_variance = not paper

    # By default stage 3 tunes the chain and the encoder alone, which takes a quarter of the steps.
    hmc_steps = sizes["hmc"] if paper else sizes["hmc"] // 4
    total_steps = sizes["vi"] + sizes["hmc"]
    marginal_steps = sizes["epoch"] * sizes["marginal"]
    if paper and model in ("vaem", "miwaem") and name == "energy":
        marginal_steps = 10 * sizes["epoch"]  # as published, for these two only
    config.train = ml_collections.ConfigDict()
    config.train.batch_size = sizes["batch"]
    config.train.marginal_steps = marginal_steps
    config.train.vi_steps = total_steps - (hmc_steps if is_hmc else 0)
    config.train.hmc_steps = hmc_steps if is_hmc else 0
    config.train.learning_rate = 1e-3
    config.train.learning_rate_joint = 1e-3 if paper else 0.0  # of the decoder in stage 3
    config.train.learning_rate_hmc = 1e-3 if paper else 1e-2
    config.train.learning_rate_scale = 1e-2
    config.train.weight_decay_marginal = 0.01 if paper else 0.0  # L2 added to the gradient
    is_decayed = not is_hmc and not noreparam if paper else name in NOISY
    config.train.weight_decay = 0.01 if is_decayed else 0.0
    config.train.marginal_kl_discrete = 0.2
    config.train.max_missing = 0.99
    config.train.balance_steps = sizes["kl"]
    config.train.anneal_steps = sizes["kl"]
    config.train.clock_rate = 2 if paper and is_deep and is_hmc else 1
    config.train.weight_target = paper  # ones of a Bernoulli target count #zeros / #ones times
    is_wake = config.model.bound == "wake"
    config.train.num_importance = 20 if is_wake else 5  # samples a row of the bounds "iw", "wake"
    config.train.num_transitions = sizes["T"][0 if model == "hh-vae" else 1]
    config.train.num_leapfrog = 5
    config.train.initial_steps = (0.02, 0.05) if paper else (0.1, 0.3)  # drawn between the two
    config.train.precondition = not paper  # steps in units of the encoder's deviations of each row
    config.train.accept_target = 0.0 if paper else 0.8  # that steps are pulled to; 0 = no pull
    config.train.num_chains_stein = 30
    config.train.num_rows_stein = 0 if paper else 16  # of a batch; 0 = all
    config.train.stein_every = 10
    config.train.gradient = "detached"

    config.evaluate = ml_collections.ConfigDict()
    config.evaluate.num_samples = 200 if short else 1000
    config.evaluate.samples_per_chunk = 40
    config.evaluate.rows_per_block = 64
    config.evaluate.num_draws = 100  # samples kept of every real cell, for CRPS and coverage
    config.evaluate.num_proposals = 50  # of which each sample is one, for "iw", "wake"
    config.evaluate.probe_every = 0  # steps between scores of test rows in the HMC stage; 0 = none

    config.loop = ml_collections.ConfigDict()
    config.loop.steps_per_dispatch = 100
    config.loop.log_every = 100
    config.loop.checkpoint_every = 2000
    config.loop.keep = 2

    config.mesh = ml_collections.ConfigDict()
    config.mesh.replica = -1
    config.mesh.data = 1
    config.mesh.model = 1

    if smoke:
        config.model.layer_sizes = (3, 2) if is_deep else (3,)
        config.model.hidden = 16
        config.model.marginal_hidden = 8
        config.train.marginal_steps = 40
        config.train.vi_steps = 40
        config.train.hmc_steps = 20 if is_hmc else 0
        config.train.num_transitions = 2
        config.train.num_leapfrog = 2
        config.train.num_chains_stein = 4
        config.evaluate.num_samples = 16
        config.evaluate.samples_per_chunk = 8
        config.loop.steps_per_dispatch = 10
        config.loop.log_every = 10
        config.loop.checkpoint_every = 20
    return config
