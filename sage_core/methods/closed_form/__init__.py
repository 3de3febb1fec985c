"""Erasing a concept in closed form: the matrices of cross-attention that read the prompt are solved for, not trained.

Every method is a module with a frozen settings class and a function of one face:

    edit(weights, encoder, concepts, settings) -> Edit

`weights` are the U-Net's by any names that end in diffusers' or CompVis' `attn2.to_k.weight` and `attn2.to_v.weight`;
the edit's changes have the same names. None for settings is the published ones. `methods.table` has a row for each.
A method raises UnetError where the weights do not fit or nothing changes, and SettingsError where a system is singular.

A matrix W maps a state c (a column here) to a key or value W c. Many edits turn out to be W (I + E) with the same E for
every matrix: one linear system of the text encoder's width for the whole U-Net.
"""

from __future__ import annotations

from .common import Edit

__all__ = ["Edit"]
