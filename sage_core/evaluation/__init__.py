"""Whole test sets drawn and scored by many methods, from one plan."""
