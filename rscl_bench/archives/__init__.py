"""Archives in their own layout, read as raw scenes, and synthetic sketches of them."""
