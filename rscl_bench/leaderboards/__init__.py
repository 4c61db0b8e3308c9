"""Leaderboards: tables, intervals and comparisons built from run records."""
