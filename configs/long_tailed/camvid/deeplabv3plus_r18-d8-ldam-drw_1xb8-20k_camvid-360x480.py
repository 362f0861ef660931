_base_ = './deeplabv3plus_r18-d8-ce_1xb8-20k_camvid-360x480.py'
# The logits are no cosines: a margin of 1 for the rarest class.
# tau=0 is cross-entropy: mmseg 1.2.2 has none that takes class weights where pixels are ignored.
model = dict(
    decode_head=dict(loss_decode=dict(_delete_=True, type='LDAMLoss', max_margin=1.0, scale=1.0)),
    auxiliary_head=dict(loss_decode=dict(_delete_=True, type='LogitAdjustedLoss', tau=0.0, loss_weight=0.4)),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='DeferredReweightingHook',
        begin=16000,
        by_epoch=False,
        beta=1 - 1e-7,  # pixels are many: the weights of the classes differ by a factor of 50
        file=_base_.custom_hooks[0].file,
    ),
]
