"""Deep generative models of functions: from points of a function to its values anywhere.

Nothing is re-exported: import the module that holds the idea, `from functions import vamoh`.
"""
