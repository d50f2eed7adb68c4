"""DAPER: an agent that detects, analyses, plans, executes and reports repairs, with a human in it.

The ground: `models`, and `store` on `tables` in a `database` (orders, stock, a ledger of repairs). The
analysts: `analysts` and what they need, and `plan_rules`. The repair: `tools`, `report_files` and `notify`
are its activities, `states`, `approval`, `cycle` and `documents` what its two workflows share, `workflow`
and `proactive` these two. From outside: `client`, `schedule`, `mcp_server`, `worker`.
"""
