"""From scores to tables: continual metrics, run records, leaderboards."""
