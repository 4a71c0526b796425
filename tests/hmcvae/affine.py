"""Parameters under which the ReLU networks are exactly affine, for closed-form oracles."""

import numpy as np


def mlp(weight, bias, hidden):
    """Parameters of MLP((hidden, out)) that computes weight @ x + bias: relu(a) - relu(-a) = a."""
    weight, bias = np.asarray(weight), np.asarray(bias)
    num_out, num_in = weight.shape
    first = np.zeros((num_in, hidden))
    second = np.zeros((hidden, num_out))
    first[:, :num_out], first[:, num_out : 2 * num_out] = weight.T, -weight.T
    second[:num_out], second[num_out : 2 * num_out] = np.eye(num_out), -np.eye(num_out)
    return {"layer0": linear(first.T, np.zeros(hidden)), "layer1": linear(second.T, bias)}


def relu_mlp(w0, b0, w1, b1, hidden):
    """Parameters of MLP((hidden, out)) from the smaller network w1 relu(w0 x + b0) + b1."""
    spare = hidden - len(b0)
    w0, b0 = np.pad(w0, ((0, spare), (0, 0))), np.pad(b0, (0, spare))
    return {"layer0": linear(w0, b0), "layer1": linear(np.pad(w1, ((0, 0), (0, spare))), b1)}


def linear(weight, bias):
    """Parameters of Linear from weight (out, in)."""
    return {"affine": {"kernel": np.asarray(weight).T, "bias": np.asarray(bias)}}


def identity_marginals(num_columns, hidden):
    """Parameters of MarginalVAEs: the encoder gives mean x, log variance -30, the decoder z."""
    p = {
        "encoder_w0": np.zeros((num_columns, 2, hidden)),
        "encoder_b0": np.zeros((num_columns, hidden)),
        "encoder_w1": np.zeros((num_columns, hidden, 2)),
        "encoder_b1": np.tile([0.0, -30.0], (num_columns, 1)),
        "decoder_w0": np.zeros((num_columns, hidden)),
        "decoder_b0": np.zeros((num_columns, hidden)),
        "decoder_w1": np.zeros((num_columns, hidden, 1)),
        "decoder_b1": np.zeros((num_columns, 1)),
    }
    for i, sign in enumerate((1.0, -1.0)):
        p["encoder_w0"][:, 0, i], p["encoder_w1"][:, i, 0] = sign, sign
        p["decoder_w0"][:, i], p["decoder_w1"][:, i, 0] = sign, sign
    return p
