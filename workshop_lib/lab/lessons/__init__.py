"""Props of the lessons: what a notebook shows or needs, and nothing else uses."""
