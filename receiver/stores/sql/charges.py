"""What providers said they charged."""

from __future__ import annotations

from receiver.stores import rows
from receiver.stores.base import TimeRange
from receiver.stores.charges import Charge
from receiver.stores.sql.session import SqlStoreBase


class Charges(SqlStoreBase):
    """See `stores.charges.Charges`."""

    def charges(
        self,
        created: TimeRange,
        *,
        after: int = 0,
        limit: int = 1000,
        provider: str | None = None,
        account: str | None = None,
    ) -> list[Charge]:
        where, values = rows.filters(provider=provider, account=account)
        more, bounds = rows.within("created_at", created)
        sql = f"{_CHARGES} and {where}{more} order by seq limit ?"
        with self.reading() as connection:
            found = connection.execute(sql, [after, *values, *bounds, limit]).fetchall()
        return [
            Charge(
                row=row["seq"],
                provider=row["provider"],
                account=row["account"],
                reference=row["reference"],
                created_at=row["created_at"],
                cost=row["cost"],
                unit=row["cost_unit"],
            )
            for row in found
        ]


_CHARGES = """
select seq, provider, account, reference, created_at, cost, cost_unit from tasks
where cost is not null and seq > ?
"""
