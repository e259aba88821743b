"""The denoiser: diffusers pipelines in a child process, decoded as a stream.

Import the module that you need: only the child process, which holds the model, imports torch.
"""
