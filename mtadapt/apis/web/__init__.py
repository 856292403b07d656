"""The web page: what a trained model sees in a picture.

``page`` and ``server`` need the extra ``web``; nothing else here does.
"""

from mtadapt.apis.web.predictor import Prediction, Predictor
from mtadapt.apis.web.uploads import UploadLimits, read_upload

__all__ = ["Prediction", "Predictor", "UploadLimits", "read_upload"]
