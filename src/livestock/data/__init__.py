"""Raw data in, training data and answers out: archives, readers, folds, the data set at training size."""
