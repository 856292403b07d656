"""What the inferencer reads: images, folders, videos, cameras, addresses and arrays, one frame after the other."""

from mtadapt.apis.sources.entries import Entry, expand_inputs
from mtadapt.apis.sources.names import check_names
from mtadapt.apis.sources.prefetch import read_ahead
from mtadapt.apis.sources.reader import Frame, FrameReader, check_image

__all__ = ["Entry", "Frame", "FrameReader", "check_image", "check_names", "expand_inputs", "read_ahead"]
