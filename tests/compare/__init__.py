"""Two builds of the command line, held against each other: see docs/architecture.md."""
