"""Frames: chunks and segments, their codecs and containers, the stage protocols, the testcard source.

The only package that imports PyAV, whose wheels contain FFmpeg with x264 (GPL).
"""
