"""How a model is spread over processes: MMEngine's strategies, made to fit the multi-task model."""

from mtadapt.engine.strategies.ddp import DDPStrategy
from mtadapt.engine.strategies.deepspeed import DeepSpeedStrategy
from mtadapt.engine.strategies.fsdp import FSDPStrategy
from mtadapt.engine.strategies.outline import plain_model
from mtadapt.engine.strategies.wrap_policy import shared_parts_policy

__all__ = ["DDPStrategy", "DeepSpeedStrategy", "FSDPStrategy", "plain_model", "shared_parts_policy"]
