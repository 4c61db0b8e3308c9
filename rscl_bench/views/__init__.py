"""Views of tiles: crops, flips, photometric operations and normalisation."""
