"""Pretrained checkpoints: read any public format safely, check the match, benchmark, report."""
