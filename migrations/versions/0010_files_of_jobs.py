"""files of jobs"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | Sequence[str] | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.batch_alter_table("artefacts") as batch_op:
        batch_op.alter_column("candidate_id", existing_type=sa.Uuid(), nullable=True)


def downgrade() -> None:
    # the files go with the next sweep
    op.execute(
        "INSERT INTO loose_files (path, due_at) SELECT path, created_at FROM artefacts WHERE candidate_id IS NULL"
    )
    op.execute("DELETE FROM artefacts WHERE candidate_id IS NULL")
    with op.batch_alter_table("artefacts") as batch_op:
        batch_op.alter_column("candidate_id", existing_type=sa.Uuid(), nullable=False)
