"""Runs of small tables as launch.train leaves them, but untrained, for several test files."""

from launch import sharding, steps, train, workdir
from launch.checkpoints import Checkpoints
from tests.launch import small_images


def make_run(path, variant, *, num_stages=None, **changes):
    """Leaves what a run leaves behind, with the parameters that a stage begins with: the last."""
    config = small_images.config(f"{variant},smoke", "hhvaem")
    config.update_from_flattened_dict(changes)
    experiment = train.load_experiment(config)
    mesh, params = sharding.make_mesh(config.mesh, config.splits), None
    phases = experiment.phases[:num_stages]
    for index in range(len(phases)):
        state = steps.init_state(experiment, config.seed, mesh, index, params)
        params = state.params
    workdir.remember(workdir.open_workdir(path), config.to_dict(), experiment.meta)
    with Checkpoints(path / "checkpoints", keep=1) as checkpoints:
        note = {"phase": phases[-1].name, "step": 0, "seconds": {}, "window": None}
        checkpoints.save(1, state, note)
        checkpoints.wait()
