"""Datasets of TorchGeo by name: ``torchgeo:EuroSAT`` without a reader of its own."""
