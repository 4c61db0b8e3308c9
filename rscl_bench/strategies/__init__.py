"""Continual-learning strategies, one file each; every strategy is an Avalanche plugin."""
