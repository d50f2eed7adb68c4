"""Faults on a plan: the `plan`, what an `experiment` with it brings, and the `injection` into a worker."""
