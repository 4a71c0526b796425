"""The vectorised sine against XLA's, and its error: nanoseconds an element, one number a line.

  python -m benchmarks.sine

6.4 million single-precision arguments, the activations of a SIREN on MNIST (batch 32, K = 4 and
64 units, 784 points); the least of 10 repeats.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from functions.sine import sine

RIVALS = {"functions.sine": sine, "jax.numpy.sin": jnp.sin, "copy (2 x)": lambda x: 2 * x}


def main():
    """Times and prints."""
    x = 5 * jax.random.normal(jax.random.key(0), (32, 4, 64, 784))
    for name, f in RIVALS.items():
        compiled = jax.jit(f)
        jax.block_until_ready(compiled(x))
        seconds = []
        for _ in range(10):
            began = time.process_time()
            jax.block_until_ready(compiled(x))
            seconds.append(time.process_time() - began)
        print(f"{name:16} {1e9 * min(seconds) / x.size:6.2f} ns of CPU an element")
    points = np.linspace(-1e4, 1e4, 2_000_001).astype(np.float32)
    error = np.asarray(jax.jit(sine)(points)) - np.sin(points.astype(np.float64))
    print(f"largest error for |x| < 1e4: {np.abs(error).max():.1e}")
    print(f"device: {jax.devices()[0].device_kind}")


if __name__ == "__main__":
    main()
