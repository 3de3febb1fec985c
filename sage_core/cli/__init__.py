"""The command line `sage`, one file a command."""
