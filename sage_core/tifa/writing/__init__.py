"""Questions for any caption in TIFA's format, by a local language model or by rules."""
