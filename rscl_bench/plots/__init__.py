"""Figures of records and runs, for papers and pages."""
