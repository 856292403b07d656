"""The public layouts of checkpoints: a table of names for each library, and which of them a file has."""

from mtadapt.zoo.formats.naming import Change, Entry, Naming, Rule
from mtadapt.zoo.formats.recognise import Recognised, recognise

__all__ = ["Change", "Entry", "Naming", "Recognised", "Rule", "recognise"]
