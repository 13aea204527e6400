"""A question, and documents of which some are long, short or the same."""

QUESTION = "how do you write a file"
DOCUMENTS = [
    "open the file and write to it",
    "rivers run down from the mountains",
    "a python loses no line " * 20,
    "write",
    "rivers run down from the mountains",
    "how do you write a file of rivers again without losing the last line",
]
