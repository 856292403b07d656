"""Which pre-training a file comes from, for the report; loading does not depend on it."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Name, what the prefix of the backbone is, and what the name of one other entry of the file is; the first that fits
# counts.
_METHODS = (
    ("MoCo v2", r"(module\.)?encoder_q\.", r".*encoder_q\.fc\.2\..*"),
    ("MoCo v1", r"(module\.)?encoder_q\.", r".*encoder_q\.fc\.(weight|bias)"),
    ("DetCo", r"(module\.)?encoder_q\.", r".*encoder_q\..*local.*"),
    ("MoCo", r"(module\.)?encoder_q\.", r".*"),
    ("MoCo v3", r"(module\.)?base_encoder\.", r".*"),
    ("SwAV", r".*", r"(.*\.)?prototypes\d*\..*"),
    ("DenseCL", r"backbone\.|encoder_q\.0\.", r"(encoder_q\.1|neck)\.mlp2\..*"),
    ("PixPro", r"(module\.)?encoder\.", r"(.*\.)?encoder_k\..*"),
    ("SimSiam", r"(module\.)?encoder\.", r"(.*\.)?predictor\..*"),
    ("Barlow Twins", r"(module\.)?backbone\.", r"(.*\.)?projector\..*"),
    ("BYOL", r"online_.*", r".*"),
    ("VISSL", r".*_feature_blocks\.", r".*"),
    ("DINOv2", r".*", r".*(ls1\.gamma|register_tokens|reg_token)"),
    ("DINO", r"teacher\..*", r".*"),
    ("MAE", r".*", r"(.*\.)?decoder_blocks\..*"),
    ("SimMIM", r"encoder\.", r"encoder\.mask_token"),
    ("BEiT", r".*", r"(.*\.)?(lm_head|attn\.q_bias)(\..*)?"),
    ("CLIP", r"(.*\.)?visual\.", r"(.*\.)?(ln_pre\.weight|attnpool\..*)"),
)


def method_of(prefix: str, names: Iterable[str]) -> str | None:
    """The pre-training in words, or None where the names do not tell.

    Args:
        prefix: of the backbone.
        names: of all entries of the file.
    """
    names = list(names)
    for method, start, other in _METHODS:
        if re.fullmatch(start, prefix) and any(re.fullmatch(other, name) for name in names):
            return method
    return None
