"""The programs: `python -m src.<name>` from a clone; the library they drive is `crossrank`."""
