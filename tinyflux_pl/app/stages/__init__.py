"""Runs of train.py one after the other."""
