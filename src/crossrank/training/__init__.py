"""The training step, its optimizer, and everything a run leaves on disk."""
