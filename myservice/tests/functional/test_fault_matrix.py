"""No call is lost, doubled or lied about, whatever fault it meets."""

from typing import ClassVar

from myservice.tests import base
from myservice.tests.functional import fault_matrix


class MatrixTestCase(base.TestCase):
    backend: ClassVar[str]
    # Functions that write; each is there for each fault.
    least_cells: ClassVar[int]

    def check(self) -> None:
        cells = 0
        with fault_matrix.matrix_of(self.backend) as matrix:
            for name, fault, cell in matrix.rows():
                cells += 1
                self.assertEqual('', cell.violation)
                if fault in fault_matrix.INTERRUPTS:
                    self.assertIn('interrupted', cell.outcome)
                    continue
                # With the default options every fault here is survived.
                # Only who looks for work passes by what is locked.
                allowed = {'once'}
                if name == 'resource_claim_next':
                    allowed.add('passed by')
                self.assertIn(cell.outcome, allowed, f'{name}, {fault}')
        self.assertTrue(cells >= self.least_cells, cells)


class TestSQLite(MatrixTestCase):
    backend = 'sqlite'
    least_cells = 8

    def test_each_writing_function_under_each_fault(self) -> None:
        self.check()


class TestMariaDB(MatrixTestCase):
    backend = 'mariadb'
    least_cells = 100

    def test_each_writing_function_under_each_fault(self) -> None:
        self.check()


class TestPostgreSQL(MatrixTestCase):
    backend = 'postgresql'
    least_cells = 100

    def test_each_writing_function_under_each_fault(self) -> None:
        self.check()
