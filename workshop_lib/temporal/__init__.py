"""What every service here stands on: a client, a worker, and the steps of a workflow.

`connect` and `own_server` reach a server, and keep a client at the one that is its own. `worker` and
`service` run code, `steps` has the limits of activities, `failures` and `bounded` keep small what is
recorded, `breaker` and `tries` spare what is down, `client_retries` sends queries and updates again where
they got lost, `names` says what a workflow may be called, `lookup` asks about runs, endpoints and queues.
Left out: models and agents.
"""
