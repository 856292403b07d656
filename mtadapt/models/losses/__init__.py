"""Losses."""

from mtadapt.models.losses.alignment import box_alignment_loss, fill_boxes, map_alignment_loss

__all__ = ["box_alignment_loss", "fill_boxes", "map_alignment_loss"]
