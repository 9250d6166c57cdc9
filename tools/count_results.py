"""Print the results of the tests in subunit streams, as one line.

Usage: stestr last --subunit | python tools/count_results.py
"""

import collections
import sys

import testtools
from subunit import v2

counts: collections.Counter[str] = collections.Counter()


def count(test: dict[str, object]) -> None:
    """Count one test by its result."""
    counts[str(test['status'])] += 1


result = testtools.StreamToDict(count)
result.startTestRun()
v2.ByteStreamToStreamResult(sys.stdin.buffer, non_subunit_name='stdout').run(
    result
)
result.stopTestRun()
passed = counts['success'] + counts['xfail']
failed = counts['fail'] + counts['inprogress'] + counts['uxsuccess']
line = f'{passed} passed, {failed} failed'
if counts['skip']:
    line += f', {counts["skip"]} skipped'
print(line)
sys.exit(bool(failed))
