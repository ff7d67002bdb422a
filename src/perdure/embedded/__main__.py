"""The watcher as a script: ``python -I -S <this file> <orders>``.

Isolated and without site-packages it starts in a blink. That leaves the package ``perdure`` out of
reach, whose import may cost seconds: empty stand-ins let the watcher's modules be imported alone.
"""

import sys
from pathlib import Path
from types import ModuleType

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    for name, path in (("perdure", here.parent), ("perdure.embedded", here)):
        package = ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package

    from perdure.embedded.shared import Orders
    from perdure.embedded.watcher import main

    sys.exit(main(Orders.loads(sys.argv[1])))
