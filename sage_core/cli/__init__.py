"""The command line `sage`, one file for each command."""
