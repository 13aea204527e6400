"""Where question-answer pairs come from: one source, one file."""
