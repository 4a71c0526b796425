"""HH-VAE and its relatives on images: every pixel a column, the label the target.

  python -m launch.train --config=configs/hhvae.py --workdir=runs/digits
  python -m launch.train --config=configs/hhvae.py:mnist,short --workdir=runs/mnist \
      --config.data.dir=<folder with the images>

Variants, joined by commas: one of digits (8 x 8, with scikit-learn), mnist, fashion_mnist and
celeba, which are read from `data.dir`; one of vae, miwae, h-vae, hmc-vae, hh-vae; `noreparam` for
the ablation of the deep ones; `paper` for the published protocol with its quirks; `short` for a
schedule that two CPU cores can do; `smoke` for seconds. All other fields are those of
configs/hhvaem.py. On CPUs splits train faster one by one than together: their weights differ, and
XLA has no fast convolution for that.
"""

from configs import hhvaem

# As published: batch size, latents, learning rate, steps of stages 2 and 3, and of the KL weights;
# of celeba 66 epochs of 162,770 faces in all. digits is ours.
IMAGES = {
    "digits": dict(batch=100, latents=(10, 5), hidden=128, rate=1e-3, vi=4000, hmc=1000, kl=500),
    "mnist": dict(batch=100, latents=(20, 10), hidden=512, rate=2e-4, vi=99000, hmc=1440, kl=5000),
    "celeba": dict(
        batch=64, latents=(32, 16), hidden=512, rate=2e-4, vi=145000, hmc=22854, kl=5000
    ),
}
IMAGES["fashion_mnist"] = IMAGES["mnist"] | dict(rate=1e-3)
NETWORKS = {"mnist": "mnist", "fashion_mnist": "mnist", "digits": "table", "celeba": "celeba"}
SHORT = dict(rate=1e-3, vi=1600, hmc=400, kl=500)
MODELS = ("vae", "miwae", "h-vae", "hmc-vae", "hh-vae")
SWITCHES = ("noreparam", "paper", "short", "smoke")


def get_config(variant="digits"):
    """Returns the config of a variant such as `mnist,hmc-vae,short`."""
    name, model, words = hhvaem.choose(variant, tuple(IMAGES), MODELS, SWITCHES)
    name, model = name or "digits", model or "hh-vae"
    paper, short, smoke = (word in words for word in ("paper", "short", "smoke"))
    sizes = IMAGES[name] | (SHORT if short else {})
    shared = [word for word in words if word in ("noreparam", "paper", "smoke")]
    config = hhvaem.get_config(",".join(["table", model, *shared]))

    config.experiment = "images"
    config.data.name = name
    for field in ("path", "target", "schema"):
        del config.data[field]
    config.model.networks = NETWORKS[name]
    config.train.learning_rate = sizes["rate"]
    if paper:
        config.train.learning_rate_joint = sizes["rate"]
    config.train.balance_steps = sizes["kl"]
    config.train.anneal_steps = sizes["kl"]
    config.evaluate.num_test = 0  # images of the test fold that are scored, the first; 0 = all
    config.evaluate.num_draws = 0  # images have no real columns to score the draws of
    if smoke:
        config.train.batch_size = 20
        config.evaluate.num_test = 16
        config.evaluate.num_proposals = 4
        return config

    is_deep, is_hmc = model.startswith(("h-", "hh-")), model.startswith(("hmc-", "hh-"))
    hmc_steps = sizes["hmc"] if paper else sizes["hmc"] // 4
    config.model.layer_sizes = sizes["latents"] if is_deep else sizes["latents"][:1]
    config.model.hidden = sizes["hidden"]
    config.train.batch_size = sizes["batch"]
    config.train.vi_steps = sizes["vi"] + sizes["hmc"] - (hmc_steps if is_hmc else 0)
    config.train.hmc_steps = hmc_steps if is_hmc else 0
    config.train.num_transitions = 10
    if short:
        config.evaluate.num_test = 128  # two blocks
        config.evaluate.num_samples = 100
        config.evaluate.num_proposals = 20
    return config
