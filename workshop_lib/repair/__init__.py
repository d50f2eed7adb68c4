"""DAPER: an agent that detects, analyses, plans, executes and reports repairs, with a human in it."""
