"""Text to packed batches: sources, mining, token store, order, batches."""
