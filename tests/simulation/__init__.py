"""Deterministic simulation of a fleet: the shipped claims, effects, ledger and firings on several modelled hosts.

    make simulate N=100000 [DEPTH=claims|whole] [SEED=0] [ABLATE=name] [ARGS="--trace"]

Only the world outside the ports is a model (`server.py` the forge and its git, `world.py` time, hosts and faults,
`people.py` whoever labels, closes, merges and pushes). What is asked of the outcome stands in `watch.py`, and is read
from the server's own log.
"""
