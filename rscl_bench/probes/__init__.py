"""Evaluation on labels: probes on features, probes that train, metrics, and a lower reference."""
