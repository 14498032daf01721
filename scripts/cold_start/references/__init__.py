"""Handlers for comparison, as small as possible. Each is loaded in a process of its own, as `app`."""
