"""Writes leaderboards as pages for browsers: one file, no network, readable without script."""
