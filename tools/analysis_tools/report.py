"""Make a report of trainings, stock or SAR, for classification or segmentation: one HTML file to open in a browser.

    python tools/analysis_tools/report.py work_dirs/resnet50/seed* work_dirs/sar_resnet50/seed* --out report.html
    python tools/analysis_tools/report.py work_dirs/fcn work_dirs/sar_fcn --figures figures   # also as PDF and PNG
    python tools/analysis_tools/report.py work_dirs/sar_fcn --predict none                    # from the logs alone

RUN is the work folder of a training, finished or not, or a folder of such folders. Runs of a config that differ in
their seed only are one model, whose numbers are means with standard deviations. Curves and scores come from
vis_data/scalars.json. Confusion matrices, the geometry of the features, the t-SNE and the predictions are computed:
each checkpoint is run over the test set of its config once, from the folder that the training was started in.
"""

import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN', help='work folders of trainings')
    parser.add_argument('--out', type=Path, default=Path('report.html'), help='the HTML file, default report.html')
    parser.add_argument(
        '--figures', type=Path, metavar='DIR', help='write every figure as PDF and PNG into this folder'
    )
    parser.add_argument('--names', help='what to call the models, with commas between; default: what tells them apart')
    parser.add_argument('--title', help='heading of the page; default: the names of the models, or their number')
    parser.add_argument(
        '--predict',
        choices=['all', 'first', 'none'],
        default='all',
        help='whose checkpoints to run over the test set: all (default), those of the first run of each model, none',
    )
    parser.add_argument('--class-counts', help='JSON file of tools/dataset_converters/class_counts.py')
    parser.add_argument('--samples-per-class', type=int, default=50, help='features in the t-SNE, default 50')
    parser.add_argument('--pictures', type=int, default=8, help='images in the comparison of predictions, default 8')
    parser.add_argument('--seed', type=int, default=0, help='seed of the sample and of the t-SNE, default 0')
    parser.add_argument('--layer', help='dotted name of the classifier layer, where it is not found')
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE', help='override settings of all configs'
    )
    args = parser.parse_args()
    args.names = [name.strip() for name in args.names.split(',')] if args.names else None
    for option, least in (('samples_per_class', 1), ('pictures', 1), ('seed', 0)):
        if getattr(args, option) < least:
            parser.error(f'--{option.replace("_", "-")} is to be at least {least}, not {getattr(args, option)}')
    return args


def main() -> None:
    args = parse_args()
    # Below, so that --help takes no seconds.
    from reporting import make_report

    make_report(args)


if __name__ == '__main__':
    main()
