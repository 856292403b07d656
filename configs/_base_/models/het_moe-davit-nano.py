# The tasks cls, det and sem_seg on a very small MoE-DaViT, for small images and CPUs, trained from scratch. Ours:
# "nano", a third of the tiny model's width with 8 experts a layer, of which a token uses 2. Each task has its own neck.
_base_ = "het_efficientnet-lite0_fpn.py"
channels = [32, 64, 128, 256]
neck = dict(type="FPN", in_channels=channels, out_channels=96, num_outs=5)
drivable = dict(neck=neck)
model = dict(
    backbone=dict(
        _delete_=True,
        type="MoEDaViT",
        arch=dict(embed_dims=32, depths=[1, 1, 3, 1], num_heads=[2, 4, 8, 16]),
        tasks=["cls", "det", "sem_seg"],
        mlp_experts=dict(num_experts=8, top_k=2),
        mutual_information=dict(weight=0.02, momentum=0.9),
        drop_path_rate=0.0,
        out_indices=(0, 1, 2, 3),
    ),
    neck=None,
    tasks=dict(
        cls=dict(head=dict(in_channels=channels[-1])),
        det=dict(neck=dict(_delete_=True, **neck)),
        sem_seg=dict(neck=neck),
    ),
)
