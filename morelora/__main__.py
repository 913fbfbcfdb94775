"""``python -m morelora``: look at adapter files, convert, merge, extract, resize and analyse them, without a model in memory."""

import sys

from morelora.cli import main

sys.exit(main())
