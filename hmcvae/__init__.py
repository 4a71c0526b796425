"""Hamiltonian Monte Carlo for variational autoencoders, as pure functions.

Nothing is re-exported: import the module that holds the idea, `from hmcvae import hmc`.
"""
