"""The local stack under everything that can go wrong at once, and the judgement afterwards: `make chaos`."""
