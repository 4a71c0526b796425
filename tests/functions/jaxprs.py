"""What the tests read off traced programs."""


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
