"""HH-VAE and its relatives on images: every pixel a column, the label the target.

  python -m launch.train --config=configs/hhvae.py --workdir=runs/digits
  python -m launch.train --config=configs/hhvae.py:mnist,short --workdir=runs/mnist \
      --config.data.dir=<folder with the images>

Variants, joined by commas: one of digits (8 x 8, with scikit-learn), mnist, fashion_mnist and
celeba, which are read from `data.dir`; one of vae, miwae, h-vae, hmc-vae, hh-vae; `noreparam` for
the ablation of the deep ones; `paper` for the published protocol with its quirks; `short` for a
schedule that two CPU cores can do; `smoke` for seconds. On CPUs splits train faster one by one
than together: their weights differ, and XLA has no fast convolution for that.
"""

import ml_collections

# As published: batch size, latents, learning rate, steps of stages 2 and 3, and of the KL weights.
# Of celeba, 167,854 steps in all (66 epochs of 162,770 faces). digits is ours.
IMAGES = {
    "digits": dict(batch=100, latents=(10, 5), hidden=128, rate=1e-3, vi=4000, hmc=500, kl=500),
    "mnist": dict(batch=100, latents=(20, 10), hidden=512, rate=2e-4, vi=99000, hmc=1440, kl=5000),
    "celeba": dict(
        batch=64, latents=(32, 16), hidden=512, rate=2e-4, vi=145000, hmc=22854, kl=5000
    ),
}
IMAGES["fashion_mnist"] = IMAGES["mnist"] | dict(rate=1e-3)
NETWORKS = {"mnist": "mnist", "fashion_mnist": "mnist", "digits": "table", "celeba": "celeba"}
SHORT = dict(rate=1e-3, vi=6000, hmc=150, kl=500)
MODELS = ("vae", "miwae", "h-vae", "hmc-vae", "hh-vae")
SWITCHES = ("noreparam", "paper", "short", "smoke")


def get_config(variant="digits"):
    """Returns the config of a variant such as `mnist,hmc-vae,short`."""
    words = [word for word in variant.split(",") if word]
    names = [word for word in words if word in IMAGES]
    models = [word for word in words if word in MODELS]
    if len(names) > 1 or len(models) > 1 or set(words) - {*IMAGES, *MODELS, *SWITCHES}:
        raise ValueError(
            f"config variant {variant!r}: expected at most one of {', '.join(IMAGES)}, at most one "
            f"of {', '.join(MODELS)}, and any of {', '.join(SWITCHES)}, joined by commas"
        )
    name = names[0] if names else "digits"
    model = models[0] if models else "hh-vae"
    noreparam, paper, short, smoke = (switch in words for switch in SWITCHES)
    sizes = IMAGES[name] | (SHORT if short else {})
    is_deep = model.startswith(("h-", "hh-"))
    is_hmc = model.startswith(("hmc-", "hh-"))
    if noreparam and not is_deep:
        raise ValueError(
            f"config variant {variant!r}: {model} has one latent layer, which nothing "
            f"reparameterises; expected noreparam with h-vae or hh-vae"
        )

    config = ml_collections.ConfigDict()
    config.experiment = "images"
    config.seed = 0
    config.splits = 1  # replicas trained together, one train/test split each
    config.paper = paper  # published protocol: docs/hhvaem.md lists what it changes

    config.data = ml_collections.ConfigDict()
    config.data.name = name
    config.data.dir = ""  # folder of the images; digits needs none
    config.data.num_folds = 10
    config.data.first_split = 0
    config.data.split_seed = 0

    config.model = ml_collections.ConfigDict()
    config.model.name = model.upper() + (" without reparameterisation" if noreparam else "")
    config.model.layer_sizes = sizes["latents"] if is_deep else sizes["latents"][:1]
    config.model.posterior = "hmc" if is_hmc else "gaussian"
    config.model.bound = "iw" if model == "miwae" else "elbo"
    config.model.marginals = False
    config.model.end_to_end = not paper  # no difference without marginal VAEs
    config.model.reparameterised = not noreparam
    config.model.networks = NETWORKS[name]  # table, or a kind of image of hmcvae/images.py
    config.model.hidden = sizes["hidden"]
    config.model.marginal_hidden = 32  # of models with marginal VAEs, which these are not
    config.model.variance = 0.1
    config.model.learn_variance = not paper

    config.train = ml_collections.ConfigDict()
    config.train.batch_size = sizes["batch"]
    config.train.marginal_steps = 0
    config.train.vi_steps = sizes["vi"] + (0 if is_hmc else sizes["hmc"])
    config.train.hmc_steps = sizes["hmc"] if is_hmc else 0
    config.train.learning_rate = sizes["rate"]
    config.train.learning_rate_joint = sizes["rate"]  # of the decoder in stage 3
    config.train.learning_rate_hmc = 1e-3 if paper else 1e-2
    config.train.learning_rate_scale = 1e-2
    config.train.weight_decay_marginal = 0.0
    config.train.weight_decay = 0.01 if paper and not is_hmc and not noreparam else 0.0
    config.train.marginal_kl_discrete = 0.2
    config.train.max_missing = 0.99
    config.train.balance_steps = sizes["kl"]
    config.train.anneal_steps = sizes["kl"]
    config.train.clock_rate = 2 if paper and model == "hh-vae" else 1
    config.train.num_importance = 5  # samples a row of the bound "iw"
    config.train.num_transitions = 10
    config.train.num_leapfrog = 5
    config.train.initial_steps = (0.02, 0.05) if paper else (0.1, 0.3)  # drawn between the two
    config.train.precondition = not paper  # steps in units of the encoder's deviations of each row
    config.train.accept_target = 0.0 if paper else 0.8  # that steps are pulled to; 0 = no pull
    config.train.num_chains_stein = 30
    config.train.num_rows_stein = 0 if paper else 16  # of a batch; 0 = all
    config.train.stein_every = 10
    config.train.gradient = "detached"

    config.evaluate = ml_collections.ConfigDict()
    config.evaluate.num_test = 0  # images of the test fold that are scored, the first; 0 = all
    config.evaluate.num_samples = 1000
    config.evaluate.samples_per_chunk = 40
    config.evaluate.rows_per_block = 64
    config.evaluate.num_draws = 0  # samples kept of every real cell, for CRPS and coverage
    config.evaluate.num_proposals = 50  # of which each sample is one, for the bound "iw"
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

    if short:  # a twentieth of the steps, a third of their Stein chains, a fiftieth of the scores
        config.train.num_chains_stein = 10
        config.train.stein_every = 20
        config.evaluate.num_test = 200
        config.evaluate.num_samples = 100
        config.evaluate.num_proposals = 20
    if smoke:
        config.model.layer_sizes = (3, 2) if is_deep else (3,)
        config.model.hidden = 16
        config.train.batch_size = 20
        config.train.vi_steps = 40
        config.train.hmc_steps = 20 if is_hmc else 0
        config.train.num_transitions = 2
        config.train.num_leapfrog = 2
        config.train.num_chains_stein = 4
        config.evaluate.num_test = 16
        config.evaluate.num_samples = 16
        config.evaluate.samples_per_chunk = 8
        config.evaluate.num_proposals = 4
        config.loop.steps_per_dispatch = 10
        config.loop.log_every = 10
        config.loop.checkpoint_every = 20
    return config
