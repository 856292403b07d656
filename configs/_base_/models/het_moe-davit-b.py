# het_davit-b.py with 16 experts in the place of every second MLP. A token uses 4 of them, which together are as wide as
# the dense MLP. Each task has routers of its own.
_base_ = "het_davit-b.py"
model = dict(
    backbone=dict(
        tasks=["cls", "det", "sem_seg"],
        mlp_experts=dict(num_experts=16, top_k=4, every=2),
        mutual_information=dict(weight=5e-4),
    ),
)
