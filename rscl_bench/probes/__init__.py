"""Frozen-encoder evaluation: probes on plain arrays, their metrics, and a lower reference."""
