"""Prompts as data: files, safe and unsafe pairs, and the filter of prompts that refer to minors."""
