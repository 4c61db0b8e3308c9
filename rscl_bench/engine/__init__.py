"""Runs: preparing, training, probing, recording and resuming them."""
