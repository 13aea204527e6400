"""Backbone, pooling and head as one function from a packed batch to logits."""
