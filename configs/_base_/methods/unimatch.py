# UniMatch (Yang et al., CVPR 2023): two strong views and one of perturbed features, at equal weight, and the mean of
# the losses of labeled and unlabeled images: (labeled + 0.25 strong1 + 0.25 strong2 + 0.5 perturbed) / 2. Labeled
# images and weak views are one batch, strong views another.
semi = dict(threshold=0.95, cutmix_prob=0.5, feature_dropout=0.5, sup_weight=0.5, unsup_weight=0.5, joint_forward=False)
strong = [
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomGrayscale', prob=0.2, keep_channels=True, color_format='bgr'),
    dict(type='PackSegInputs'),
]
# The last step of a pipeline; what moves pixels comes before it, so that all views of an image show the same place.
views = dict(type='MultiBranch', weak=[dict(type='PackSegInputs')], strong1=strong, strong2=strong)
del strong
