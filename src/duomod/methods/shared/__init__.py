"""Pieces that several methods share; each exists once."""
