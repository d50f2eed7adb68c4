"""The `workshop` command: `main` and a file for each group of commands."""
