"""Scores per case."""
