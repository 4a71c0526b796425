"""What a run reports while it trains: metrics.jsonl, TensorBoard files, progress on a terminal."""

import json
import sys
import time
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from launch.workdir import normalise, write_atomic

RESERVED = ("phase", "step", "seconds", "replicas")


class Recorder:
    """Averages metrics over windows of steps and writes one JSON line and TensorBoard scalars each.

    A row is {"phase", "step" (steps done in the phase), "seconds" (of training so far), the mean
    over window and replicas by metric name, "replicas": {name: [R] window means}}. The sums of an
    unfinished window are part of the checkpoint's note, so rows do not depend on interruptions.
    """

    def __init__(self, workdir: Path, *, log_every: int, offset=0, window=None, is_writer=True):
        """Opens the files.

        Args:
          workdir: existing directory.
          log_every: window length in steps; windows end at its multiples and with the phase.
          offset: step of the whole run from which TensorBoard shall forget what it has seen.
          window: `pending` of the checkpoint that training resumes from.
          is_writer: whether to write at all; one process of a run does.
        """
        self._log_every = log_every
        self._count = window["count"] if window else 0
        self._sums = {k: np.array(v, float) for k, v in window["sums"].items()} if window else {}
        self._file = self._board = None
        if is_writer:
            self._file = open(workdir / "metrics.jsonl", "a", encoding="utf-8")
            board = str(workdir / "tensorboard")
            self._board = SummaryWriter(board, purge_step=offset + 1, flush_secs=30)

    def __enter__(self):
        """Returns itself."""
        return self

    def __exit__(self, *exception):
        """Writes what is buffered."""
        if self._file is not None:
            self._file.close()
            self._board.close()

    @property
    def pending(self) -> dict:
        """Count and sums of the unfinished window, as JSON values."""
        return {"count": self._count, "sums": {k: v.tolist() for k, v in self._sums.items()}}

    def add(self, phase, step, metrics, *, seconds, offset, is_last) -> None:
        """Takes the metrics of one dispatch.

        Args:
          phase: name of the phase.
          step: steps done in the phase before this dispatch.
          metrics: by name, [n, R].
          seconds: of training so far.
          offset: steps of all earlier phases, for TensorBoard's single axis.
          is_last: whether the phase ends with this dispatch.
        """
        num = len(next(iter(metrics.values())))
        start = 0
        while start < num:
            stop = min(num, start + self._log_every - (step + start) % self._log_every)
            for name, values in metrics.items():
                part = np.asarray(values[start:stop], np.float64).sum(axis=0)
                self._sums[name] = self._sums.get(name, 0.0) + part
            self._count += stop - start
            done = step + stop
            if done % self._log_every == 0 or (is_last and stop == num):
                self._write(phase, done, seconds, offset)
            start = stop

    def _write(self, phase, step, seconds, offset):
        means = {name: total / self._count for name, total in self._sums.items()}
        self._count, self._sums = 0, {}
        if self._file is None:
            return
        row = {"phase": phase, "step": step, "seconds": round(seconds, 3)}
        row |= {name: value.mean() for name, value in means.items()}
        self._file.write(json.dumps(normalise(row | {"replicas": means}), allow_nan=False) + "\n")
        self._file.flush()
        for name, value in means.items():
            self._board.add_scalar(f"{phase}/{name}", value.mean(), offset + step)


def read_rows(workdir: Path) -> list[dict]:
    """Reads metrics.jsonl; a last line cut off by a kill is left out, null becomes NaN."""
    file = workdir / "metrics.jsonl"
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return [{k: np.nan if v is None else v for k, v in row.items()} for row in rows]


def truncate_rows(workdir: Path, phase_names: list[str], phase: int, step: int) -> None:
    """Drops the rows that lie beyond a checkpoint, to be written again by the resumed run."""
    order = {name: i for i, name in enumerate(phase_names)}
    kept = [
        row
        for row in read_rows(workdir)
        if (order.get(row["phase"], -1), row["step"]) <= (phase, step)
    ]
    text = "".join(json.dumps(normalise(row), allow_nan=False) + "\n" for row in kept)
    write_atomic(workdir / "metrics.jsonl", lambda stream: stream.write(text.encode()))


class Progress:
    """Shows steps, rate, time left and loss: a bar on a terminal, a line now and then elsewhere."""

    LINE_EVERY = 10.0  # seconds between lines where stderr is not a terminal

    def __init__(self, phase: str, done: int, total: int, *, is_shown: bool = True):
        """Starts at `done` of `total` steps."""
        self._phase, self._first, self._done, self._total = phase, done, done, total
        self._start = self._last_line = time.monotonic()
        self._is_shown = is_shown
        self._bar = None
        if is_shown and sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=done, desc=phase, unit=" steps", dynamic_ncols=True
            )

    def update(self, num: int, loss: float) -> None:
        """Advances by `num` steps."""
        self._done += num
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
            self._bar.update(num)
            return
        now = time.monotonic()
        is_due = now - self._last_line >= self.LINE_EVERY or self._done >= self._total
        if self._is_shown and is_due:
            self._last_line = now
            rate = (self._done - self._first) / max(now - self._start, 1e-9)
            left = tqdm.format_interval((self._total - self._done) / max(rate, 1e-9))
            say(
                f"{self._phase}: {self._done}/{self._total} steps "
                f"({self._done / self._total:.0%}), {rate:.4g} steps/s, {left} left, "
                f"loss {loss:.4g}"
            )

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()


def say(message: str) -> None:
    """Prints a line of progress to stderr, past any bar."""
    tqdm.write(message, file=sys.stderr)
    sys.stderr.flush()
