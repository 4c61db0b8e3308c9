"""From archives to batches: adapters, sketch archives, tile store, streams, augmentation."""
