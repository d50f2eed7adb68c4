"""Waiting for runs, and saying why they do not come: what is `pending`, what failed, how to mend it."""
