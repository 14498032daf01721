"""The verbs of the `rushes` command, a module for each group, and what they share."""
