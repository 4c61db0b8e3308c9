"""Measurements of costs as ratios of two loops in one process; NOTES.md has the results."""
