"""Makes the demonstration models again: data, training, evaluation, packing. Nothing of the product imports it."""
