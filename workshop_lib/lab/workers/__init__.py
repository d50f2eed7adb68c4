"""Workers of a notebook: in `threads`, and in a `process` that can be killed at its `kill_points`."""
