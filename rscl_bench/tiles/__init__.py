"""Tiles of an archive: cut once, packed into one file, read in whole batches."""
