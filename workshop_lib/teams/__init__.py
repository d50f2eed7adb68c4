"""Tools that belong to other teams, each deployed on its own in its team's namespace.

Of a team, others see the contract and nothing else.
"""
