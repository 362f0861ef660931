_base_ = 'mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(head=dict(type='SARVisionTransformerClsHead'))
