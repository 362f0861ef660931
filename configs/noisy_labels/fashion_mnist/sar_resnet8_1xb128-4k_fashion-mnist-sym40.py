_base_ = './resnet8_1xb128-4k_fashion-mnist-sym20.py'
model = dict(head=dict(type='SARLinearClsHead'))
train_dataloader = dict(dataset=dict(rate=0.4))
