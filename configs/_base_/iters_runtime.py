# default_runtime.py for IterBasedTrainLoop: checkpoints and logs count in iterations.
_base_ = "default_runtime.py"
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=100))
log_processor = dict(by_epoch=False)
