_base_ = './fcn_unet-ce_1xb8-3k_camvid-180x240.py'
model = dict(decode_head=dict(type='SARFCNHead', loss_decode=dict(_delete_=True, type='LogitAdjustedLoss')))
