"""Shared utilities: errors, data issues, files, console output and number formatting. Imports no other package."""
