# UniMatch (Yang et al., CVPR 2023): two strong views and one of perturbed features, at equal weight. Its loss is the
# mean of those of labelled and unlabelled images, here it is the sum: twice theirs at the same learning rate.
semi = dict(threshold=0.95, cutmix_prob=0.5, feature_dropout=0.5, unsup_weight=1.0)
strong = [
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomGrayscale', prob=0.2, keep_channels=True, color_format='bgr'),
    dict(type='PackSegInputs'),
]
# The last step of a pipeline; what moves pixels comes before it, so that all views of an image show the same place.
views = dict(type='MultiBranch', weak=[dict(type='PackSegInputs')], strong1=strong, strong2=strong)
del strong
