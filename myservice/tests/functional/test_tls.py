"""TLS to MariaDB: what a URL means is what it means to PyMySQL alone."""

import pathlib
import ssl
import subprocess
from typing import ClassVar
from unittest import mock

import fixtures as plain_fixtures
import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import fixtures
from myservice import servers
from myservice.tests import base

RIGHT_HOST, WRONG_HOST = 'localhost', '127.0.0.1'
# How a connection ends: it is made, or refused with one of these messages.
ENCRYPTED, PLAIN = 'encrypted', 'plain'
UNTRUSTED = 'certificate verify failed'
WRONG_NAME = "certificate is not valid for '127.0.0.1'"
NOT_THERE = "SSL is required but the server doesn't support it"
DENIED = 'Access denied for user'

# Options of a server; {} is where the certificates are.
CERTIFICATES = {
    'ssl_ca': '{}/ca.pem',
    'ssl_cert': '{}/me.pem',
    'ssl_key': '{}/me.key',
}
WITHOUT = {'ssl': '0'}


def make_certificate(
    directory: pathlib.Path, name: str, issuer: str | None = None
) -> None:
    """Make a certificate for RIGHT_HOST, and its key.

    :param directory: where it is put, as <name>.pem and <name>.key
    :param issuer: the name of the one that signs it; by default itself
    """
    signed = ['-CA', f'{issuer}.pem', '-CAkey', f'{issuer}.key']
    subprocess.run(
        [
            *('openssl', 'req', '-x509', '-nodes', '-subj', f'/CN={name}'),
            *('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'),
            *('-addext', f'subjectAltName=DNS:{RIGHT_HOST}'),
            *('-keyout', f'{name}.key', '-out', f'{name}.pem'),
            *(signed if issuer else ()),
        ],
        cwd=directory,
        check=True,
        capture_output=True,
    )


class TLSTestCase(base.TestCase):
    """A MariaDB server, one for the class, and certificates."""

    options: ClassVar[dict[str, str]]
    server: ClassVar[servers.MariaDB]
    directory: ClassVar[pathlib.Path]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        temporary = plain_fixtures.TempDir()
        temporary.setUp()
        cls.addClassCleanup(temporary.cleanUp)
        cls.directory = pathlib.Path(temporary.path)
        for name, issuer in (('ca', None), ('other-ca', None), ('me', 'ca')):
            make_certificate(cls.directory, name, issuer)
        cls.server = servers.MariaDB(**cls.settings(cls.options))
        cls.server.setUp()
        cls.addClassCleanup(cls.server.cleanUp)

    @classmethod
    def settings(cls, options: dict[str, str]) -> dict[str, str]:
        """Return options with the place of the certificates filled in."""
        return {
            name: value.replace('{}', str(cls.directory))
            for name, value in options.items()
        }

    def setUp(self) -> None:
        super().setUp()
        self.database = self.useFixture(fixtures.Database(self.server.url))

    def restart(self, options: dict[str, str]) -> None:
        """Start the server anew, with other options."""
        self.server.stop()
        self.server.settings = self.settings(options)
        self.server.start()

    def url(self, query: str, host: str = RIGHT_HOST) -> str:
        """Return the URL of the server; {} in the query is as in options."""
        url = sa.make_url(self.server.url).set(host=host)
        return f'{url}?{query}'.replace('{}', str(self.directory))

    def check(self, query: str, right_host: str, wrong_host: str) -> None:
        """Check how connections end, by our engines and without them."""
        for host, expected in (
            (RIGHT_HOST, right_host),
            (WRONG_HOST, wrong_host),
        ):
            url = self.url(query, host)
            bare = sa.create_engine(url, poolclass=sa.NullPool)
            self.assertEqual(expected, outcome(bare), url)
            self.database.configure(connection=url)
            engine = self.database.engine('autocommit')
            self.assertEqual(expected, outcome(engine), url)

    def check_contexts_of_five(self, expected: str) -> None:
        """Check that five connections by default are made with one context."""
        with mock.patch(
            'ssl.create_default_context', wraps=ssl.create_default_context
        ) as made:
            self.database.configure(connection=self.url(''))
            engine = self.database.engine('autocommit')
            for _ in range(5):
                self.assertEqual(expected, outcome(engine))
                engine.dispose()
        self.assertEqual(1, made.call_count)


def outcome(engine: sa.Engine) -> str:
    try:
        with engine.connect() as connection:
            cipher = connection.execute(
                sa.text("SHOW STATUS LIKE 'Ssl_cipher'")
            ).one()
    except (sa.exc.OperationalError, db_exception.DBError) as error:
        for reason in (WRONG_NAME, UNTRUSTED, NOT_THERE, DENIED):
            if reason in str(error):
                return reason
        raise
    return ENCRYPTED if cipher[1] else PLAIN


class TestServerWithTLS(TLSTestCase):
    options = CERTIFICATES

    def test_by_default_it_is_used_and_nobody_is_verified(self) -> None:
        self.check('', ENCRYPTED, ENCRYPTED)

    def test_ssl_disabled_leaves_it_out(self) -> None:
        self.check('ssl_disabled=true', PLAIN, PLAIN)

    def test_ssl_ca_demands_its_signature_and_the_name_of_the_host(
        self,
    ) -> None:
        self.check('ssl_ca={}/ca.pem', ENCRYPTED, WRONG_NAME)
        self.check('ssl_ca={}/other-ca.pem', UNTRUSTED, UNTRUSTED)

    def test_without_ssl_check_hostname_the_signature_is_enough(self) -> None:
        query = 'ssl_check_hostname=false&ssl_ca={}'
        self.check(query + '/ca.pem', ENCRYPTED, ENCRYPTED)
        self.check(query + '/other-ca.pem', UNTRUSTED, UNTRUSTED)

    def test_ssl_verify_cert_demands_one_that_the_machine_trusts(self) -> None:
        self.check('ssl_verify_cert=true', UNTRUSTED, UNTRUSTED)
        self.useFixture(
            plain_fixtures.EnvironmentVariable(
                'SSL_CERT_FILE', f'{self.directory}/ca.pem'
            )
        )
        self.check('ssl_verify_cert=true', ENCRYPTED, ENCRYPTED)

    def test_ssl_verify_identity_refuses_whom_the_machine_does_not_trust(
        self,
    ) -> None:
        self.check('ssl_verify_identity=true', UNTRUSTED, UNTRUSTED)
        # SQLAlchemy and PyMySQL lose this ssl_ca between them.
        self.check(
            'ssl_verify_identity=true&ssl_ca={}/ca.pem', UNTRUSTED, UNTRUSTED
        )

    def test_ssl_cert_and_ssl_key_are_shown_to_the_server(self) -> None:
        root = sa.create_engine(self.server.url)
        with root.connect() as connection:
            for statement in (
                "CREATE USER known@'%' REQUIRE X509",
                "GRANT ALL ON test.* TO known@'%'",
            ):
                connection.execute(sa.text(statement))
        root.dispose()
        self.check('user=known', DENIED, DENIED)
        self.check(
            'user=known&ssl_cert={}/me.pem&ssl_key={}/me.key',
            ENCRYPTED,
            ENCRYPTED,
        )

    def test_a_file_of_options_may_ask_for_it(self) -> None:
        for name, right_host, wrong_host in (
            ('ca', ENCRYPTED, WRONG_NAME),
            ('other-ca', UNTRUSTED, UNTRUSTED),
        ):
            path = self.directory / f'{name}.cnf'
            path.write_text(
                f'[client]\nssl-ca = {self.directory}/{name}.pem\n'
            )
            self.check(f'read_default_file={path}', right_host, wrong_host)

    def test_five_connections_have_one_context(self) -> None:
        self.check_contexts_of_five(ENCRYPTED)


class TestServerWithoutTLS(TLSTestCase):
    options = WITHOUT

    def test_by_default_it_is_done_without(self) -> None:
        self.check('', PLAIN, PLAIN)
        self.check('ssl_disabled=true', PLAIN, PLAIN)

    def test_who_asks_for_it_is_refused(self) -> None:
        for query in (
            'ssl_ca={}/ca.pem',
            'ssl_check_hostname=false',
            'ssl_verify_cert=true',
            'ssl_verify_identity=true',
        ):
            self.check(query, NOT_THERE, NOT_THERE)

    def test_once_the_server_has_it_new_connections_use_it(self) -> None:
        self.database.configure(connection=self.url(''))
        engine = self.database.engine('autocommit')
        self.assertEqual(PLAIN, outcome(engine))
        self.restart(CERTIFICATES)
        self.addCleanup(self.restart, self.options)
        engine.dispose()
        self.assertEqual(ENCRYPTED, outcome(engine))

    def test_five_connections_have_one_context(self) -> None:
        self.check_contexts_of_five(PLAIN)
