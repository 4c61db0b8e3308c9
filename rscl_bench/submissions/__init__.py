"""Submissions: runs of a third party, bundled in one file, checked, and added to a table."""
