"""A proxy between a database driver and its server that breaks on request.

It understands enough of the MySQL and PostgreSQL protocols to lose a COMMIT,
or only its answer. We wrote our own because existing ones, such as toxiproxy,
see bytes and not statements.

It does not support TLS (it hides the server's offer), compression, LOAD DATA
LOCAL, COPY FROM STDIN, MySQL's prepared statements and several statements in
one text. Connection.cancel() of psycopg blocks the whole interpreter, and so
the proxy: use cancel_safe().
"""

import abc
import contextlib
import dataclasses
import itertools
import re
import socket
import socketserver
import threading
from collections.abc import Callable
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any
from typing import ClassVar
from typing import NamedTuple

import fixtures
import sqlalchemy as sa

from myservice.db.sql import dialects
from myservice.tests import tracing


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of a client to the server.

    :param connection: the ordinal of the connection, from 1
    :param kind: 'connect' (once per connection, before anything is sent),
        'statement', 'begin', 'commit', 'rollback', 'ping', 'quit' or 'other'
    :param sql: the text that is executed; several texts in one pipeline are
        joined by '; ' and have the kind of the last
    """

    connection: int
    kind: str
    sql: str = ''


@dataclasses.dataclass(frozen=True)
class DropBefore:
    """The server never gets the command; both sides are closed."""


@dataclasses.dataclass(frozen=True)
class DropAfter:
    """The server answers, but the client gets nothing; both sides are
    closed."""


@dataclasses.dataclass(frozen=True)
class DropMiddle:
    """The client gets half of the answer; both sides are closed."""


@dataclasses.dataclass(frozen=True)
class DeliverLate:
    """The client is closed at once, the server gets the command later."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class Delay:
    """The server gets the command later, and the client the answer."""

    seconds: float


Action = DropBefore | DropAfter | DropMiddle | DeliverLate | Delay


class FaultProxy(fixtures.Fixture):
    """A proxy on loopback; ``url`` leads through it to the server.

    ``decide`` is called with each command, in threads of the proxy. On a
    'connect' every action but ``Delay`` closes at once. While ``refuse`` is
    true new connections are closed at once, unseen by ``decide``.

    :param server_url: the URL of a MariaDB or PostgreSQL database
    """

    def __init__(self, server_url: str) -> None:
        super().__init__()
        self.decide: Callable[[Command], Action | None] = lambda command: None
        self.refuse = False
        self.commands: list[Command] = []
        self._url = sa.make_url(server_url)
        self._protocol = _PROTOCOLS[dialects.backend_of(self._url)]
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def _setUp(self) -> None:
        self._stopping = threading.Event()
        self._listener = _Listener(self._serve)
        self.addCleanup(self._listener.server_close)
        threading.Thread(target=self._listen, daemon=True).start()
        self.addCleanup(self._stop)

    def _listen(self) -> None:
        tracing.stop()
        self._listener.serve_forever(0.02)

    @property
    def url(self) -> str:
        """The server's URL, with the proxy's address in it."""
        port = self._listener.server_address[1]
        url = self._url.set(host='127.0.0.1', port=port)
        return url.render_as_string(hide_password=False)

    def clear(self) -> None:
        """Forget the commands seen so far."""
        self.commands.clear()

    def drop_all(self) -> None:
        """Close every open connection; delayed commands are lost."""
        with self._lock:
            for side in self._open:
                _hang_up(side)

    def ask(self, command: Command) -> Action | None:
        """Note a command and return what to do about it."""
        self.commands.append(command)
        return self.decide(command)

    def sleep(self, seconds: float) -> None:
        """Let time pass, but not beyond the end of the fixture."""
        if self._stopping.wait(seconds):
            raise ConnectionAbortedError('the proxy stops')

    def _serve(self, client: socket.socket) -> None:
        # Either side may go away at any time, by itself or by drop_all(). Then
        # the other side is closed.
        with contextlib.suppress(ConnectionError), self._droppable(client):
            if not self.refuse:
                self._connect(client, next(self._numbers))

    def _connect(self, client: socket.socket, number: int) -> None:
        action = self.ask(Command(number, 'connect'))
        if isinstance(action, Delay):
            self.sleep(action.seconds)
        elif action is not None:
            return
        host = self._url.host or '127.0.0.1'
        port = self._url.port or self._protocol.PORT
        with (
            socket.create_connection((host, port)) as server,
            self._droppable(server),
        ):
            self._protocol(self, number, client, server).run()

    @contextlib.contextmanager
    def _droppable(self, side: socket.socket) -> Iterator[None]:
        # Answers are sent in many small pieces, which must not wait for more.
        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            if self._stopping.is_set():
                raise ConnectionAbortedError('the proxy stops')
            self._open.add(side)
        try:
            yield
        finally:
            with self._lock:
                self._open.remove(side)

    def _stop(self) -> None:
        self._listener.shutdown()
        self._stopping.set()
        self.drop_all()


class _Listener(socketserver.ThreadingTCPServer):
    request_queue_size = 128

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        super().__init__(('127.0.0.1', 0), socketserver.BaseRequestHandler)
        self.serve = serve

    def finish_request(self, request: Any, client_address: Any) -> None:
        # Called in the connection's own thread.
        tracing.stop()
        self.serve(request)


class _Message(NamedTuple):
    tag: bytes  # the byte that tells the type
    body: bytes  # what follows the tag
    data: bytes  # all of it, as it was sent


class _Request(NamedTuple):
    data: bytes
    kind: str
    sql: str = ''
    answered: bool = True  # by something whose end can be recognised


@dataclasses.dataclass
class _Connection(abc.ABC):
    """A client, its server, and the messages between them."""

    PORT: ClassVar[int]
    AUTHENTICATED: ClassVar[tuple[bytes, ...]]  # ends the authentication

    proxy: FaultProxy
    number: int
    client: socket.socket
    server: socket.socket

    @abc.abstractmethod
    def greet(self) -> None:
        """Pass on the first message, so that there will be no TLS."""

    @abc.abstractmethod
    def message(self, source: socket.socket) -> _Message:
        """Read a message."""

    @abc.abstractmethod
    def request(self) -> _Request:
        """Read a command."""

    @abc.abstractmethod
    def reply(self) -> Iterator[bytes]:
        """Read the answer to a command, message by message."""

    def run(self) -> None:
        """Serve the client until a ConnectionError."""
        self.greet()
        self.authenticate()
        while True:
            self.idle()
            self.handle(self.request())

    def authenticate(self) -> None:
        """Pass messages on until the server accepts or refuses the client."""
        done = False
        while not done:
            if self.server in wait([self.client, self.server]):
                message = self.message(self.server)
                self.client.sendall(message.data)
                done = message.tag in self.AUTHENTICATED
            else:
                self.server.sendall(self.message(self.client).data)

    def idle(self) -> None:
        """Pass on unasked messages of the server until the client sends
        one."""
        while self.server in wait([self.client, self.server]):
            self.client.sendall(self.message(self.server).data)

    def handle(self, request: _Request) -> None:
        """Apply the policy to a command."""
        command = Command(self.number, request.kind, request.sql)
        action = self.proxy.ask(command)
        if isinstance(action, DropBefore):
            raise ConnectionAbortedError('dropped before the command')
        if isinstance(action, DeliverLate):
            _hang_up(self.client)
        if isinstance(action, DeliverLate | Delay):
            self.proxy.sleep(action.seconds)
        self.server.sendall(request.data)
        reply = self.reply() if request.answered else iter(())
        if action is None or isinstance(action, Delay):
            for data in reply:
                self.client.sendall(data)
            return
        whole = b''.join(reply)
        if isinstance(action, DropMiddle):
            self.client.sendall(whole[: max(1, len(whole) // 2)])
        raise ConnectionAbortedError('dropped after the command')


class _MySQL(_Connection):
    PORT = 3306
    OK, ERR, EOF = b'\x00', b'\xff', b'\xfe'
    AUTHENTICATED = (OK, ERR)
    COMMANDS = {b'\x01': 'quit', b'\x0e': 'ping'}
    QUERY = b'\x03'
    MORE_RESULTS = 0x08

    def greet(self) -> None:
        message = self.message(self.server)
        data = bytearray(message.data)
        if message.tag != self.ERR:
            # The version, which ends in a zero, the thread (4), the challenge
            # (8) and a zero precede the capabilities, of which bit 11 is TLS.
            capabilities = data.index(0, 5) + 1 + 4 + 8 + 1
            data[capabilities + 1] &= ~0x08
        self.client.sendall(data)

    def message(self, source: socket.socket) -> _Message:
        data = payload = b''
        size = full = 0xFFFFFF
        while size == full:  # A full packet is continued in the next.
            header = _read(source, 4)
            size = int.from_bytes(header[:3], 'little')
            part = _read(source, size)
            data += header + part
            payload += part
        return _Message(payload[:1], payload[1:], data)

    def request(self) -> _Request:
        tag, body, data = self.message(self.client)
        if tag == self.QUERY:
            sql = body.decode(errors='replace')
            return _Request(data, _kind(sql), sql)
        return _Request(data, self.COMMANDS.get(tag, 'other'))

    def reply(self) -> Iterator[bytes]:
        message = self.message(self.server)
        yield message.data
        if message.tag in (self.OK, self.ERR, self.EOF):
            return
        for _ in ('columns', 'rows'):
            while not self.ends(message := self.message(self.server)):
                yield message.data
            yield message.data
        # A procedure sends several results. The flags that announce the next
        # one follow the number of warnings (2).
        if message.tag == self.EOF and message.body[2] & self.MORE_RESULTS:
            yield from self.reply()

    def ends(self, message: _Message) -> bool:
        """Return whether a message ends a list of columns or rows."""
        # A row can also begin with the byte of EOF, but only a long one.
        eof = message.tag == self.EOF and len(message.body) < 8
        return eof or message.tag == self.ERR


class _PostgreSQL(_Connection):
    PORT = 5432
    QUERY, SYNC, FLUSH, TERMINATE = LAST = b'Q', b'S', b'H', b'X'
    PARSE, BIND, READY = b'P', b'B', b'Z'
    AUTHENTICATED = (READY,)
    ENCRYPTION_REQUESTS = (80877103, 80877104)  # TLS and GSSAPI

    def greet(self) -> None:
        self.prepared: dict[bytes, str] = {}
        while True:
            size = _read(self.client, 4)
            body = _read(self.client, int.from_bytes(size) - 4)
            if int.from_bytes(body[:4]) not in self.ENCRYPTION_REQUESTS:
                break
            self.client.sendall(b'N')
        self.server.sendall(size + body)

    def message(self, source: socket.socket) -> _Message:
        header = _read(source, 5)
        body = _read(source, int.from_bytes(header[1:]) - 4)
        return _Message(header[:1], body, header + body)

    def request(self) -> _Request:
        data, tag = b'', b''
        texts: list[str] = []
        while tag not in self.LAST:
            message = self.message(self.client)
            tag = message.tag
            data += message.data
            texts += self.executed(message)
        otherwise = 'quit' if tag == self.TERMINATE else 'other'
        kind = _kind(texts[-1]) if texts else otherwise
        sql = '; '.join(dict.fromkeys(texts))
        # The answer to a flush has no end; idle() passes it on.
        return _Request(data, kind, sql, answered=tag != self.FLUSH)

    def executed(self, message: _Message) -> list[str]:
        """Return the SQL that a message executes, if any."""
        first, _, rest = message.body.partition(b'\0')
        second = rest.partition(b'\0')[0]
        if message.tag == self.PARSE:
            self.prepared[first] = second.decode(errors='replace')
        if message.tag == self.BIND:
            return [self.prepared.get(second, '')]
        if message.tag == self.QUERY:
            return [first.decode(errors='replace')]
        return []

    def reply(self) -> Iterator[bytes]:
        tag = b''
        while tag != self.READY:
            tag, _, data = self.message(self.server)
            yield data


_PROTOCOLS: dict[str, type[_Connection]] = {
    'mysql': _MySQL,
    'postgresql': _PostgreSQL,
}

_KINDS = re.compile(
    r'\s*(?:(?P<begin>BEGIN|START\s+TRANSACTION)|(?P<commit>COMMIT)'
    r'|(?P<rollback>ROLLBACK(?!\s+TO\b)))\b',
    re.IGNORECASE,
)


def _kind(sql: str) -> str:
    match = _KINDS.match(sql)
    return (match and match.lastgroup) or 'statement'


def _read(source: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            raise ConnectionAbortedError('the other side has hung up')
        data += part
    return bytes(data)


def _hang_up(side: socket.socket) -> None:
    # Not close(), which would not wake the thread that reads the socket. If
    # the other side has reset the socket, shutdown() fails, and is not needed.
    with contextlib.suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)
