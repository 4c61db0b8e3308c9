"""Continual-learning strategies, one file each; every one is an Avalanche plugin."""
