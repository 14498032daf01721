"""A local stand-in for Runware, which validates, charges, renders, uploads and sends webhooks like the real service."""
