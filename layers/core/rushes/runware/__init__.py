"""Runware's wire format: its requests, responses and errors, under its own names."""
