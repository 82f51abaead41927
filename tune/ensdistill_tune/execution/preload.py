"""Imports the modules that a trial requires. Ray imports this module when it starts a worker in advance."""

import gc
import importlib

from ensdistill.runtime.fast_imports import fast_imports

MODULES = ("ensdistill_tune.execution.ray_trainable", "torch._dynamo")  # optimizers import TorchDynamo

with fast_imports():
    for name in MODULES:
        importlib.import_module(name)
gc.freeze()  # collections after each trial skip these objects
