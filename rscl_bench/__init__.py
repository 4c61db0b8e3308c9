"""rscl-bench: continual self-supervised learning in remote sensing, measured."""

__version__ = "0.3.0"
