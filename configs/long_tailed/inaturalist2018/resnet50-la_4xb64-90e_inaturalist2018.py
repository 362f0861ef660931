_base_ = './resnet50-ce_4xb64-90e_inaturalist2018.py'
model = dict(head=dict(loss=dict(type='LogitAdjustedLoss')))
