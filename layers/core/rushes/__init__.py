"""Rushes: video requests in, clips in your own bucket out, each bought at most once."""
