"""Run records: their fields, checks, files, continual metrics and tunings."""
