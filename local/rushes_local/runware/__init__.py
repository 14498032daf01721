"""A local stand-in for Runware: it validates, bills, renders, uploads and calls back like the real service."""
