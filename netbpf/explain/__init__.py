"""Answers: what a program did with a packet and why, what it never did, and why one was refused.

Built on runs that hooks watch in the interpreter; changes nothing of what they watch. Knows programs, packets, maps and hosts;
knows no scenario and no command line.
"""
