"""Generated from protos/vitascope_platform/v1 by `make protos`; not edited by hand."""
