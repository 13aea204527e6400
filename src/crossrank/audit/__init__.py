"""Looks at data and judgements before anybody believes a number: leaks and what they do to the metrics."""
