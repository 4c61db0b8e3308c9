"""The training template and the runner."""
