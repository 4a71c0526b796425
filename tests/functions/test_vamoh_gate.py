"""The gates of VAMoH: one network of all their inputs, stored numbers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions import domains, encodings, vamoh
from tests.functions.programs import jit
from tests.functions.test_vamoh import DOMAIN, C, K, N, Z, item

GOLDEN = Path(__file__).parents[1] / "golden" / "hypernet.npz"


def whole_gate(gate, z, coords, y=None):
    return gate(z, gate.embed(coords), y)


@pytest.mark.parametrize(("with_y", "bounded"), [(False, False), (True, True)])
def test_gate_is_one_network_of_all_its_inputs(with_y, bounded, key):
    gate = vamoh.Gate(K, (7, 5), Z, C if with_y else 0, num_frequencies=3, bounded=bounded)
    coords, (values, _) = domains.coordinates(DOMAIN), item()
    z, y = np.float32([0.3, -1.2, 0.8, 2.0]), values if with_y else None

    @jit
    def run(key):
        log_pi, variables = gate.init_with_output(key, z, coords, y, method=whole_gate)
        return log_pi, variables["params"]

    got, params = jax.device_get(run(key))
    inputs = {"layer_0": encodings.fourier_features(encodings.frequencies(3, 2), coords)}
    inputs |= {"layer_0_y": y} if with_y else {}
    inputs |= {"layer_0_z": np.broadcast_to(z, (N, Z))}
    h = np.concatenate(list(inputs.values()), axis=-1)
    kernel = np.concatenate([params[name]["kernel"] for name in inputs])
    if bounded:  # drawn as one layer
        bound = h.shape[1] ** -0.5
        assert (np.abs(kernel) <= bound).all()
        for name in inputs:
            assert np.abs(params[name]["kernel"]).max() > 0.7 * bound
    h = h @ kernel + params["layer_0"]["bias"]
    for name in ("hidden_0", "output"):
        h = np.where(h > 0, h, 0.1 * h) @ params[name]["kernel"] + params[name]["bias"]
    logits = np.tanh(h) if bounded else h
    want = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(got, want.T, rtol=1e-4, atol=1e-5)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_component_logits(case, monkeypatch):
    stored, prefix = np.load(GOLDEN), f"{case}.component_logits."
    g = {k[len(prefix) :]: stored[k] for k in stored.files if k.startswith(prefix)}
    monkeypatch.setattr(encodings, "frequencies", lambda *args, **options: g["frequencies"])
    with jax.enable_x64(True):
        first = jnp.asarray(g["w0"].T)  # [6 Fourier features and 3 latents, 5]
        params = {
            "layer_0": {"kernel": first[:6], "bias": jnp.asarray(g["b0"])},
            "layer_0_z": {"kernel": first[6:]},
            "hidden_0": {"kernel": jnp.asarray(g["w1"].T), "bias": jnp.asarray(g["b1"])},
            "output": {"kernel": jnp.asarray(g["w2"].T), "bias": jnp.asarray(g["b2"])},
        }
        gate = vamoh.Gate(3, (5, 4), 3, num_frequencies=3, bounded=True)
        coords = jnp.asarray(g["coords"])
        run = lambda z: gate.apply({"params": params}, z, coords, method=whole_gate)
        log_pi = np.moveaxis(jax.vmap(run)(jnp.asarray(g["z"])), 1, -1)  # [B, n, K]
        np.testing.assert_allclose(np.exp(log_pi), g["probs"], rtol=1e-8, atol=1e-8)
        want = g["logits"] - np.log(np.exp(g["logits"]).sum(-1, keepdims=True))
        np.testing.assert_allclose(log_pi, want, rtol=1e-8, atol=1e-8)
