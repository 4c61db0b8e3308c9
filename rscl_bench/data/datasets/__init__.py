"""One file per dataset: its TorchGeo dataset, where TorchGeo has none, and its adapter."""
