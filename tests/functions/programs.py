"""Programs in the tests: compiled fast, and what can be read off them."""

import functools

import jax

# a third of the time to compile; for programs that run a few times
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def dot_generals(jaxpr):
    """Yields the equations of all matrix products of a jaxpr, those of inner jaxprs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from dot_generals(inner)


def operands(equation):
    """Returns the shapes of the operands of an equation."""
    return [v.aval.shape for v in equation.invars]
