"""Reads runs/, never trains: what reports and notebooks import."""
