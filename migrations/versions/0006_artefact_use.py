"""artefact use"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | Sequence[str] | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.batch_alter_table("artefacts") as batch_op:
        batch_op.add_column(sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))

    op.create_table(
        "loose_files",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_loose_files")),
    )
    with op.batch_alter_table("loose_files") as batch_op:
        batch_op.create_index(batch_op.f("ix_loose_files_due_at"), ["due_at"], unique=False)


def downgrade() -> None:
    op.drop_table("loose_files")
    with op.batch_alter_table("artefacts") as batch_op:
        batch_op.drop_column("last_used_at")
