"""Draws what calls.py has measured.

As a program it draws the JSON of an earlier run::

    python bench/plot.py calls.json images
"""

import argparse
import json
import pathlib
from typing import Any

import matplotlib as mpl

mpl.use('agg')
# The same figures make the same file.
mpl.rcParams['svg.hashsalt'] = 'myservice'

from matplotlib import pyplot  # noqa: E402 - it reads what is set above

_METADATA: dict[str, dict[str, None]] = {
    'svg': {'Date': None},
    'png': {'Software': None},
}
_COLORS = {
    'driver': '#555555',
    'layer': '#d62728',
    'peewee': '#2ca02c',
    'Django': '#9467bd',
    'sessionmaker': '#1f77b4',
    'Flask-SQLAlchemy': '#17becf',
    'oslo.db': '#ff7f0e',
}
_STYLES = {
    'get': '-',
    'heartbeat': '--',
    'first page': ':',
    'last page': '-.',
}


def draw(report: dict[str, Any], directory: pathlib.Path) -> None:
    """Write all plots of a report, as PNG and SVG.

    :param report: what calls.py has measured
    :param directory: where to; it is made if there is none
    """
    directory.mkdir(parents=True, exist_ok=True)
    for database in report['servers']:
        rows = [row for row in report['calls'] if row['database'] == database]
        if rows:
            _save(_calls(database, rows), directory, f'calls-{database}')
    if report['threads']:
        _save(_growth(report), directory, 'growth')


def _save(figure: Any, directory: pathlib.Path, name: str) -> None:
    for kind, metadata in _METADATA.items():
        figure.savefig(
            directory / f'{name}.{kind}', dpi=110, metadata=metadata
        )
    pyplot.close(figure)


def _calls(database: str, rows: list[dict[str, Any]]) -> Any:
    calls = list(dict.fromkeys(row['call'] for row in rows))
    found = {(row['call'], row['way']): row for row in rows}
    ways = [way for way in _COLORS if way != 'driver']
    height = 0.8 / len(ways)
    figure, axes = pyplot.subplots(
        figsize=(9, 1.5 + 0.85 * len(calls)), layout='constrained'
    )
    for number, way in enumerate(ways):
        _bars(
            axes,
            [found[call, way]['ratios']['driver']['cpu'] for call in calls],
            [each + (number + 0.5) * height - 0.4 for each in _upto(calls)],
            height,
            way,
        )
    axes.set_yticks(_upto(calls), calls)
    axes.set_ylim(len(calls) - 0.5, -0.5)
    axes.set_xscale('log')
    axes.set_xlim(0.9)
    ticks = [1, 2, 3, 5, 10, 20, 30, 50]
    most = axes.get_xlim()[1]
    axes.set_xticks([tick for tick in ticks if tick <= most])
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_formatter('')
    axes.axvline(1, color=_COLORS['driver'])
    axes.grid(axis='x', alpha=0.4)
    axes.set_axisbelow(True)
    axes.set_xlabel("CPU of the client, as a multiple of the bare driver's")
    axes.set_title(f'{database}: what a call costs (1 is the driver)')
    figure.legend(loc='outside lower center', ncols=len(ways))
    return figure


def _upto(items: list[str]) -> range:
    return range(len(items))


def _bars(
    axes: Any,
    ratios: list[dict[str, float]],
    places: list[float],
    height: float,
    way: str,
) -> None:
    medians = [ratio['median'] for ratio in ratios]
    axes.barh(
        places,
        # From 1 on: an axis of ratios has no 0.
        [median - 1 for median in medians],
        height * 0.9,
        left=1,
        color=_COLORS[way],
        label=way,
        xerr=[
            [ratio['median'] - ratio['low'] for ratio in ratios],
            [ratio['high'] - ratio['median'] for ratio in ratios],
        ],
        error_kw={'elinewidth': 0.8},
    )


def _growth(report: dict[str, Any]) -> Any:
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), layout='constrained')
    calls = ('service_get', 'service_heartbeat')
    for place, call in zip(axes[0], calls, strict=True):
        rows = [row for row in report['threads'] if row['call'] == call]
        _lines(place, rows, 'threads', 'calls_a_second')
        place.set_title(f'{call}, by threads')
        place.set_ylabel('calls a second')
    _lines(axes[1][0], report['pools'], 'pool_size', 'calls_a_second')
    axes[1][0].set_title('service_heartbeat of 16 threads, by size of pool')
    axes[1][0].set_ylabel('calls a second')
    _rows(axes[1][1], report['rows'])
    figure.legend(
        *axes[0][0].get_legend_handles_labels(),
        loc='outside lower center',
        ncols=3,
    )
    figure.suptitle(f'Growth, on {report["threads"][0]["database"]}')
    return figure


def _lines(axes: Any, rows: list[dict[str, Any]], x: str, y: str) -> None:
    for way in [way for way in _COLORS if _of(rows, 'way', way)]:
        own = _of(rows, 'way', way)
        axes.plot(
            [row[x] for row in own],
            [row[y] for row in own],
            marker='o',
            color=_COLORS[way],
            label=way,
        )
    ticks = sorted({row[x] for row in rows})
    axes.set_xscale('log')
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_formatter('')
    axes.set_ylim(0)
    axes.set_xlabel(x.replace('_', ' '))
    axes.grid(alpha=0.4)


def _rows(axes: Any, rows: list[dict[str, Any]]) -> None:
    for call, style in _STYLES.items():
        # For the legend: the colours have one of their own.
        axes.plot([], [], style, color='black', label=call)
        for way in ('driver', 'layer', 'oslo.db'):
            own = _of(_of(rows, 'way', way), 'call', call)
            axes.plot(
                [row['rows'] for row in own],
                [(row['cpu'] + row['server']) / 1000 for row in own],
                style,
                marker='.',
                color=_COLORS[way],
            )
    axes.set_xscale('log')
    axes.set_yscale('log')
    axes.yaxis.set_major_formatter('{x:g}')
    axes.yaxis.set_minor_formatter('')
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10])
    axes.set_title('A call, by services in the table')
    axes.set_xlabel('rows')
    axes.set_ylabel('CPU of client and server, milliseconds')
    axes.grid(alpha=0.4)
    axes.legend(loc='center left', bbox_to_anchor=(1, 0.5))


def _of(
    rows: list[dict[str, Any]], name: str, value: str
) -> list[dict[str, Any]]:
    return [row for row in rows if row[name] == value]


def main() -> None:
    """Draw an earlier run."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('report', type=pathlib.Path)
    parser.add_argument('directory', type=pathlib.Path)
    arguments = parser.parse_args()
    draw(json.loads(arguments.report.read_text()), arguments.directory)


if __name__ == '__main__':
    main()
