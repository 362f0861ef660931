"""Names in the log that several parts of the package look for; it imports nothing."""

# The losses of an anchor head, beside those of the task.
ANCHOR_LOSSES = ('loss_anchor', 'loss_pull', 'loss_separation')
