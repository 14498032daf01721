"""What the functions cost in time, beside what one would use in their place: `make bench`, docs/benchmarks.md."""
