"""Tunes 30 transitions on the wave.

  python -m launch.tune_hmc --config=configs/tune_wave.py --workdir=runs/tune_wave

Takes about a minute on 2 CPU cores, most of it compiling and drawing; gives the pictures and the
table of docs/hmc.md. The variant `:smoke` takes seconds and shows nothing.
"""

import ml_collections


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"config variant {variant!r}: expected nothing or smoke")
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.target = "wave"
    config.transitions = 30
    config.leapfrog = 5
    config.step_size = 0.05  # at the start; published: log-uniform in (0.02, 0.05)
    config.steps = 600
    config.tuner = dict(
        num_chains=100,
        num_chains_stein=100,  # published: 30
        learn=("step_size", "inflation"),  # published: and "momentum_var"
        objective="log_density",  # or "chees"
        gradient="detached",  # or "exact"
        learning_rate=0.01,  # published: 0.001, in the animations 0.01
        inflation_rate=0.02,  # published: 0.1
        accept_target=0.8,  # 0 for none, as published
    )
    config.frames = 30
    config.shown_chains = 10
    config.measure_chains = 5000
    config.measure_transitions = 1000
    if variant == "smoke":
        config.transitions, config.steps, config.frames = 3, 4, 2
        config.tuner.num_chains = config.tuner.num_chains_stein = 5
        config.measure_chains, config.measure_transitions = 50, 20
    return config
