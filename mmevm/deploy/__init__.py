"""Deployment: exported models, and a predictor for them that needs neither torch nor OpenMMLab.

``mmevm.deploy.export`` writes the files; it needs torch, onnx and onnxscript, and is not imported here.
"""

from mmevm.deploy.predictor import Prediction, Predictor, load, onnxruntime_library

__all__ = ['Prediction', 'Predictor', 'load', 'onnxruntime_library']
