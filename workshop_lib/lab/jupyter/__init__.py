"""JupyterLab as the workshop starts it, the learner's copies of the notebooks, and how far they have come."""
