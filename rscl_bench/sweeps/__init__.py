"""Sweeps: many runs, checked before the first run starts, each in its own process."""
