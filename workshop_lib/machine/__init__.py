"""What a process of ours needs of the machine it runs on, and nothing of Temporal.

`surroundings` puts the environment in order, `state_folder` is where all that we write lives, `records` say
which processes live, `ports` who listens where.
"""
