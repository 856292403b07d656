# Fully sharded data parallel: each process keeps its share of the parameters, gradients and optimizer state.
# Add it to the _base_ of a config without stages and start that with tools/dist_train.sh; see docs/scaling.md.
runner_type = "FlexibleRunner"
strategy = dict(
    type="FSDPStrategy",
    model_wrapper=dict(
        sharding_strategy="FULL_SHARD",
        auto_wrap_policy=dict(type="mtadapt.shared_parts_policy", min_num_params=1_000_000),
    ),
)
