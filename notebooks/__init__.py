"""Figures of finished runs; `python -m notebooks.execute` fills them with those of the runs at hand."""
