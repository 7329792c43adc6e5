"""Miniature data: rendered COCO, ADE20K and ImageNet trees for demos and tests, without a download."""

from demo.mini_data.make import MiniData, make_digits, make_mini_data

__all__ = ['MiniData', 'make_digits', 'make_mini_data']
