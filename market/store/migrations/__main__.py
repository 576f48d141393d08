"""`python -m market.store.migrations "What changes"` writes the migration from the newest one to the models."""

import sys
import tempfile
from pathlib import Path

from alembic import command

from market.store.db import Database

with tempfile.TemporaryDirectory() as folder:
    database = Database(f"sqlite:///{folder}/new.sqlite3")
    database.upgrade()
    newest = sorted(path.stem for path in (Path(__file__).parent / "versions").glob("[0-9]*.py"))[-1]
    with database.migrating() as config:
        command.revision(config, sys.argv[1], autogenerate=True, rev_id=f"{int(newest[:4]) + 1:04}")
