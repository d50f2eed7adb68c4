"""DAPER: an agent that detects, analyses, plans, executes and reports repairs, with a human in it.

The ground: `models`, `tables` and `store` (orders, stock, a ledger of repairs). The analysts: `analysts` and
what they need, `plan_rules` and `gold`. The repair: `tools`, `reports` and `notify` are its activities,
`states`, `approval`, `cycle` and `handlers` what its two workflows share, `workflow` and `proactive` these
two. From outside: `client`, `schedule`, `worker`.
"""
