# het_davit-s.py with 32 experts in the place of every MLP. A token uses 4 of them, which together are as wide as
# the dense MLP. Each task has routers of its own.
_base_ = "het_davit-s.py"
model = dict(
    backbone=dict(
        tasks=["cls", "det", "sem_seg"],
        mlp_experts=dict(num_experts=32, top_k=4),
        mutual_information=dict(weight=5e-4),
    ),
)
