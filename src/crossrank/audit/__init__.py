"""Looks at data before anybody believes a number: negatives that may be none, leaks, and what they do."""
