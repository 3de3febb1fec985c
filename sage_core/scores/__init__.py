"""Scores of pictures beside TIFA: CLIPScore and concept rates, and the table of all of them."""
