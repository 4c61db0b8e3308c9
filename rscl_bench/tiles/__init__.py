"""Tiles of an archive: cut and packed into one file once, then read as whole batches."""
