"""What SQLAlchemy's annotations do not say of the sessions of this package."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any
from typing import ClassVar
from typing import Protocol
from typing import TypeVarTuple
from typing import overload

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.sql.selectable import TypedReturnsRows

#: the parameters of a statement; a list is a statement for each
Parameters = Mapping[str, object] | Sequence[Mapping[str, object]]

#: a model, or what else a Session is bound by, to what it works on for it
Binds = Mapping[Any, sa.Engine | sa.Connection]

_Ts = TypeVarTuple('_Ts')


class Instance(Protocol):
    """An instance of a model; what calls of db.api return is a row instead."""

    __mapper__: ClassVar[orm.Mapper[Any]]


class AnnotatedSession(orm.Session):
    """A Session that takes instances of models, and no rows.

    Its writes tell how many rows they have changed.
    """

    if TYPE_CHECKING:

        def add(  # type: ignore[override]
            self, instance: Instance, *, _warn: bool = True
        ) -> None: ...

        def add_all(  # type: ignore[override]
            self, instances: Iterable[Instance]
        ) -> None: ...

        def delete(  # type: ignore[override]
            self, instance: Instance
        ) -> None: ...

        @overload
        def execute(
            self,
            statement: TypedReturnsRows[*_Ts],
            params: Parameters | None = None,
            **options: object,
        ) -> sa.Result[*_Ts]: ...

        @overload
        def execute(
            self,
            statement: sa.UpdateBase,
            params: Parameters | None = None,
            **options: object,
        ) -> sa.CursorResult[*tuple[Any, ...]]: ...

        @overload
        def execute(
            self,
            statement: sa.Executable,
            params: Parameters | None = None,
            **options: object,
        ) -> sa.Result[*tuple[Any, ...]]: ...

        def execute(
            self,
            statement: sa.Executable,
            params: Parameters | None = None,
            **options: object,
        ) -> sa.Result[*tuple[Any, ...]]: ...
