"""A strict reader of Prometheus's text format: what `promtool check metrics` would complain of is an assertion.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ and promtool's linter.
"""

import re
from dataclasses import dataclass, field

Labels = frozenset[tuple[str, str]]

_SAMPLE = re.compile(r"([a-z_]+)(?:\{(.+)\})? (\S+)")
_LABEL = re.compile(r'([a-z][a-z_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')
_SUFFIXES = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}


@dataclass
class Family:
    """One metric. `samples` are by name, which a histogram has three of, and labels."""

    name: str
    kind: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def value(self, suffix: str = "", **labels: str) -> float:
        """The sample with just these labels; 0 when there is none."""
        return self.samples.get((self.name + suffix, frozenset(labels.items())), 0)

    def total(self, **labels: str) -> float:
        """The sum of all samples that have these labels among theirs."""
        return sum(value for (_, each), value in self.samples.items() if each >= labels.items())


def parse(text: str) -> dict[str, Family]:
    """All families by name."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("#"):
            family = _family(line, next(lines))
            assert family.name not in families, family.name
            families[family.name] = family
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        labels = _labels(match[2] or "")
        assert match[1] in [family.name + suffix for suffix in _SUFFIXES[family.kind]], line
        assert (match[1], labels) not in family.samples, line
        family.samples[match[1], labels] = float(match[3])
    for family in families.values():
        _check(family)
    return families


def _family(help_line: str, type_line: str) -> Family:
    match = re.fullmatch(r"# HELP ([a-z][a-z_]*) .+", help_line)
    assert match, help_line
    kind = type_line.removeprefix(f"# TYPE {match[1]} ")
    assert kind in _SUFFIXES, type_line
    return Family(match[1], kind)


def _labels(text: str) -> Labels:
    pairs = _LABEL.findall(text)
    assert _LABEL.sub("", text) == "", text
    assert len(dict(pairs)) == len(pairs), text
    return frozenset(pairs)


def _check(family: Family) -> None:
    assert family.name.endswith("_total") == (family.kind == "counter"), family.name
    assert not family.name.endswith(("_count", "_sum", "_bucket", "_milliseconds", "_ms")), family.name
    for kind in ("counter", "gauge", "histogram", "summary"):
        assert kind not in family.name, family.name
    if family.kind == "histogram":
        _check_histogram(family)
    else:
        assert all(dict(labels).keys().isdisjoint({"le", "quantile"}) for _, labels in family.samples)
    if family.kind == "counter":
        assert all(value >= 0 for value in family.samples.values())


def _check_histogram(family: Family) -> None:
    """Check a histogram without labels other than `le`, as all of ours are."""
    buckets = [(float(dict(labels)["le"]), value) for (name, labels), value in family.samples.items() if labels]
    assert [bound for bound, _ in buckets] == sorted({bound for bound, _ in buckets}), buckets
    assert [value for _, value in buckets] == sorted(value for _, value in buckets), buckets
    assert buckets[-1] == (float("inf"), family.value("_count"))
    assert family.value("_count") or not family.value("_sum")
