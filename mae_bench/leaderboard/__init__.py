"""Leaderboards: records collected, checked as a stranger's, ranked, and shown on a site that needs no server."""
