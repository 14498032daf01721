"""Runware's wire: its requests, answers and errors, in its own words."""
