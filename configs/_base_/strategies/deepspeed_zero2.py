# DeepSpeed ZeRO-2: each process keeps its share of the gradients and the optimizer state. Needs the package deepspeed.
# Add it to the _base_ of a config without stages and start that with tools/dist_train.sh; see docs/scaling.md.
runner_type = "FlexibleRunner"
strategy = dict(type="DeepSpeedStrategy", zero_optimization=dict(stage=2))
