"""What a process of ours needs of the machine it runs on, and nothing of Temporal.

`environment` is put in order, `state_folder` is where all that we write lives, `files` are
written whole, `processes` live or have ended and `records` say which are ours, `ports` who listens where.
"""
