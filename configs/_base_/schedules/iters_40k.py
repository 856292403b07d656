# The segmentation recipe of BDD100K's public baselines: SGD 0.01 for batches of 16, 40k iterations, poly.
train_cfg = dict(type="IterBasedTrainLoop", max_iters=40000, val_interval=4000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=0.0005))
param_scheduler = [dict(type="PolyLR", eta_min=0.0001, power=0.9, by_epoch=False, begin=0, end=40000)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
