default_scope = "mtadapt"
custom_imports = dict(imports=["mtadapt"], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="ResumableCheckpointHook", interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="MultiTaskVisualizationHook", num_images=8),
)
custom_hooks = [
    dict(type="CheckpointMatchHook"),
    dict(type="PromptMatchHook"),
    dict(type="ParameterTableHook"),
    dict(type="SourceAccumulationHook"),
    dict(type="AbsentTaskHook"),
    dict(type="TaskProgressHook", interval=50),
    dict(type="MetricTableHook"),
    dict(type="ExpertUsageHook"),
    dict(type="NonFiniteHook"),
    dict(type="RankHeartbeatHook"),
]

env_cfg = dict(
    cudnn_benchmark=False, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0), dist_cfg=dict(backend="nccl")
)
visualizer = dict(
    type="MultiTaskVisualizer", vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
)
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=True)
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=0)
