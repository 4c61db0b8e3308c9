"""What a trained encoder is used for: features of new images, probing, and sharing it."""
