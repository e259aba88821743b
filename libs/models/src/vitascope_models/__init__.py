"""The demonstration models as files, each with its card. Data alone: nothing here loads them."""
