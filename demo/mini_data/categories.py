"""The classes of COCO, ADE20K and ImageNet that the pictures show, under those data sets' own numbers."""

#: COCO 2017's 80 detection categories: supercategory to {id: name}; ids run to 90 with gaps.
COCO_CATEGORIES: dict[str, dict[int, str]] = {
    'person': {1: 'person'},
    'vehicle': {2: 'bicycle', 3: 'car', 4: 'motorcycle', 5: 'airplane', 6: 'bus', 7: 'train', 8: 'truck', 9: 'boat'},
    'outdoor': {10: 'traffic light', 11: 'fire hydrant', 13: 'stop sign', 14: 'parking meter', 15: 'bench'},
    'animal': {
        16: 'bird',
        17: 'cat',
        18: 'dog',
        19: 'horse',
        20: 'sheep',
        21: 'cow',
        22: 'elephant',
        23: 'bear',
        24: 'zebra',
        25: 'giraffe',
    },
    'accessory': {27: 'backpack', 28: 'umbrella', 31: 'handbag', 32: 'tie', 33: 'suitcase'},
    'sports': {
        34: 'frisbee',
        35: 'skis',
        36: 'snowboard',
        37: 'sports ball',
        38: 'kite',
        39: 'baseball bat',
        40: 'baseball glove',
        41: 'skateboard',
        42: 'surfboard',
        43: 'tennis racket',
    },
    'kitchen': {44: 'bottle', 46: 'wine glass', 47: 'cup', 48: 'fork', 49: 'knife', 50: 'spoon', 51: 'bowl'},
    'food': {
        52: 'banana',
        53: 'apple',
        54: 'sandwich',
        55: 'orange',
        56: 'broccoli',
        57: 'carrot',
        58: 'hot dog',
        59: 'pizza',
        60: 'donut',
        61: 'cake',
    },
    'furniture': {62: 'chair', 63: 'couch', 64: 'potted plant', 65: 'bed', 67: 'dining table', 70: 'toilet'},
    'electronic': {72: 'tv', 73: 'laptop', 74: 'mouse', 75: 'remote', 76: 'keyboard', 77: 'cell phone'},
    'appliance': {78: 'microwave', 79: 'oven', 80: 'toaster', 81: 'sink', 82: 'refrigerator'},
    'indoor': {
        84: 'book',
        85: 'clock',
        86: 'vase',
        87: 'scissors',
        88: 'teddy bear',
        89: 'hair drier',
        90: 'toothbrush',
    },
}

#: Shapes per COCO category id.
COCO_SHAPES: dict[int, tuple[str, ...]] = {
    10: ('traffic light',),
    13: ('stop sign',),
    28: ('umbrella',),
    37: ('soccer ball', 'basketball', 'tennis ball'),
    38: ('kite',),
    85: ('clock',),
}

#: Shapes per ADE20K label (1 to 150; 0 is unlabelled).
ADE20K_SHAPES: dict[int, tuple[str, ...]] = {
    44: ('stop sign',),  # signboard
    120: ('soccer ball', 'basketball', 'tennis ball'),  # ball
    136: ('vase',),
    137: ('traffic light',),
    149: ('clock',),
}

#: ADE20K label per background surface of :data:`demo.mini_data.backgrounds.STUFF`.
ADE20K_STUFF: dict[str, int] = {
    'other': 0,
    'wall': 1,
    'building': 2,
    'sky': 3,
    'floor': 4,
    'tree': 5,
    'road': 7,
    'windowpane': 9,
    'grass': 10,
    'mountain': 17,
    'painting': 23,
}

#: ImageNet-1k class index and WordNet id per shape; a stop sign is one of ImageNet's street signs.
IMAGENET_SHAPES: dict[str, tuple[int, str]] = {
    'basketball': (430, 'n02802426'),
    'soccer ball': (805, 'n04254680'),
    'tennis ball': (852, 'n04409515'),
    'umbrella': (879, 'n04507155'),
    'vase': (883, 'n04522168'),
    'clock': (892, 'n04548280'),
    'stop sign': (919, 'n06794110'),
    'traffic light': (920, 'n06874185'),
}
