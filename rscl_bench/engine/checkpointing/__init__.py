"""Checkpoints: their state, their files, when they are written, and the signals that end a run."""
