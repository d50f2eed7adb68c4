"""Waiting for runs: who polls, what is `pending`, what is heard failing, why and how to mend it."""
