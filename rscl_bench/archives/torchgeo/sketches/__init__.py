"""Sketches of archives that TorchGeo reads: small synthetic archives in the published layouts."""
