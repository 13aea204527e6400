"""The README of an exported model, rendered from the folder of the run that trained it."""
