"""What VMamba's and Vim's authors print about the models that are here (arXiv 2401.10166 and 2401.09417)."""

from mmevm.analysis.paper import BOX_AND_MASK, ONE_SCALE, SEVERAL_SCALES, Row, Table

_POSITIONS = (
    "upstream's own print-out of this model, 12.901 M, has positions for 1024 x 1024; "
    'with those, and without the class token, ours has the very same'
)

TABLES = (
    Table(
        'VMamba, first design: ImageNet-1k',
        ('top-1',),
        (
            Row('VMamba-T', 'classifier_vmamba_t', '23', '5.6', ('82.2',)),
            Row('VMamba-S', 'classifier_vmamba_s', '44', '11.2', ('83.5',)),
            Row('VMamba-B', 'classifier_vmamba_b', '76', '18.0', ('83.7',)),
        ),
        "The figures are those of the authors' repository. The paper's first version, which counts the scan otherwise, "
        'gives 4.5, 9.1 and 15.2 G.',
    ),
    Table(
        'VMamba, second design: ImageNet-1k',
        ('top-1',),
        (
            Row('T (s1l8)', 'classifier_vmamba_t_s1l8', '30', '4.9', ('82.6',)),
            Row('T (s2l5)', 'classifier_vmamba_t_s2l5', '31', '4.9', ('82.5',)),
            Row('S (s2l15)', 'classifier_vmamba_s_s2l15', '50', '8.7', ('83.6',)),
            Row('S (s1l20)', 'classifier_vmamba_s_s1l20', '49', '8.6', ('83.3',)),
            Row('B (s2l15)', 'classifier_vmamba_b_s2l15', '89', '15.4', ('83.9',)),
            Row('B (s1l20)', 'classifier_vmamba_b_s1l20', '87', '15.2', ('83.8',)),
        ),
        "The figures are those of the authors' repository.",
    ),
    Table(
        'VMamba, second design: COCO, Mask R-CNN, 12 epochs',
        BOX_AND_MASK,
        (
            Row('T (s1l8)', 'mask_rcnn_vmamba_t_1x', '50', '271', ('47.3', '69.3', '52.0', '42.7', '66.4', '45.9')),
            Row('S (s2l15)', 'mask_rcnn_vmamba_s_1x', '70', '349', ('48.7', '70.0', '53.4', '43.7', '67.3', '47.0')),
            Row('B (s2l15)', 'mask_rcnn_vmamba_b_1x', '108', '485', ('49.2', '71.4', '54.0', '44.1', '68.3', '47.7')),
        ),
        "The authors' repository says 384 G for S, with two digits swapped.",
    ),
    Table(
        'VMamba, second design: ADE20K, UperNet, 512 x 512',
        (ONE_SCALE, SEVERAL_SCALES),
        (
            Row('T (s1l8)', 'upernet_vmamba_t', '62', '949', ('47.9', '48.8')),
            Row('S (s2l15)', 'upernet_vmamba_s', '82', '1028', ('50.6', '51.2')),
            Row('B (s2l15)', 'upernet_vmamba_b', '122', '1170', ('51.0', '51.6')),
        ),
    ),
    Table(
        'Vim: ImageNet-1k',
        ('top-1',),
        (
            Row('Vim-Ti', 'classifier_vim_t', '7', '', ('76.1',)),
            Row('Vim-Ti, stride 8', 'classifier_vim_t_stride8', '7', '', ('78.3',)),
            Row('Vim-S', 'classifier_vim_s', '26', '', ('80.5',)),
            Row('Vim-S, stride 8', 'classifier_vim_s_stride8', '26', '', ('81.6',)),
        ),
        "The figures are those of the authors' repository, which has no FLOPs. EfficientVMamba's Table 2 gives 1.5 and "
        '5.1 G at stride 16, and does not say how they were counted.',
    ),
    Table(
        'Vim: ADE20K, UperNet, 512 x 512',
        (ONE_SCALE,),
        (
            Row('Vim-Ti', 'upernet_vim_t', '13', '', ('41.0',), _POSITIONS),
            Row('Vim-S', 'upernet_vim_s', '46', '', ('44.9',)),
        ),
        'The table has no FLOPs. The heads here differ from upstream in which maps they are given; see the configs.',
    ),
)
