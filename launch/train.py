"""Trains what a config describes, or goes on where the same command was cut off.

  python -m launch.train --config=configs/<name>.py[:variant] --workdir=<dir> [--config.field=value]

Leaves in the working directory: result.json (scores, times, versions), figures/, arrays/,
metrics.jsonl, tensorboard/, checkpoints/, config.json, meta.json.

Several processes: give each --coordinator=<host>:<port> --num_processes=<n> --process_id=<0..n-1>,
or --distributed where the cluster tells them (TPU pods, Slurm). The directory must be shared.
docs/scale.md has the jobs. The same command with --partition trains nothing and prints how every
leaf of the state would be laid out on the mesh.

Exit codes: 0 finished; 1 a bug; 2 refused before anything started; 3 training diverged: a loss
became NaN or infinite, or an adversarial game was lost; 130 and 143 stopped by Ctrl-C or SIGTERM
with everything saved (the same command goes on).
"""

import difflib
import importlib
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from launch import report, workdir
from launch.workdir import Refused


def main(argv: list[str]) -> int:
    """Runs the program; returns its exit code."""
    try:
        if {"--help", "-h", "--helpfull", "-help"} & set(argv[1:]) or len(argv) == 1:
            print(_help(argv))
            return 0
        options = parse(argv)
        config = options.config
        if "experiment" not in config:
            raise Refused(
                "--config: has no field 'experiment', so launch.train cannot tell what to train; "
                "its docstring names the program that it belongs to"
            )
        if options.partition:
            _print_partition(options, config)
            return 0
        directory = workdir.open_workdir(options.workdir)
        workdir.check_config(directory, config.to_dict())
        result = workdir.finished_result(directory)
        if result is not None:
            print(f"{directory}: this run is finished; nothing to do")
        else:
            result = _train(options, config, directory)
    except Refused as refusal:
        print(f"launch.train: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before the loop listens, or after its end
        return 130
    if result is None:  # a process other than the first
        return 0
    if isinstance(result, int):
        return result
    print(report.format_table(result["metrics"], result["meta"].get("published")))
    print(f"{result['seconds']:.0f} s in all; scores, times and versions: {directory}/result.json")
    return 0


def parse(argv: list[str]) -> flags.FlagValues:
    """Reads the command line; whatever is wrong with it becomes one sentence."""
    overrides = [word for word in argv if word.lstrip("-").startswith("config.")]
    plain = [word for word in argv if word not in overrides]
    config = _read(plain).config
    if config is None:
        raise Refused(f"--config is missing; give one such as {_config_files()[0]}")
    names = _field_names(config)
    for word in overrides:
        name = word.lstrip("-").split("=")[0].removeprefix("config.")
        if name not in names:
            raise Refused(f"--config.{name}: there is no such field{_nearest(name, names)}")
        if "=" not in word:
            raise Refused(f"--config.{name}: expected --config.{name}=<value>")
        try:
            _read([*plain, word])
        except Refused:
            value = config
            for part in name.split("."):
                value = value[part]
            if hasattr(value, "items"):
                fields = ", ".join(f"--config.{name}.{field}" for field in value)
                raise Refused(f"{word}: this is a group of fields; set one of {fields}") from None
            raise Refused(
                f"{word}: expected a value of type {type(value).__name__}, such as {value!r}"
            ) from None
    options = _read(argv)
    if not options.workdir:
        raise Refused("--workdir is missing; give a directory for the run, such as runs/first")
    return options


def load_experiment(config):
    """Builds the experiment named by `config.experiment`: in launch/experiments/, or dotted."""
    name = config.experiment
    module = name if "." in name else f"launch.experiments.{name}"
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        known = [p.stem for p in (Path(__file__).parent / "experiments").glob("[!_]*.py")]
        raise Refused(
            f"config.experiment={name!r}: there is no such module{_nearest(name, known)}"
        ) from None
    if not hasattr(found, "make"):
        raise Refused(f"config.experiment={name!r}: {module} has no function make(config)")
    return found.make(config)


def _train(options, config, directory):
    """Imports what is slow to import, and trains; returns the result or an exit code."""
    import jax

    from launch import loop

    _start(options)
    if jax.default_backend() != "cpu":
        # Tuned kernels are chosen by timing; a resumed run must find the ones it began with.
        jax.config.update("jax_compilation_cache_dir", str(directory / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    experiment = _make(options, config)
    try:
        result = loop.run(experiment, config, directory)
    except loop.NonFiniteLoss as error:
        print(f"launch.train: {error}", file=sys.stderr)
        return 3
    except loop.Stopped as stop:
        print(f"launch.train: {stop}", file=sys.stderr)
        return 128 + stop.signum
    return result if jax.process_index() == 0 else None


def _print_partition(options, config):
    """Prints the layout of the state in every phase; computes nothing, neither does it write."""
    _start(options)
    experiment = _make(options, config)

    import jax

    from launch import sharding, steps

    mesh = sharding.make_mesh(config.mesh, len(experiment.replica_seeds))
    if jax.process_index() == 0:
        for phase in experiment.phases:
            print(f"phase {phase.name}")
            print(sharding.describe(mesh, steps.state_like(experiment, mesh, phase.name)))


def _start(options):
    """Joins the other processes, where the flags say that there are some."""
    from launch import sharding

    if options.distributed or options.coordinator:
        sharding.start_processes(options.coordinator, options.num_processes, options.process_id)


def _make(options, config):
    """Builds the experiment; what it refuses becomes one sentence."""
    try:
        return load_experiment(config)
    except (ValueError, OSError) as error:
        if options.debug:
            raise
        raise Refused(f"{error} (--debug shows where)") from None


def _read(argv):
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "file with get_config(), and a variant after a colon",
        flag_values=values, lock_config=True,
    )  # fmt: skip
    string = lambda name, text: flags.DEFINE_string(name, None, text, flag_values=values)
    whole = lambda name, text: flags.DEFINE_integer(name, None, text, flag_values=values)
    switch = lambda name, text: flags.DEFINE_bool(name, False, text, flag_values=values)
    string("workdir", "directory of the run; made if absent")
    string("coordinator", "host:port of process 0, where there are several")
    whole("num_processes", "how many processes there are")
    whole("process_id", "number of this process, from 0")
    switch("distributed", "join the processes that the cluster's environment describes")
    switch("partition", "print the partition of the state over the devices, and train nothing")
    switch("debug", "show the traceback of a refusal by the experiment")
    before, sys.argv = sys.argv, argv  # the config flag looks for its overrides there
    try:
        rest = values(argv)[1:]
        _ = values.config and values.config.to_dict  # a file that did not load is reported here
    except flags.Error as error:
        lines = str(error).strip().splitlines()
        sentence = lines[-1] if "Traceback" in str(error) else lines[0]
        raise Refused(sentence.removeprefix("flag ").removeprefix("ValueError: ")) from None
    except OSError:
        file = _flag_value(argv, "config").split(":")[0]
        known = _config_files()
        raise Refused(
            f"--config={file}: there is no such config file{_nearest(file, known)}"
        ) from None
    except (AttributeError, TypeError, ValueError, SyntaxError, ImportError) as error:
        raise Refused(f"--config={_flag_value(argv, 'config')}: {error}") from None
    finally:
        sys.argv = before
    if rest:
        raise Refused(f"{rest[0]!r}: expected options of the form --name=value only")
    return values


def _flag_value(argv, name):
    for at, word in enumerate(argv):
        key, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and key == name:
            return value if equals else "".join(argv[at + 1 : at + 2])
    return ""


def _field_names(config, prefix=""):
    names = []
    for name, value in config.items():
        names.append(prefix + name)
        if hasattr(value, "items"):
            names += _field_names(value, f"{prefix}{name}.")
    return names


def _nearest(name, known):
    """Says which known name was probably meant: the right one in another group counts too."""

    def likeness(full):
        last = difflib.SequenceMatcher(None, name.split(".")[-1], full.split(".")[-1]).ratio()
        return last + difflib.SequenceMatcher(None, name, full).ratio() / 2

    best = max(known, key=likeness, default=None)
    if best and likeness(best) > 0.75:
        return f"; did you mean {best}?"
    return f"; expected one of {', '.join(sorted(known))}"


def _config_files():
    return sorted(str(path) for path in Path("configs").glob("[!_]*.py")) or ["configs/<name>.py"]


def _help(argv):
    """Text of --help; with --config also the fields and their values."""
    lines = [__doc__.strip(), "", "Options:"]
    values = _read(argv[:1])
    for name in (
        "config", "workdir", "coordinator", "num_processes", "process_id", "distributed",
        "partition", "debug",
    ):  # fmt: skip
        lines.append(f"  --{name}: {values[name].help}")
    lines += ["", "Configs here:"]
    lines += [f"  {name}" for name in _config_files()]
    given = _flag_value(argv, "config")
    if given:
        config = _read([argv[0], f"--config={given}"]).config
        lines += ["", f"Fields of {given}:"]
        for name in _field_names(config):
            value = config
            for part in name.split("."):
                value = value[part]
            if not hasattr(value, "items"):
                lines.append(f"  --config.{name}={value!r}")
    else:
        lines += ["", "With --config=<file>, --help lists the fields of that config."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
