"""The public layouts of checkpoints: a table of names for each library, and which of them a file has."""

from mtadapt.zoo.formats.convert import LIBRARIES, Converted, convert
from mtadapt.zoo.formats.recognise import Recognised, recognise

__all__ = ["LIBRARIES", "Converted", "Recognised", "convert", "recognise"]
