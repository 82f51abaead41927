"""`python -m ensdistill_tune`: the same as the command `ensdistill-tune`."""

import sys

from ensdistill_tune.cli import main

sys.exit(main())
