"""The documentation as tests: its code blocks run, its links lead somewhere, its generated parts are fresh."""
