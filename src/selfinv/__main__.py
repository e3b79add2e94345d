"""``python -m selfinv`` is the command ``selfinv``."""

from selfinv.cli import main

if __name__ == "__main__":
    main()
