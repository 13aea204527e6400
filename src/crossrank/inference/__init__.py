"""A trained model in use: scoring pairs, ranking documents."""
