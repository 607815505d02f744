"""The command line against the sandbox, both as processes, in bad weather: see docs/chaos.md."""
