"""A run's history as a picture: `run` says what happened when, `rows` and `timeline.css` draw it."""
