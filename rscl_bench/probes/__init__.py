"""Evaluation on labelled tiles: frozen and trained probes, their metrics, and a lower reference."""
