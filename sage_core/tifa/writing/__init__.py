"""Writing TIFA questions for any caption, by a language model or by rules."""
