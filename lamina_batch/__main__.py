"""`python -m lamina_batch` is `lamina-batch`."""

from lamina_batch.cli import main

main()
