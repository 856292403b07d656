# default_runtime.py for heuristic pre-training: iterations, the hooks that know its branches, pictures of what the
# decoder makes of masked images.
_base_ = "iters_runtime.py"
default_hooks = dict(visualization=dict(_delete_=True, type="ReconstructionHook", num_images=8))
custom_hooks = [
    dict(type="CheckpointMatchHook"),
    dict(type="ParameterTableHook"),
    dict(type="TaskProgressHook", interval=50),
    dict(type="MetricTableHook"),
    dict(type="NonFiniteHook"),
    dict(type="RankHeartbeatHook"),
]
