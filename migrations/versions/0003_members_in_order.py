"""members in order"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.batch_alter_table("front_members") as batch_op:
        batch_op.add_column(sa.Column("number", sa.Integer(), nullable=True))
    op.execute("UPDATE front_members SET number = (SELECT number FROM candidates WHERE candidates.id = candidate_id)")
    with op.batch_alter_table("front_members") as batch_op:
        batch_op.alter_column("number", existing_type=sa.Integer(), nullable=False)
        batch_op.drop_index(batch_op.f("ix_front_members_front_id_left_version"))
        batch_op.create_index(
            batch_op.f("ix_front_members_front_id_left_version_number"),
            ["front_id", "left_version", "number"],
            unique=False,
        )


def downgrade() -> None:
    with op.batch_alter_table("front_members") as batch_op:
        batch_op.drop_index(batch_op.f("ix_front_members_front_id_left_version_number"))
        batch_op.create_index(
            batch_op.f("ix_front_members_front_id_left_version"), ["front_id", "left_version"], unique=False
        )
        batch_op.drop_column("number")
