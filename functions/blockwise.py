"""Sums over points with their gradient, block by block: the working set stays in the cache.

The likelihood of an item is a sum over its points, and its gradient is the sum of the gradients of
blocks of points. Taking both at once, one block after another and one item after another, keeps
activations of a block (K width chunk numbers a layer) in a CPU's cache, where whole batches make
every operation wait for memory; and memory does not grow with the number of items or points.
Reverse-mode differentiation of the plain sum would store all of them for the way back.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp


def block_sum(
    f: Callable[..., tuple[jax.Array, jax.Array]], chunk: int
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Returns (weights, features, data) -> f summed over blocks of `chunk` points.

    Args:
      f: (weights, features, data, is_real) -> (scalar, auxiliary scalar) for one item and a block,
        each a sum over its points; `is_real` [chunk] is False at points that fill up the last
        block, which must count for nothing.
      chunk: points at a time, of one item or of several small ones.

    Returns:
      A function of weights, any tree; features and data, trees with leaves [N, ...]. Its first
      output can be differentiated once in weights and features; the second and data are constants.
      Under `vmap` it goes through the items in groups of about `chunk` points.
    """

    def blocks(tree):
        num_points = jax.tree.leaves(tree)[0].shape[0]
        count = -(-num_points // min(chunk, num_points))
        size = -(-num_points // count)  # blocks of nearly equal size

        def split(leaf):
            padding = ((0, count * size - num_points), *((0, 0),) * (leaf.ndim - 1))
            return jnp.pad(leaf, padding).reshape(count, size, *leaf.shape[1:])

        return jax.tree.map(split, tree), split(jnp.ones(num_points, bool))

    @functools.partial(_in_groups, chunk=chunk)
    def value(weights, features, data):
        def body(sums, block):
            out = f(weights, *block[0], block[1])
            return jax.tree.map(jnp.add, sums, out), None

        return jax.lax.scan(body, (jnp.zeros(()), jnp.zeros(())), blocks((features, data)))[0]

    @functools.partial(_in_groups, chunk=chunk)
    def value_and_slope(weights, features, data):
        slope_of = jax.value_and_grad(f, argnums=(0, 1), has_aux=True)

        def body(sums, block):
            (features, data), is_real = block
            out, (by_weights, by_features) = slope_of(weights, features, data, is_real)
            return jax.tree.map(jnp.add, sums, (out, by_weights)), by_features

        start = (jnp.zeros(()), jnp.zeros(())), jax.tree.map(jnp.zeros_like, weights)
        (out, by_weights), by_features = jax.lax.scan(body, start, blocks((features, data)))

        def join(stacked, leaf):
            return stacked.reshape(-1, *leaf.shape[1:])[: leaf.shape[0]]

        return out, (by_weights, jax.tree.map(join, by_features, features))

    @jax.custom_vjp
    def total(weights, features, data):
        return value(weights, features, data)

    def backward(slopes, cotangents):
        scaled = jax.tree.map(lambda slope: cotangents[0] * slope, slopes)
        return (*scaled, None)

    total.defvjp(lambda *args: value_and_slope(*args), backward)
    return total


def _in_groups(f, *, chunk):
    """Makes `vmap` of f (weights, features, data) loop over groups of items."""
    grouped = jax.custom_batching.custom_vmap(f)

    @grouped.def_vmap
    def rule(axis_size, in_batched, *args):
        num_points = next(
            leaf.shape[1] if is_batched else leaf.shape[0]
            for leaf, is_batched in zip(
                jax.tree.leaves(args[2]), jax.tree.leaves(in_batched[2]), strict=True
            )
        )
        leaves, structure = jax.tree.flatten(args)
        flags = jax.tree.leaves(in_batched)
        moving = [leaf for leaf, is_batched in zip(leaves, flags, strict=True) if is_batched]

        def one(moved):
            moved = iter(moved)
            pairs = zip(leaves, flags, strict=True)
            full = [next(moved) if is_batched else leaf for leaf, is_batched in pairs]
            return f(*jax.tree.unflatten(structure, full))

        size = min(max(chunk // num_points, 1), axis_size)
        out = jax.lax.map(one, moving, batch_size=size if size > 1 else None)
        return out, jax.tree.map(lambda _: True, out)

    return grouped
