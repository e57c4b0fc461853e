"""Crops and pixels, against torchvision on the original images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from pydantic import ValidationError
from torchvision import transforms
from torchvision.transforms import functional as vision

from dmlray.data import augment, catalogue
from dmlray.data.augment import Transform, crop_eval, crop_train, draw_boxes, normalise
from dmlray.data.cache import Cache, open_cache

SIZES = [(96, 128), (150, 100), (64, 64), (60, 200)]
MANY = 20_000
