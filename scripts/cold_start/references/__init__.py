"""Handlers to compare with, as small as they can be. Each is loaded in a process of its own, as `app`."""
