"""Miniature data: rendered COCO, ADE20K and ImageNet trees for demos and tests, without a download."""

from demo.mini_data.mini import MiniData, make_mini_data

__all__ = ['MiniData', 'make_mini_data']
