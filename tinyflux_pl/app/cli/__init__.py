"""The command line: arguments, help text, process settings."""
