"""Words in, words out: the commands, their exit codes, and nothing that decides about rows or money.

Libraries that take long to load are imported by the commands that need them, so that `--help` is quick.
"""

from __future__ import annotations

import gc

import click

from lamina_batch._version import __version__
from lamina_batch.cli.apps import apps
from lamina_batch.cli.authoring import init, sheet
from lamina_batch.cli.doctor import doctor
from lamina_batch.cli.ledger import held, state, status
from lamina_batch.cli.preview import plan, validate
from lamina_batch.cli.results import results
from lamina_batch.cli.running import collect, run
from lamina_batch.cli.sandbox import sandbox
from lamina_batch.cli.shell import Group


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 could not run, 2 wrong usage, 3 some rows need attention, 4 nothing run because rows "
    "are invalid and run.on_invalid_rows is fail, 5 stopped to save money, 6 some submissions are held, "
    "7 another run holds the ledger, 8 the app has changed in a way that breaks the pipeline.",
)
@click.version_option(__version__, prog_name="lamina-batch")
def main() -> None:
    """Run a product catalog through a Lamina app: rows in, images, videos and text out, no credit spent twice.

    \b
    Try it without a key:
      lamina-batch run pipelines/premium_catalog.yaml --sandbox

    \b
    Begin with your own rows:
      lamina-batch init --app ID --rows products.csv
    """
    # What a command imports is a hundred thousand objects and no garbage; looking for some takes a tenth of a second.
    gc.set_threshold(20_000, 20, 20)


for _command in (run, collect, validate, plan, status, held, results, init, sheet, state, apps, doctor, sandbox):
    main.add_command(_command)
