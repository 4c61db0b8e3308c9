"""Ratios of things run side by side; see NOTES.md for what was measured."""
