_base_ = './wrn28-2-fixmatch_1xb64-256k_cifar10-lt-if100-10pct.py'
model = dict(classifier=dict(head=dict(type='SARLinearClsHead')))
