"""`python -m talkingmachines`: the one command."""

import sys

from talkingmachines.cli.main import main

sys.exit(main())
