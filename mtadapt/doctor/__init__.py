"""What is wrong with this installation, this machine or this folder of data, and what mends it.

    python -m mtadapt.doctor [DATASET_ROOT]
    mtadapt doctor [DATASET_ROOT]

Nothing here imports torch or an OpenMMLab library before it has to: the doctor also runs where these cannot be imported
and then tells why. Versions come from the metadata of the installed distributions; imports and ops are tried in a
process of their own (:mod:`mtadapt.doctor.probe`), which may crash or hang.
"""

from mtadapt.doctor.examination import examine
from mtadapt.doctor.finding import Finding

__all__ = ["Finding", "examine"]
