"""Captures through programs: Record stream -> host -> verdicts, counters, report."""
