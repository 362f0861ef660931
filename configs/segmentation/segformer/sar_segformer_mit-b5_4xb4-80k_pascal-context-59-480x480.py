_base_ = './segformer_mit-b5_4xb4-80k_pascal-context-59-480x480.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARSegformerHead'))
